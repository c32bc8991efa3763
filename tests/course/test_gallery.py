"""The gallery of failures: every patient differs from the right run, and only where its bug says."""

from __future__ import annotations

import pytest
import torch

from vmae.course import gallery
from vmae.mae import pixel_targets
from vmae.masking import make_mask


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 8, 32, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def records(clip) -> dict[str, gallery.Record]:
    cases = {"right": gallery.RIGHT} | gallery.PATIENTS
    return {name: gallery.examine(case, clip.byte(), 3) for name, case in cases.items()}


def test_every_patient_has_a_bug_of_its_own():
    assert len(gallery.BUGS) == len(set(gallery.BUGS)) == len(gallery.PATIENTS)
    assert gallery.RIGHT.bug not in gallery.BUGS
    assert all(patient.line and patient.cure for patient in gallery.PATIENTS.values())


def test_a_record_has_a_loss_per_step_and_a_picture(records):
    for record in records.values():
        assert len(record.losses) == 3 and 0.5 < record.nothing < 1.1
        assert record.picture.shape == (3, 32, 32) and record.picture.min() >= 0


def test_every_bug_changes_the_losses(records):
    right = records["right"].losses
    assert all(records[name].losses != right for name in gallery.PATIENTS)
    same_first = [name for name in gallery.PATIENTS if records[name].losses[0] == right[0]]
    bugs = {gallery.PATIENTS[name].bug for name in same_first}
    assert bugs == {"same masks", "learning rate"}  # these begin as the right run does


def test_the_right_run_has_the_loss_of_the_package(clip, records):
    torch.manual_seed(0)
    model = gallery.RIGHT.model(gallery.MODEL)
    mask = make_mask(gallery.TUBES, gallery.MODEL.grid, 2, torch.Generator().manual_seed(0))
    batch = clip.byte().expand(2, -1, -1, -1, -1)
    assert records["right"].losses[0] == pytest.approx(model.loss(batch, mask).item(), rel=1e-5)


def test_joint_targets_keep_the_colour(clip):
    mask = make_mask(gallery.TUBES, gallery.MODEL.grid, 1)
    joint, right = (
        targets(clip.byte(), mask, gallery.MODEL).unflatten(-1, (-1, 3))
        for targets in (gallery.joint_targets, pixel_targets)
    )
    assert right.mean(-2).abs().max() < 1e-4 < joint.mean(-2).abs().max()
    assert joint.mean((-2, -1)).abs().max() < 1e-4


def test_the_curves_are_drawn_with_their_numbers(records, drawn):
    gallery.curves(records)
    assert len(drawn) == 1 and all(f"{name} from" in drawn[0] for name in records)
