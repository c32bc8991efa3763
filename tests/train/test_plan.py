"""`vmae plan`: what it predicts, beside what was measured; what it refuses."""

import json
import math
import re
import statistics
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vmae import ROOT
from vmae.base_config import ConfigError
from vmae.cli.main import main
from vmae.cost.hardware import CARDS, this_cpu
from vmae.data import DataConfig, SetError
from vmae.train import Recipe
from vmae.train.plan import START, Clips, clips_of, hardware, planned, precision_on
from vmae.train.plan_table import plan_table
from vmae.train.schedule import freeze
from vmae.vit import VisionTransformer

sys.path.insert(0, str(ROOT / "tests" / "bench"))
import plan as benchmark

MEASURED = {
    key.removeprefix("plan, "): entry
    for key, entry in json.loads((ROOT / "data" / "bench" / "cpu.json").read_text()).items()
    if key.startswith("plan, ")
}
MANY = Clips(10_000, 10, None, None)


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_time_and_memory_are_as_measured_on_this_cpu(name):
    entry = MEASURED[name]
    assert entry["planned seconds"] == pytest.approx(entry["measured seconds"], rel=0.3)
    assert entry["planned gigabytes"] == pytest.approx(entry["measured gigabytes"], rel=0.15)


def test_four_recipes_were_measured():
    assert sorted(MEASURED) == sorted(benchmark.RUNS)


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_the_planner_still_predicts_what_was_held_against_the_measurement(name):
    """Planned again, from the rates of the machine as they were then: so a changed formula shows."""
    entry, machine = MEASURED[name], MEASURED[name]["machine"]
    cpu = replace(this_cpu(), matmul={"fp32": machine["matmul"]}, bandwidth=machine["bandwidth"])
    config = benchmark.config_of(name)
    assert config.optim.batch_size == entry["batch"]
    plan = planned(config, cpu, Clips(48, 8, None, None))
    assert plan.parts == pytest.approx(entry["parts"], abs=1e-4)
    assert plan.seconds / plan.steps == pytest.approx(entry["planned seconds"], abs=2e-4)
    assert plan.memory / 1e9 == pytest.approx(entry["planned gigabytes"], abs=1e-3)


@pytest.mark.parametrize("rate", ["matmul", "bandwidth"])
def test_the_four_were_planned_for_one_machine(rate):
    rates = [entry["machine"][rate] for entry in MEASURED.values()]
    assert rates == pytest.approx([statistics.median(rates)] * 4, rel=0.15)


def test_steps_and_clips_are_those_of_the_run():
    config = Recipe.load("v1-k400-s").pretrain
    plan = planned(config, CARDS["a100"], MANY)
    assert plan.steps == config.optim.resolved(10_000).steps
    assert plan.clips == plan.steps * config.optim.batch_size * config.repeated_aug
    assert "160 visible" in plan.tokens


def test_twice_the_rates_are_half_the_time_and_a_slow_memory_is_named():
    config, card = Recipe.load("v1-k400-b").pretrain, CARDS["a100"]
    fast = replace(
        card, matmul={k: 2 * v for k, v in card.matmul.items()}, bandwidth=2 * card.bandwidth
    )
    slow, quick = (planned(config, device, MANY) for device in (card, fast))
    assert slow.seconds - START == pytest.approx(2 * (quick.seconds - START))
    starved = planned(config, replace(card, bandwidth=card.bandwidth / 100), MANY)
    assert starved.limit == "memory bandwidth"


@pytest.mark.parametrize("frozen", [0, 4, 8, 12])
def test_nothing_goes_backward_through_frozen_blocks(frozen):
    """Against the multiply-adds that PyTorch counts in a forward and a backward pass."""
    config = Recipe.load("own-cpu").finetune.replace(frozen_layers=frozen)

    def counted(layers: int) -> int:
        with torch.device("meta"):
            model = VisionTransformer(config.model, 3)
            clip = torch.empty(1, 3, *config.model.grid.clip, dtype=torch.uint8)
        model = model.to("meta")
        freeze(model, layers)
        with FlopCounterMode(display=False) as counter:
            model(clip).sum().backward()
        return counter.get_total_flops()

    def parts(layers: int) -> dict[str, float]:
        return planned(config.replace(frozen_layers=layers), CARDS["a100"], MANY).parts

    share = parts(frozen)["matrix products"] / parts(0)["matrix products"]
    assert share == pytest.approx(counted(frozen) / counted(0), abs=0.03)
    if frozen:
        assert parts(frozen)["memory bandwidth"] < parts(0)["memory bandwidth"]
        assert parts(frozen)["launches"] < parts(0)["launches"]


