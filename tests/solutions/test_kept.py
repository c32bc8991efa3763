"""What every rewrite of the lessons must keep, with a named test for each item.

The tests look for what a lesson measures and asserts, not for its wording, so that rewritten prose,
new names and a different order do not break them. Some items are covered by tests in other files;
`KEPT` names all of them. If a better measurement replaces one of these, change its test in the same
commit and say why.
"""

from __future__ import annotations

import ast
import re

import pytest
from executed import (
    ROOT,
    Cell,
    Row,
    asserted,
    cells,
    in_one_row,
    measured,
    numbers,
    with_helpers,
)

from vmae.config import MaskConfig
from vmae.grid import TokenGrid
from vmae.masking import make_mask

KEPT = {
    "copying baseline": ["test_copying_explains_most_under_frame_masks_and_nothing_under_tubes"],
    "redundancy": ["test_video_is_more_redundant_in_time_than_in_space"],
    "who sees whom": ["test_who_sees_whom_is_measured_by_gradients"],
    "key bias": ["test_a_key_bias_changes_nothing"],
    "a loss of 1.0": ["test_a_loss_of_one_means_that_nothing_was_learned"],
    "mosaic warning": ["test_a_model_that_learned_nothing_still_shows_a_mosaic"],
    "order invariance": ["test_the_order_of_tokens_changes_no_reconstruction"],
    "token counts": ["test_token_counts_are_reconciled", "test_counts_and_invariants"],
    "ledgers": ["test_a_ledger_maps_papers_to_values"],
    "asserted parity": [
        "test_what_the_learner_writes_is_compared_with_the_package",
        "test_mae_equals_hugging_face",
        "test_pretraining_equals_hugging_face",
        "test_classifier_equals_hugging_face",
    ],
    "sampling timelines": ["test_sampling_rules_are_drawn_on_a_timeline"],
    "checks draw, then name the mistake": [
        "test_a_check_draws_before_it_judges",
        "test_the_learners_result_is_drawn_first_even_if_wrong",
        "test_each_mistake_gets_its_own_message",
    ],
    "checks never block": [
        "test_a_check_never_blocks",
        "test_wrong_answers_are_named_and_replaced",
        "test_the_learners_notebook_runs_to_its_end_unsolved",
    ],
    "offline execution": ["test_a_lesson_runs_offline", "test_no_lesson_imports_a_network_client"],
    "number-by-number flows": ["test_flows_are_asserted_number_by_number"],
    "published against misconceptions": [
        "test_paper_and_misconception_run_side_by_side",
        "test_misconceptions_are_listed_beside_what_is_published",
    ],
    "failure gallery": ["test_a_low_loss_can_hide_a_bug"],
    "controls": [
        "test_controls_show_that_the_label_is_in_the_motion",
        "test_a_single_frame_does_not_tell_the_class",
        "test_opposite_classes_are_the_same_frames_in_reverse",
    ],
    "weight traps": ["test_three_weight_traps_are_sprung"],
    "sync-free static-shape masks": [
        "test_masks_are_drawn_without_looking_at_their_values",
        "test_the_whole_step_compiles_without_a_break_and_agrees",
    ],
    "two-process equality": [
        "test_two_processes_report_the_losses_of_one",
        "test_two_processes_give_the_losses_of_one_and_each_resumes_from_the_other",
    ],
}


