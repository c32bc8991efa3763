"""The learner's notebooks in JupyterLab, in a real browser. `make test-browser` runs this."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from lab import CHROMIUM, SHOTS, Lab, Notebook, served
from papermill.iorw import load_notebook_node

from vmae import ROOT
from vmae.course.progress import PROGRESS

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
EXPLORERS = (
    "02_mae", "05_masking_video", "06_videomae_v1", "07_fine_tuning", "08_videomae_v2", "09_scale",
)  # fmt: skip
#: Exercises that are solved, wrongly first: what is changed in the solution, and what the check says of it.
TRIED = (
    (
        "00_start_here",
        "00.token_count",
        "(frames // p_t)",
        "frames",
        "every frame is counted as a time step",
    ),
    ("00_start_here", "00.hide", "(pixels, 0.5,", "(pixels, 0.0,", "paint them grey (0.5)"),
    ("01_vision_transformer", "01.patchify", "(p q c)", "(c p q)", "channel varies slowest"),
    ("01_vision_transformer", "01.attention", " / q.shape[-1] ** 0.5", "", "are not scaled"),
    (
        "01_vision_transformer",
        "01.Block",
        "x + self.attn(self.norm1(x))",
        "self.norm1(x + self.attn(x))",
        "norm1 is applied to the sum",
    ),
    ("02_mae", "02.MAEDecoder", "[:, 1:]  # (B, N, P)", "[:, :-1]", "all are shifted by one"),
    ("02_mae", "02.random_masking", ">= keep", "< keep", "that the encoder does not see"),
    ("03_mae_trained", "03.learning_rates", " * batch / 256", "", "is not scaled"),
    (
        "03_mae_trained",
        "03.pretrain",
        "optimizer.zero_grad()",
        "pass",
        "the gradients of all steps add up",
    ),
    (
        "04_video_in",
        "04.dense_indices",
        "(room + 1)",
        "(max(room, 1))",
        "last possible start is never drawn",
    ),
    (
        "04_video_in",
        "04.TubeletEmbed",
        "-> d (p_t p_h p_w c)",
        "-> d (c p_t p_h p_w)",
        "flattened as it is stored",
    ),
    (
        "05_masking_video",
        "05.tube_mask",
        "noise[:, 0]",
        "noise[:1, 0].expand(len(noise), -1)",
        "gets the same mask",
    ),
    (
        "05_masking_video",
        "05.MaskingGenerator",
        "noise.flatten(1)[:, None], self.mask_ratio",
        "noise[:, :1], self.mask_ratio",
        "of 72 tokens visible",
    ),
    (
        "06_videomae_v1",
        "06.decoder_input",
        "torch.cat((known, asked), dim=1)",
        "torch.cat((asked, known), dim=1)",
        "the mask tokens come first",
    ),
    (
        "06_videomae_v1",
        "06.VideoMAE",
        "x[:, -mask.queries.shape[1] :]",
        "x[:, : mask.queries.shape[1]]",
        "read from the first tokens",
    ),
    (
        "07_fine_tuning",
        "07.Classifier",
        "self.head(self.fc_norm(x.mean(dim=1)))",
        "self.head(self.fc_norm(x).mean(dim=1))",
        "fc_norm is applied to each token",
    ),
    (
        "07_fine_tuning",
        "07.mean_over_views",
        "shares[videos == v].mean(dim=0)",
        "logits[videos == v].mean(dim=0).softmax(0)",
        "the softmax is applied to the averaged logits",
    ),
    (
        "08_videomae_v2",
        "08.running_cell",
        "-(start + 1 + step)",
        "-(start + step)",
        "the cell is one step behind",
    ),
    (
        "08_videomae_v2",
        "08.DualMasked",
        "mask.visible.shape[1] + mask.targets",
        "mask.targets",
        "picked from the start of the sequence",
    ),
    ("09_scale", "09.train_step", "part) / parts", "part)", "too large by a factor of `parts`"),
    ("09_scale", "09.attention", " / q.shape[-1] ** 0.5", "", "are not scaled"),
)


pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("VMAE_BROWSER"), reason="`make test-browser` runs the tests in a browser"
    ),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on the path; the system's package manager has one"
    ),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab and one browser for all tests."""
    with served(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def in_theme(notebook: Notebook, name: str) -> None:
    """A screenshot of what is in view, in both themes."""
    for theme in ("Light", "Dark"):
        notebook.theme(theme)
        notebook.page.screenshot(path=SHOTS / f"{name}-{theme.lower()}.png")


def picture(cell: Any) -> str | None:
    """The first picture that a cell shows."""
    image = cell.locator("img").first
    image.wait_for()
    return image.get_attribute("src")


@pytest.fixture
def progress_kept() -> Iterator[None]:
    """Exercises that are solved here are not noted as the learner's."""
    before = PROGRESS.read_bytes() if PROGRESS.exists() else None
    yield
    PROGRESS.unlink(missing_ok=True)
    if before is not None:
        PROGRESS.write_bytes(before)


@pytest.mark.parametrize("name", NAMES)
def test_a_learner_runs_all_cells_and_sees_no_error(lab: Lab, name: str):
    notebook = lab.open(name)
    notebook.run_all()
    code = [cell for cell in notebook.cells() if cell["cell_type"] == "code" and cell["source"]]
    assert all(cell["execution_count"] for cell in code)
    assert notebook.errors() == []
    notebook.close()


@pytest.mark.parametrize("name", EXPLORERS)
def test_sliders_move_the_picture_by_keyboard(lab: Lab, name: str):
    notebook = lab.open(name)
    cell = notebook.run_to(notebook.index("viz.explorer("))
    before = picture(cell)
    cell.locator("[role=slider]").first.focus()
    notebook.page.keyboard.press("ArrowRight")
    for _ in range(60):  # a new picture takes the old one's place
        if picture(cell) != before:
            break
        notebook.page.wait_for_timeout(250)
    assert picture(cell) != before
    in_theme(notebook, f"{name}-explorer")
    notebook.close()


@pytest.mark.usefixtures("progress_kept")
@pytest.mark.parametrize(("name", "exercise", "right", "wrong", "said"), TRIED)
def test_an_exercise_is_solved_wrongly_and_then_rightly(
    lab: Lab, name: str, exercise: str, right: str, wrong: str, said: str
):
    notebook = lab.open(name)
    checked = '{0} = check("{1}", {0})'.format(exercise.split(".")[1], exercise)
    place = notebook.index(checked)
    solved = load_notebook_node(str(ROOT / "solutions" / f"{name}.ipynb"))
    source = next(c.source for c in solved.cells if checked in c.source)
    assert source.count(right) == 1
    cell = notebook.run_to(place)
    assert "not attempted yet" in notebook.text(place)
    notebook.write(place, source.replace(right, wrong))
    notebook.run(place)
    printed = " ".join(notebook.text(place).split())
    assert "not right yet" in printed and said in printed
    assert picture(cell), "the learner's own result is drawn"
    in_theme(notebook, exercise)
    notebook.write(place, source)
    notebook.run(place)
    assert f"✓ {exercise}: passed" in notebook.text(place)
    notebook.close()


def test_a_clip_plays(lab: Lab):
    notebook = lab.open("10_full_run")
    cell = notebook.run_to(notebook.index("viz.player("))
    video = cell.locator("video").first.element_handle()
    notebook.page.wait_for_function("video => video.currentTime > 0.3", arg=video)
    in_theme(notebook, "10-player")
    notebook.close()