def test_validation_and_the_test_take_their_time_and_processes_share_the_work():
    config = Recipe.load("own").finetune  # 30 epochs, 6 views per video
    alone, tested = (
        planned(config, CARDS["a100"], Clips(800, 2, None, None, *more))
        for more in ((0, 0), (40, 200))
    )
    assert tested.steps == alone.steps == 30 * 100
    step = alone.parts["matrix products"]
    views = 6 * (200 + 30 * 40)
    assert tested.testing == pytest.approx(views / 8 * step / 3)
    assert tested.seconds == pytest.approx(alone.seconds + tested.testing + START)
    # Workers start for training, and for the 400 clips of the test; not for 80 clips of validation.
    assert (alone.starting, tested.starting) == (START, 2 * START)
    validated = planned(config, CARDS["a100"], Clips(800, 2, None, None, 64, 0))
    assert validated.starting == 31 * START, "anew after each of the 30 epochs"
    stored = config.replace(data=config.data.replace(cache=True))
    assert planned(stored, CARDS["a100"], Clips(800, 2, None, None, 64, 200)).starting == 0
    # Four workers decode for the test while the device computes; few clips are read by the process
    # itself, and so is everything without workers.
    assert (config.data.num_workers, config.test_clips) == (4, 2)
    decoded = planned(config, CARDS["a100"], Clips(800, 2, 0.5, None, 0, 200))
    assert decoded.testing == pytest.approx(0.5 * 400 / 4)
    validated = planned(config, CARDS["a100"], Clips(800, 2, 0.5, None, 40, 0))
    assert validated.testing == pytest.approx(30 * (0.5 * 80 + 240 / 8 * step / 3))
    alone = config.replace(data=config.data.replace(num_workers=0))
    waits = planned(alone, CARDS["a100"], Clips(800, 2, 0.5, None, 40, 200))
    assert waits.testing == pytest.approx(tested.testing + 0.5 * views / 3)
    halves = planned(config, CARDS["a100"], Clips(800, 2, None, None, 40, 200), processes=2)
    assert halves.testing == pytest.approx(tested.testing / 2)
    assert halves.parts["matrix products"] == pytest.approx(step / 2)
    assert halves.memory < tested.memory and halves.clips == tested.clips


def test_decoding_limits_a_run_without_a_store_and_the_cores_that_it_needs_are_counted():
    config = Recipe.load("v1-k400-b").pretrain
    config = config.replace(data=config.data.replace(cache=False, num_workers=4))
    clips = Clips(10_000, 10, decoding=1.0, stored=None)
    plan = planned(config, CARDS["h100"], clips)
    assert plan.limit == "decoding"
    assert plan.seconds == pytest.approx(plan.steps * config.optim.batch_size / 4 + START)
    unhindered = planned(config, CARDS["h100"], MANY)
    step = (unhindered.seconds - START) / unhindered.steps
    assert plan.cores == math.ceil(config.optim.batch_size / step)
    assert unhindered.cores is None


def test_precision_is_what_the_run_would_use():
    config = Recipe.load("gpu").pretrain
    assert precision_on(config, CARDS["h100"]) == "bf16"
    assert precision_on(config, CARDS["t4"]) == "fp16"
    with pytest.raises(
        ConfigError, match=r'NVIDIA T4 does not compute in bf16: .* to "fp16", or to'
    ):
        precision_on(config.replace(precision="bf16"), CARDS["t4"])
    cpu = replace(CARDS["t4"], name="a CPU", matmul={"fp32": 1e11, "bf16": 5e10}, overlaps=False)
    assert precision_on(config, cpu) == "fp32"
    with pytest.raises(ConfigError, match=r'a CPU does not compute in fp16: .* to "fp32", or to'):
        precision_on(config.replace(precision="fp16"), cpu)


def test_an_unknown_device_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'rtx': choose from cpu, h200, h100, a100, l4, t4"):
        hardware("rtx")


