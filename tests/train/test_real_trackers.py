"""Weights & Biases, offline, and trackio themselves: an interrupted run stays one curve.

The course does not install them, so these tests are skipped unless someone has: `pip install -e
".[wandb,trackio]"`. TensorBoard and everything that needs no service is in test_trackers.py.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import StopAt, curve, pretraining, run

from vmae.data import DataConfig
from vmae.train import PretrainConfig


@pytest.fixture
def config(motion_mini, tmp_path) -> PretrainConfig:
    return pretraining(DataConfig(path=str(motion_mini), cache_dir=str(tmp_path), num_workers=0))


def interrupted_and_resumed(config: PretrainConfig, folder: Path) -> dict[int, float]:
    """The loss by step of a run that was stopped at step 5 and has lost its last checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, StopAt(5))
    shutil.rmtree(folder / "checkpoints/step-00000005")  # so that step 5 is trained twice
    return dict(enumerate(curve(run(config, folder, resume=True)), 1))


def wandb_records(path: Path) -> Iterator:
    """The records of a .wandb file: a LevelDB log, in blocks of 32 kB, after 7 bytes of its own."""
    from wandb.proto import wandb_internal_pb2

    data, place, body = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := -place % 32768) and left < 7:  # too little for a header
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        body += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(body)
            body = b""


def test_offline_weights_and_biases_keeps_one_curve(config, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_PROJECT", "course")
    pytest.importorskip("wandb")
    config = config.replace(log_with="wandb")
    losses = interrupted_and_resumed(config, tmp_path / "run")
    # Each attempt has a folder; `wandb sync` joins those of one id, in the order of their starts.
    attempts = sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert len(attempts) == 2
    runs, settings, seen = set(), set(), {}
    for record in (record for path in attempts for record in wandb_records(path)):
        if record.HasField("run"):
            runs.add((record.run.project, record.run.run_id))
        for item in record.config.update:
            settings.add(item.key)
        if record.HasField("history"):
            items = {i.nested_key[0] if i.nested_key else i.key: i for i in record.history.item}
            loss = json.loads(items["loss"].value_json)
            step = json.loads(items["_step"].value_json)
            assert seen.setdefault(step, loss) == loss  # step 5, which comes twice
    assert runs == {("course", (tmp_path / "run/tracker.txt").read_text().strip())}
    assert {"model", "mask", "optim", "data"} <= settings
    assert seen == pytest.approx(losses)


def test_trackio_keeps_one_curve(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    config = config.replace(log_with="trackio")
    losses = interrupted_and_resumed(config, tmp_path / "run")
    (file,) = (tmp_path / "trackio").glob("*.db")
    rows = sqlite3.connect(file).execute("select run_name, run_id, step, metrics from metrics")
    runs, seen = set(), {}
    for name, identity, step, metrics in rows:
        runs.add((name, identity))
        loss = json.loads(metrics)["loss"]
        assert seen.setdefault(step, loss) == loss
    assert [name for name, _ in runs] == [(tmp_path / "run/tracker.txt").read_text().strip()]
    assert seen == pytest.approx(losses)