def test_each_kept_item_has_its_tests():
    defined = {
        node.name
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    lost = {item: sorted(set(tests) - defined) for item, tests in KEPT.items()}
    assert not {item: tests for item, tests in lost.items() if tests}, (
        "lost; if renamed, rename it in KEPT too"
    )


# ---- lessons 01 to 05 --------------------------------------------------------------------------------


def test_copying_explains_most_under_frame_masks_and_nothing_under_tubes():
    """Relative to predicting the mean visible token: frames < random < 1, and 1 under full tubes."""
    masks = r"^(whole )?frames?\b", r"\brandom\b", r"^(?!.*\d).*\btubes?\b"
    columns = [zip(*(r.numbers for r in rows), strict=False) for _, rows in measured("05", *masks)]
    explained = any(f < r < 0.98 < t < 1.02 for table in columns for f, r, t in table)
    assert explained, "no table has the error of copying under frame, random and tube masks"


def test_video_is_more_redundant_in_time_than_in_space():
    film = "film|video"
    rows = [r for cell in cells("05") for r in cell.rows if r.under(film) and r.under("noise")]
    assert rows, "the film is no longer compared with noise by distance in frames"
    near, far = rows[0], rows[-1]
    assert near.under("noise") == pytest.approx([0, 2], abs=0.1), "correlation, error of a copy"
    assert near.under(film) == pytest.approx([0, 1], abs=0.1), "error of a copy, correlation"
    assert far.under(film)[0] > 0.3, "far apart, a copy is no longer good"
    steps = r"\btime\b", r"left|right|row|horizontal", r"above|below|column|vertical"
    errors = [[row.numbers[-1] for row in rows] for _, rows in measured("05", *steps)]
    nearest = any(time < min(across, down) for time, across, down in errors)
    assert nearest, "copying from the step before is no longer compared with copying from beside"


def test_who_sees_whom_is_measured_by_gradients():
    gradient = re.compile(r"autograd\.grad\(|\.grad\b|jacobian|jacrev|vjp")
    pairs: dict[str, list[tuple[float, ...]]] = {r"^ViT\b": [], r"\bMAE\b": [], "decoder": []}
    for name, found in pairs.items():  # the last two numbers of a row: pairs, of all pairs
        for cell in cells("01", "02"):
            if cell.asserts and gradient.search(with_helpers(cell, "01", "02")):
                rows = [row for row in cell.rows if re.search(name, row.name, re.I)]
                found += [row.numbers[-2:] for row in rows if len(row.numbers) > 1]
    vit, mae, decoder = pairs.values()
    assert any(seen == all_pairs for seen, all_pairs in vit), "ViT: every token"
    assert any(0 < seen < all_pairs / 2 for seen, all_pairs in mae), "MAE: the visible tokens only"
    assert any(2 * seen == n + n**0.5 for seen, n in decoder), "a causal decoder: a triangle"


def test_a_key_bias_changes_nothing():
    def changes(row: Row) -> bool:
        return row.numbers[-1] > 1e-3 if row.numbers else "true" in row.name.lower()

    tried = measured("01 02", r"\bkeys?\b", r"\bquer(y|ies)\b")
    proved = any("bias" in cell.code and changes(q) and not changes(k) for cell, (k, q) in tried)
    assert proved, "no cell changes the bias of the keys and then that of the queries"


def test_a_loss_of_one_means_that_nothing_was_learned():
    """The trivial prediction costs 1 on any picture's normalised pixels; on raw ones it varies."""

    def shown(cell: Cell) -> bool:
        pairs = [sorted(row.numbers) for row in cell.rows if len(row.numbers) == 2]
        raw = [low for low, high in pairs if 0.99 <= high <= 1]
        return len(raw) >= 3 and max(raw) - min(raw) > 0.2 and "learn" in cell.prose

    assert any(shown(cell) for cell in cells("02")), "no cell measures it on three pictures"


def test_a_model_that_learned_nothing_still_shows_a_mosaic():
    mosaic = re.compile(r"mosaic|mean (brightness|colour)|mean of (each|the|its) patch", re.I)
    shown = [alt for cell in cells("02") for alt in cell.figures if mosaic.search(alt)]
    assert any("model" not in alt for alt in shown), "the mosaic, made without a model"
    assert any("model" in alt for alt in shown), "and beside what a model reconstructs"
    nothing = re.compile(r"nothing|no model|without a model|untrained|random weights", re.I)
    lines = [line for cell in cells("02") for line in cell.prose.splitlines()]
    warned = any(mosaic.search(line) and nothing.search(line) for line in lines)
    assert warned, "the prose no longer warns about it"


def test_the_order_of_tokens_changes_no_reconstruction():
    """The lesson restores the order before the decoder, the package does not: 147 patches agree."""
    order = re.compile(r"\border\b|shuffl|permut", re.I)
    found = [cell for cell in cells("02") if cell.asserts and order.search(cell.prose)]
    compared = any({147, 768} <= set(numbers(cell.printed)) for cell in found)
    assert compared, "no cell compares the two orders and prints the shape that agrees"


COUNTS = {
    "MAE's rounding and VideoMAE's": ("02", 3136, 313, 314),
    "MAE": ("02", 49, 147),
    "16 frames cut one by one": ("04", 16, 3136, 768),
    "16 frames in tubelets": ("04", 16, 1568, 1536),
    "32 frames in tubelets": ("04", 32, 3136, 1536),
    "random masking": ("05", 314, 2822),
    "three roundings": ("06", 3136, 313, 314, 320),
    "V1": ("10", 1568, 160, 1408),
    "V2": ("10", 1568, 160, 784, 704),
    "V2, misconception": ("10", 3136, 157, 2979, 2822),
}


@pytest.mark.parametrize("name", COUNTS)
def test_token_counts_are_reconciled(name: str):
    lesson, *counts = COUNTS[name]
    assert in_one_row(lesson, *counts), f"lesson {lesson} no longer shows {counts} side by side"


def test_sampling_rules_are_drawn_on_a_timeline():
    def drawn(*words: str) -> bool:
        alts = [alt for cell in cells("04") for alt in cell.figures]
        return any(all(re.search(word, alt, re.I) for word in words) for alt in alts)

    assert drawn(r"\btime", r"dense|stride", r"TSN|segment"), (
        "the sampling rules, one below the other"
    )
    assert drawn(r"\btime", r"\b(clips|views)\b", r"overlap|cover|evenly"), "the clips of a test"
    gaps = [row.numbers[:4] for cell in cells("04") for row in cell.rows]
    assert (4, 4, 4, 5) in gaps, "the published gaps of fine-tuning"


# ---- lessons 06 to 10 --------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [16, 32])
def test_flows_are_asserted_number_by_number(frames: int):
    """A clip goes through V1 in lesson 06, through V2 and its common misconception in lesson 08."""
    tokens, visible, targets = {16: (1568, 160, 1408), 32: (3136, 314, 2822)}[frames]
    for count, width in ((tokens, 1536), (visible, 768), (tokens, 384), (targets, 1536)):
        assert in_one_row("06", count, width), f"lesson 06 no longer follows {count} tokens"
    assert {tokens, visible, targets} <= asserted("06")
    decoder, predicted, dual = {
        16: (944, 704, {160, 784, 704}),
        32: (1888, 1408, {157, 2979, 2822}),
    }[frames]
    assert in_one_row("08", decoder, 384) and in_one_row("08", predicted, 1536)
    assert dual <= asserted("08")


def test_paper_and_misconception_run_side_by_side():
    assert in_one_row("06", 314, 160) and in_one_row("06", 2822, 1408), "V1: visible, targets"
    assert in_one_row("08", 157, 320) and in_one_row("08", 2822, 1408), "V2: visible, targets"
    assert in_one_row("08", 3136, 1888), "V2: what the decoder reads"


def test_a_low_loss_can_hide_a_bug():
    """Six runs with a bug beside the correct one; the last column is the correct loss of each."""

    def hides(right: Row, bugs: list[Row]) -> bool:
        bad = [bug for bug in bugs if bug.numbers[-1] > 5 * right.numbers[-1]]
        return (
            len(bugs) >= 6 and len(bad) >= 4 and any(b.numbers[1] <= right.numbers[1] for b in bad)
        )

    gallery = measured("06", r"^(right|correct|no bug|without a bug)")
    shown = [hides(right, [r for r in cell.rows if r != right]) for cell, (right,) in gallery]
    assert any(shown), "no table has bugs whose own loss is as low as that of the correct run"


def test_controls_show_that_the_label_is_in_the_motion():
    control, opposite = "single|one frame|shuffl", "opposite|revers"
    for cell, (guessing, single, _) in measured("10", "guessing", "single|one frame", "shuffl"):
        accuracy, chance = single.numbers[0], guessing.numbers[0]
        rows = [row for row in cell.rows if re.search(opposite, row.name)]
        controls = [row.numbers[-1] for row in rows if re.search(control, row.name)]
        video = [row.numbers[-1] for row in rows if not re.search(control, row.name)]
        assert abs(accuracy - chance) < 3, "a single frame stays at chance"
        assert len(controls) >= 2 and controls == pytest.approx([50] * len(controls), abs=5)
        assert video and min(video) > 90, "the video itself tells a direction from its opposite"
        return
    pytest.fail("lesson 10 no longer tests on single and shuffled frames")


def test_three_weight_traps_are_sprung():
    heads = measured("07", "heads", "differ")
    assert any(row.numbers[-1] > 0.1 for _, (_, row) in heads), (
        "another number of heads gives other logits"
    )
    caught = [cell for cell in cells("07") if re.search(r"\bexcept\b|\bwarnings\b", cell.code)]
    first = re.compile(r"(first|class|corner) token|token 0")
    assert any("fc_norm" in c.printed and first.search(c.printed) for c in caught), "no class token"
    lost = {"dropped head.weight", "norm of the tokens: Identity()"}
    assert any(all(name in c.printed for name in lost) for c in caught), "what a file lacks"


MASKS = {
    "MAE": ("random", 0.9),
    "V1": ("tube", 0.9),
    "short tubes": ("tube", 0.9, 4),
    "frame": ("frame", 0.875),
    "V2": ("tube", 0.9, None, "running-cell", 0.5),
    "V2, misconception": ("random", 0.9, None, "drop-visible", 0.5),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_drawn_without_looking_at_their_values(name: str):
    """On the meta device there are no values: a host sync or a value-dependent shape raises."""
    grid, config = TokenGrid((16, 224, 224), (2, 16, 16)), MaskConfig(*MASKS[name])
    drawn, real = make_mask(config, grid, 4, None, "meta"), make_mask(config, grid, 4)
    for part in ("visible", "queries", "targets"):
        assert getattr(drawn, part).shape == getattr(real, part).shape


def test_two_processes_report_the_losses_of_one():
    gaps = [
        row.numbers[-1]
        for cell, (row,) in measured("09", "differ")
        if "process" in cell.code and cell.asserts and row.numbers
    ]
    assert any(gap < 1e-5 for gap in gaps), f"the losses of one and two processes differ by {gaps}"
    assert any(2 in row.numbers for _, (row,) in measured("09", r"\bprocesses\b")), (
        "no row says that two processes ran"
    )