def test_a_set_that_is_not_here_is_planned_by_its_size_or_by_its_name(tmp_path):
    config = Recipe.load("v1-k400-b").pretrain
    config = config.replace(data=DataConfig(path=str(tmp_path / "none")))
    with pytest.raises(SetError, match="--videos NUMBER"):
        clips_of(config)
    assert clips_of(config, 500).videos == 500
    named = config.replace(data=DataConfig(path=str(tmp_path / "motion-scenes-mini")))
    assert clips_of(named) == Clips(48, 18, None, (48 + 24) * 16 * 3 * 224**2)


def test_a_set_that_is_here_is_measured(motion_mini):
    recipe = Recipe.load("cpu").changed({"data.path": str(motion_mini)})
    found = clips_of(recipe.pretrain)
    assert (found.videos, found.classes) == (48, 8)
    assert found.decoding > 0
    assert found.stored == (48 + 24) * 16 * 3 * 16**2


def test_a_part_of_the_training_videos_is_for_validation(motion_mini, tmp_path):
    recipe = Recipe.load("cpu").changed({"data.path": str(motion_mini)})
    found = clips_of(recipe.finetune.replace(val_share=0.25))
    assert (found.videos + found.val, found.test) == (48, 24) and found.val > 0
    elsewhere = recipe.finetune.replace(val_share=0.25, data=DataConfig(path=str(tmp_path)))
    found = clips_of(elsewhere, 100)
    assert (found.videos, found.val, found.test) == (75, 25, 0)


def test_a_field_of_one_part_can_be_set(capsys):
    command = ["plan", "own-cpu", "--videos", "40", "--device", "a100", "--set"]
    table = {}
    for frozen in ("0", "12"):
        assert main([*command, f"frozen_layers={frozen}"]) in (0, None)
        table[frozen] = capsys.readouterr().out
    assert table["0"] != table["12"]
    assert main([*command, "mask.mask_ratio=0.75"]) in (0, None)
    assert main([*command, "frozen_layer=0"]) == 1
    assert "has no field frozen_layer" in capsys.readouterr().err


def test_only_what_a_recipe_has_settings_for_is_planned(capsys):
    """own-cpu gives its model and data alone for pre-training; --set optim.epochs changes nothing."""
    assert Recipe.load("own-cpu").stages == ("finetune",)
    assert Recipe.load("own").stages == Recipe.load("cpu").stages == ("pretrain", "finetune")
    assert Recipe().stages == ("pretrain", "finetune")
    recipe = ["own-cpu", "--videos", "40", "--device", "a100", "--set", "optim.epochs=1"]
    assert main(["plan", *recipe]) in (0, None)
    out = capsys.readouterr().out
    assert "fine-tuning" in out and "pre-training" not in out
    assert re.search(r"steps +4\n", out), "34 of 40 videos, in batches of 8"


def test_what_does_not_fit_is_said_and_the_command_prints_both_stages(capsys):
    table = {row[""]: row for row in plan_table(Recipe.load("gpu"), CARDS["t4"])}
    assert table["memory"]["pre-training"].endswith("does not fit")
    assert main(["plan", "gpu", "--device", "h100", "--set", "data.num_workers=3"]) in (0, None)
    out = capsys.readouterr().out
    assert "pre-training" in out
    assert "fine-tuning" in out
    assert re.search(r"steps +1,200 +240", out)


def test_recipes_for_small_cards_fit_them():
    """And gpu-small's minutes are those of a sitting."""
    small, ucf101 = Recipe.load("gpu-small"), Recipe.load("ucf101-1gpu")
    rows = {row[""]: row for row in plan_table(small, CARDS["t4"])}
    assert rows["precision"]["pre-training"] == rows["precision"]["fine-tuning"] == "fp16"
    assert float(rows["minutes"]["pre-training"]) < 30
    tables = [plan_table(small, CARDS["t4"]), plan_table(ucf101, CARDS["l4"], videos=9_537)]
    memory = [row for table in tables for row in table if row[""] == "memory"]
    assert not [row for row in memory if "does not fit" in str(row)]


def test_the_memory_that_a_card_took_is_what_a_plan_says():
    """Measured with 13,800 videos of 24 frames of 112 pixels on the card."""
    entry = json.loads((ROOT / "data" / "bench" / "cuda.json").read_text())
    frames = 13_800 * 24 * 3 * 112**2
    plan = planned(Recipe.load("gpu").pretrain, CARDS["h200"], Clips(12_000, 18, None, frames))
    measured = entry["recipe gpu, 60 steps of pre-training"]["peak memory, GB"]
    assert plan.memory / 1e9 == pytest.approx(measured, rel=0.15)
