"""The report of a classifier: intervals, counts, mistakes, caveats, and the curve of a resumed run."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import DataConfig, Sampling, Video, write_video
from vmae.figures import results
from vmae.figures.figure import page, show, style
from vmae.figures.report_page import _advice, _missing_letters, training_curve
from vmae.support.progress import Record
from vmae.train import Evaluation, FinetuneConfig, OptimConfig, Silent, finetune, open_sources
from vmae.train.classifier import load_test
from vmae.train.evaluate import interval
from vmae.train.run_folder import claim_start, start_kind
from vmae.vit import VisionTransformer


def told(test: Evaluation, videos, classes, sampling=None) -> str:
    """What the report says of a test."""
    return text_of(lambda: results(test, videos, classes, sampling or Sampling(8, short="repeat")))


def text_of(show) -> str:
    """What `show` displays, as text without tags and pictures; alt texts count."""
    with page() as parts:
        show()
    html = re.sub(r'<img [^>]*alt="([^"]*)"[^>]*>', r" [\1] ", " ".join(parts))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("&#x27;", "'")


def evaluation(pairs: list[tuple[int, int]], classes: int, sure: float = 2.0) -> Evaluation:
    """One of these (label, prediction) pairs."""
    labels, predicted = (torch.tensor(column) for column in zip(*pairs, strict=True))
    logits = sure * torch.nn.functional.one_hot(predicted, classes).float()
    return Evaluation(logits, labels, range(len(labels)))


@pytest.mark.parametrize(
    "right,total,low,high", [(8, 10, 49.0, 94.3), (10, 10, 72.2, 100), (0, 3, 0, 56.2)]
)
def test_intervals_are_wilsons(right, total, low, high):
    """Against the formula of Wilson (1927); a normal interval of 10 of 10 would have no width."""
    z, p = 1.959964, right / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    found = interval(right, total)
    assert found == pytest.approx((100 * (middle - half), 100 * (middle + half)), abs=1e-3)
    assert found == pytest.approx((low, high), abs=0.06)


@pytest.fixture
def videos(tmp_path) -> list[Video]:
    made = []
    for number in range(6):
        path = tmp_path / f"{number} <odd> & name.mp4"
        write_video(path, np.full((4, 32, 64, 3), 40 * number, np.uint8))
        made.append(Video(path, number % 2))
    return made


def test_small_tests_have_their_caveats(videos):
    text = told(evaluation([(0, 0), (1, 1), (0, 1), (1, 1), (0, 1), (1, 1)], 2), videos, "ab")
    assert (
        "4 of 6 test videos are classified correctly: 66.7 % (95 % interval 30.0 to 90.3 %)" in text
    )
    assert "The mean over the classes is 66.7 %" in text
    assert "the accuracy on all videos of this kind may well be anything from 30 to 90 %" in text
    assert "another 6 videos" not in text, "those vary more than the interval says"
    assert "does not show that the classifier is better than always giving the same answer" in text
    assert "2 of 2 classes have fewer than 10 test videos" in text
    assert "a 3 1 33 6 to 79 b (2)" in text, "a row of the table by class"
    assert "Confusion matrix of 2 classes in numbers of videos: 4 of 6" in text
    assert "2 <odd> & name.mp4 a, but b, 88 %" in text.replace("&lt;", "<").replace(
        "&gt;", ">"
    ).replace("&amp;", "&")
    assert "Look at the labels first" in text


def test_ten_test_videos_of_a_class_are_enough_for_it():
    pairs = [(label, label) for label, count in enumerate((9, 10)) for _ in range(count)]
    assert "1 of 2 classes have fewer than 10 test videos" in told(evaluation(pairs, 2), [], "ab")


def test_large_tests_and_perfect_ones_have_none():
    pairs = [(label, label) for label in range(2) for _ in range(500)]
    text = told(evaluation(pairs, 2), [], ("run", "jump"))
    for words in ("is small", "anecdotes", "does not show", "Look at the labels"):
        assert words not in text
    assert "Confusions None." in text and "Most confident mistakes None." in text


def test_of_many_classes_the_commonest_confusions_are_listed(videos):
    classes = [f"class {number}" for number in range(50)]
    pairs = [(number, number) for number in range(49)] + [(3, 7)] * 5 + [(4, 8)]
    text = told(evaluation(pairs, 50), [*videos[:1]] * 55, classes)
    assert "class 3 class 7 5 class 4 class 8 1" in text
    assert "class 49 0 0 no test videos" in text
    assert "among its five best" in text


def test_mistakes_come_in_order_and_an_unreadable_file_is_named(videos):
    test = evaluation([(0, 1)] * 6, 2)
    test.logits *= torch.arange(1, 7)[:, None]
    videos[5].path.write_bytes(b"damaged")
    text = told(test, videos, "ab")
    assert text.index("5 &lt;odd") < text.index("4 &lt;odd") < text.index("3 &lt;odd")
    assert "could not be opened as a video" in text


# ---- of a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes,losses,learned", [
    (3, [1.10, 1.07], False), (3, [1.10, 0.95], True), (400, [6.0, 5.5], False),
    (400, [5.99, 3.1], True), (3, [9.0, 1.2], False),
])  # fmt: skip
def test_a_model_that_has_learned_next_to_nothing_is_not_a_success(classes, losses, learned):
    """Whatever its luck in the test: the loss stays near ln(classes), that of guessing."""
    records = [Record(5 * i, loss, 1e-4, 1.0, 1.0) for i, loss in enumerate(losses, 1)]
    text = text_of(lambda: training_curve(records, classes))
    guess = f"{np.log(classes):.2f}"
    assert f"guessing would give ln({classes}) = {guess}" in text, "in the picture's alt text"
    warning = f"hardly fallen below that of guessing ({losses[-1]:.2f} of {guess})"
    assert (warning in text) != learned
    assert ("raise optim.lr by a factor of 3" in text) != learned


def test_the_advice_fits_the_run(tmp_path):
    """A run that began with a classifier is not told to do so; frozen layers are one thing to change."""
    model = ModelConfig.videomae("tiny", depth=12, embed_dim=32)
    scratch, frozen = FinetuneConfig(model=model), FinetuneConfig(model=model, frozen_layers=8)
    general = ["raise optim.lr by a factor of 3", "train for more epochs"]
    classifier = "start from the weights of a classifier"
    assert _advice(tmp_path, scratch) == [*general, classifier], (
        "a run that has not noted its start"
    )
    fewer = "freeze fewer than 8 of the 12 layers"
    encoder = VisionTransformer(frozen.model)
    for start, said in (
        (None, [*general, fewer, classifier]),
        (encoder, [*general, fewer, classifier]),
        (VisionTransformer(frozen.model, 400), [*general, fewer]),
    ):
        (tmp_path / "start.txt").unlink(missing_ok=True)
        claim_start(tmp_path, start)
        assert _advice(tmp_path, frozen) == said
    records = [Record(step, 1.09, 1e-4, 1.0, 1.0) for step in (5, 10)]
    text = text_of(lambda: training_curve(records, 3, [*general, fewer]))
    assert f"may be luck. What may help: {', '.join(general)}, or {fewer}." in text
    assert start_kind(tmp_path) == "a classifier of 400 classes"


def test_the_curve_has_the_level_of_guessing_and_begins_at_0(monkeypatch):
    drawn = []
    monkeypatch.setattr("vmae.figures.charts.show", lambda figure, alt: drawn.append(figure))
    training_curve([Record(step, 1.09, 1e-4, 1.0, 1.0) for step in (5, 10)], 3)
    (axis,) = drawn[0].axes
    dashed = next(line for line in axis.lines if line.get_linestyle() == "--")
    assert list(dashed.get_ydata()) == pytest.approx([np.log(3)] * 2)
    assert [text.get_text() for text in axis.texts] == ["guessing: ln(3) = 1.10"]
    assert axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > np.log(3)


def test_letters_of_no_installed_font_are_named_once(tmp_path):
    def drawn(name: str) -> None:
        with style():
            figure, axes = plt.subplots()
            axes.set_title(name)
            show(figure, name)

    with page(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _missing_letters():
            drawn("jump \U00013000\U00013001")
            drawn("\U00013000")
            warnings.warn("another matter", stacklevel=1)
    first, second = (str(one.message) for one in caught)
    assert first == "another matter"
    assert "show boxes for 2 letters that no installed font has: \U00013000 \U00013001." in second
    assert "Install a font" in second and "fontlist-*.json" in second
    with page(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with _missing_letters():
            drawn("jump é")


class Dies(Silent):
    def update(self, step, record):
        if step == 9:
            raise RuntimeError("killed")


def test_a_resumed_run_has_the_report_of_an_uninterrupted_one(motion_mini, tmp_path, capsys):
    config = FinetuneConfig(
        model=ModelConfig.videomae("tiny", depth=1, embed_dim=32),
        data=DataConfig(path=str(motion_mini), cache_dir=str(tmp_path / "stores"), num_workers=1),
        optim=OptimConfig(steps=12, batch_size=8, lr=1e-3),
        log_every=2,
        save_every=4,
        val_share=0.2,
    )
    sources = open_sources(config)
    pages = []
    for name in ("whole", "cut"):
        folder = tmp_path / name / "my run"
        if name == "cut":
            with pytest.raises(RuntimeError, match="killed"):
                finetune(config, sources, folder=folder, progress=Dies())
            assert main(["report", str(folder)]) == 1
            assert (
                "has no test results: give the command of this run again" in capsys.readouterr().err
            )
        result = finetune(config, sources, folder=folder, resume=name == "cut")
        assert main(["report", str(folder)]) == 0
        assert capsys.readouterr().out.strip() == str(folder / "report.html")
        html = (folder / "report.html").read_text(encoding="utf-8")
        assert "http" not in html, "it needs nothing else"
        pages.append(
            re.sub(r"<td[^>]*>(minutes|made with|device)</td><td[^>]*>[^<]*</td>", "", html)
        )
    assert pages[0] == pages[1], "the curve is drawn from the first step on"
    test, videos = load_test(folder)
    assert torch.equal(test.logits, result.test.logits)
    assert videos == [sources.test.videos[index] for index in result.test.videos]
    best = max(row["accuracy"] for row in result.validation)
    assert f"validation videos ({best:.1f} %)" in html
    assert "12 steps of 8 videos: 2.4 epochs; learning rate up to 0.001" in html, "of 40 videos"
    assert Path(tmp_path / "whole" / "my run" / "report.html").stat().st_size < 1_000_000
