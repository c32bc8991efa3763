"""Trackers: a run's log goes to TensorBoard, Weights & Biases or trackio, and stays one curve."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from small_runs import StopAt, curve, pretraining, run

from vmae.base_config import ConfigError
from vmae.cli.main import main
from vmae.data import DataConfig
from vmae.train import PretrainConfig, Recipe, monitoring


@pytest.fixture
def config(motion_mini, tmp_path_factory) -> PretrainConfig:
    stores = tmp_path_factory.mktemp("stores")
    return pretraining(DataConfig(path=str(motion_mini), cache_dir=str(stores), num_workers=1))


class Account:
    """What a service keeps: the rows of each run by its id; of a step that it has, the first row."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[int, dict]] = {}
        self.settings: list[dict] = []
        self.open = 0


@pytest.fixture
def service(monkeypatch) -> Account:
    """Accelerate's Weights & Biases tracker, replaced by one that keeps everything in this process."""
    account = Account()

    class Stub(GeneralTracker):
        name, requires_logging_directory = "wandb", False

        def __init__(self, project, **options):
            super().__init__()
            assert project == "vmae"
            assert options["resume"] == "allow"
            assert Path(options["dir"]).is_dir()
            self.rows = account.runs.setdefault(options["id"], {})

        tracker = property(lambda self: self.rows)

        def start(self):
            account.open += 1

        def store_init_configuration(self, values):
            account.settings.append(values)

        def log(self, values, step=None, **_):
            self.rows.setdefault(step, values)

        def finish(self):
            account.open -= 1

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Stub)
    available = [*tracking.get_available_trackers(), LoggerType.WANDB]
    monkeypatch.setattr(monitoring, "get_available_trackers", lambda: available)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: available)
    return account


def test_every_record_is_logged_with_the_settings(config, tmp_path, service):
    config = config.replace(log_with="wandb")
    done = run(config, tmp_path / "run")
    ((name, rows),) = service.runs.items()
    assert name.startswith("run-")
    assert {step: row["loss"] for step, row in rows.items()} == dict(enumerate(curve(done), 1))
    assert {"lr", "clips_per_second", "seconds", "memory_gb", "skipped"} < rows[1].keys()
    assert "mfu" not in rows[1]  # it was not measured
    assert service.settings == [config.to_dict()]
    assert service.open == 0


def test_a_resumed_run_continues_its_curve(config, tmp_path, service):
    config = config.replace(log_with="wandb")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", StopAt(5))
    assert service.open == 0
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000005")  # so that step 5 comes twice
    done = run(config, tmp_path / "run", resume=True)
    (rows,) = service.runs.values()
    assert {step: row["loss"] for step, row in rows.items()} == dict(enumerate(curve(done), 1))


def test_another_run_is_another_curve_also_in_a_folder_of_the_same_name(config, tmp_path, service):
    config = config.replace(log_with="wandb")
    for place in ("a", "b"):
        run(config, tmp_path / place / "run")
    assert len(service.runs) == 2


def test_a_tracker_may_be_added_when_a_run_is_resumed(config, tmp_path, service):
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", StopAt(5))
    run(config.replace(log_with="wandb"), tmp_path / "run", resume=True)
    (rows,) = service.runs.values()
    assert max(rows) == 6


def test_tensorboard_keeps_one_curve(config, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = config.replace(log_with="tensorboard")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", StopAt(5))
    done = run(config, tmp_path / "run", resume=True)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    seen = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in seen] == pytest.approx(curve(done))
    assert all(path.is_file() for path in (tmp_path / "run/tensorboard").iterdir())  # one curve


# ---- wrong input ----------------------------------------------------------------------------------


def test_a_tracker_that_is_not_installed_is_an_error_that_names_the_extra(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(monitoring, "get_available_trackers", list)
    for name in ("tensorboard", "wandb", "trackio"):
        with pytest.raises(ConfigError, match=rf'"{name}", but .*pip install "vmae\[{name}\]"'):
            run(config.replace(log_with=name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_tracker_has_an_extra_and_no_other_can_be_chosen():
    import tomllib

    from vmae import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"tensorboard", "wandb", "trackio"} <= set(project["optional-dependencies"])
    with pytest.raises(ConfigError, match="must be one of None, 'tensorboard', 'wandb', 'trackio'"):
        PretrainConfig(log_with="wandb.ai")


def test_a_run_without_a_folder_has_no_tracker(config, service):
    with pytest.raises(ConfigError, match='"wandb", but the run has no folder: pass one, or set'):
        run(config.replace(log_with="wandb"))


def test_a_tracker_that_does_not_start_says_why(config, tmp_path, service, monkeypatch):
    def offline(*_):
        raise LookupError("no api key")

    monkeypatch.setattr(tracking.LOGGER_TYPE_TO_CLASS["wandb"], "start", offline)
    with pytest.raises(ConfigError, match="wandb did not start .no api key.: .* log_with to null"):
        run(config.replace(log_with="wandb"), tmp_path / "run")
    assert service.open == 0


def test_the_command_line_chooses_a_tracker_and_old_files_keep_theirs(
    config, tmp_path, service, capsys
):
    file = tmp_path / "config.yaml"
    config.to_yaml(file)
    command = ["pretrain", str(file), "--out", str(tmp_path / "run"), "--set"]
    assert main([*command, "log_with=wand"]) == 1
    assert "log_with is 'wand'; it must be one of None, 'tensorboard'" in capsys.readouterr().err
    assert main([*command, "log_with=wandb"]) == 0
    assert len(service.runs) == 1
    values = config.to_dict()
    del values["log_with"]
    for before, now in ((True, "tensorboard"), (False, None)):
        file.write_text(yaml.safe_dump(values | {"tensorboard": before}))
        assert Recipe.load(str(file)).pretrain.log_with == now
