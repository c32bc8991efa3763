"""Lesson 00: its checks, its glossary, its map."""

from __future__ import annotations

import json
import re

import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from styles_00 import RIGHT

from vmae import ROOT
from vmae.config import MaskConfig
from vmae.course.checks import check, exercises, verdict
from vmae.course.checks import notebook_00 as right
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask

ALL = exercises("00")

pytestmark = pytest.mark.usefixtures("drawn")


@right_answers(RIGHT)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[name], answer) is None


# ---- wrong answers of other kinds ------------------------------------------------------------------


def hide_in_place(picture, hidden, patch):
    picture.copy_(right.hide(picture, hidden, patch))
    return picture


def hide_from_its_index(picture, hidden, patch):
    out = picture.clone()
    for row, column in hidden.nonzero():
        out[:, row : row + patch, column : column + patch] = 0.5
    return out


@wrong_answers(
    {
        "token_count": [
            (lambda T, H, W, p: T // 2 * (H // 16) * (W // 16), "fixed at 2x16x16"),
            (lambda T, H, W, p: T // 2 * (H // p[1]) * (W // p[2]), "p_t is fixed at 2"),
            (lambda *a: None, "is the `return` missing"),
            (lambda *a: right.token_count(*a) + 1, "got 13; expected 12"),
            (lambda *a: "12", "got '12'"),
            (lambda T, H, W, p: T / p[0] * H / p[1] * W / p[2], "a float, 12.0: divide with //"),
            (lambda T, H, W, p: T // p * 4, "it raises TypeError"),
        ],
        "hide": [
            (hide_from_its_index, "used as a pixel"),
            (hide_in_place, "it modifies its arguments"),
            (lambda x, m, p: right.hide(x, m, p)[0], r"the shape is \(96, 96\)"),
            (lambda x, m, p: right.hide(x, m, p) + 0.1, "the shape is correct"),
            (lambda x, m, p: x[:, m], "it raises IndexError"),
            (lambda x, m, p: right.hide(x, m, p).numpy(), "of type ndarray; expected Tensor"),
        ],
    }
)
def test_other_wrong_answers_are_rejected(name, answer, words):
    assert_rejected(ALL[f"00.{name}"], answer, words)


def test_the_lesson_quotes_what_the_check_says_of_its_example(capsys, monkeypatch):
    """Learners type the wrong answer in the card of exercise 1; its message stands below."""
    monkeypatch.delenv("VMAE_STRICT", raising=False)
    source = (ROOT / "solutions" / "00_start_here.py").read_text(encoding="utf-8")
    (line,) = re.findall(r"type `return (.*)`", source)
    check("00.token_count", eval(f"lambda frames, height, width, tubelet: {line}"))
    (quoted,) = re.findall(r"# ```text\n((?:# .*\n)+?)# ```", source)
    assert re.sub("^# ", "", quoted, flags=re.M) == capsys.readouterr().out


def test_the_drawing_has_as_many_squares_as_the_learner_counts(drawn):
    verdict(ALL["00.token_count"], lambda *a: 5)
    assert drawn[0].startswith("5 blue squares")


def test_the_model_hides_patches_as_the_exercise_does(tiny):
    """`hide` equals the masked frames that `MaskedAutoencoder.reconstruct` returns."""
    g = torch.Generator().manual_seed(0)
    clips = torch.rand(1, 3, *tiny.grid.clip, generator=g)
    mask = make_mask(MaskConfig("tube", 0.75), tiny.grid, 1, g)
    masked = MaskedAutoencoder(tiny).eval().reconstruct(clips, mask).masked[0]
    t, h, w = tiny.grid.shape
    hidden = mask.hidden(tiny.grid.num_tokens).view(t, h, w)[0]
    for frame in range(tiny.num_frames):
        painted = right.hide(clips[0, :, frame], hidden, tiny.tubelet[1])
        torch.testing.assert_close(masked[:, frame], painted)


# ---- the glossary -----------------------------------------------------------------------------------


def terms(name: str) -> dict[str, str]:
    """A lesson's glossary, {term: Chinese}; rows with several terms are split."""
    text = (ROOT / "solutions" / f"{name}.py").read_text(encoding="utf-8")
    found = {}
    for table in re.findall(r"# \| term \| 中文 \|.*\n# \|[-|]+\n((?:# \|.*\n?)+)", text):
        for row in table.splitlines():
            term, chinese = (cell.strip() for cell in row.split("|")[1:3])
            both = list(zip(term.split(", "), chinese.split("、"), strict=False))
            found |= dict(both) if len(both) == term.count(", ") + 1 else {term: chinese}
    return found


def test_the_glossary_of_lesson_00_has_every_term_of_the_others():
    """With the same Chinese; a term with two translations lists both, separated by a slash."""
    (start,) = (ROOT / "solutions").glob("00_*.py")
    glossary, missing = terms(start.stem), []
    for path in sorted((ROOT / "solutions").glob("[0-9][0-9]_*.py")):
        for term, chinese in terms(path.stem).items():
            if chinese not in glossary.get(term, "").split(" / ") and path != start:
                missing.append(
                    f"{path.stem}: {term} | {chinese}, but {glossary.get(term)} in lesson 00"
                )
    assert not missing, "add to the glossary of lesson 00:\n" + "\n".join(missing)
    assert len(glossary) > 40


def test_the_executed_map_names_every_lesson():
    (start,) = (ROOT / "solutions").glob("00_*.ipynb")
    cells = json.loads(start.read_text(encoding="utf-8"))["cells"]
    shown = json.dumps([cell.get("outputs") for cell in cells])
    built = sorted(path.name for path in (ROOT / "solutions").glob("[0-9][0-9]_*.ipynb"))
    missing = [name for name in built if f"../notebooks/{name}" not in shown]
    assert missing == [], "run `python solutions/build.py --execute 00` after all other lessons"
