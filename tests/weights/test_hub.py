"""Weights by the id of a model on the Hugging Face hub: from a cache laid by hand, and from a server here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import COMMIT, PRETRAINED, V2, VIDEOMAE, Hub, lay, pretrained, published
from huggingface_hub import constants
from published_layouts import build, official_pretrain, same
from safetensors.torch import load_file

from vmae import ROOT
from vmae.cli.main import main
from vmae.train.config import FinetuneConfig
from vmae.train.starting import load_start
from vmae.weights import CheckpointError, class_names, load, load_encoder, save


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


# ---- offline -------------------------------------------------------------------------------------


def test_from_the_cache(tmp_path, cache, tiny):
    folders = published(tmp_path / "hub", tiny)
    expected = {repo: load(folder).state_dict() for repo, folder in folders.items()}
    for repo, folder in folders.items():
        lay(cache, repo, folder)
    for name in (VIDEOMAE, f"{VIDEOMAE}/", f"{VIDEOMAE}@main", f"{VIDEOMAE}@{COMMIT}/", V2):
        same(load(name).state_dict(), expected[name.split("@")[0].rstrip("/")])
    assert class_names(VIDEOMAE) == ("walk", "run", "jump") == load(VIDEOMAE).class_names
    assert (load(V2).config.num_heads, load(V2).num_classes) == (4, None)
    same(load_encoder(V2).state_dict(), expected[V2])


def test_a_pretrained_model(tmp_path, cache, tiny):
    expected = load(pretrained(tmp_path / "files", tiny))
    lay(cache, PRETRAINED, tmp_path / "files")
    assert expected.config == tiny and load(PRETRAINED).config == tiny
    same(load(PRETRAINED).state_dict(), expected.state_dict())
    encoder = load_encoder(PRETRAINED, keep_head=True)
    assert torch.equal(encoder.norm.weight, expected.encoder.norm.weight)


def test_a_run_starts_from_an_id(tmp_path, cache, tiny):
    lay(cache, VIDEOMAE, published(tmp_path / "hub", tiny)[VIDEOMAE])
    config = FinetuneConfig(model=tiny, start_from=VIDEOMAE)
    pinned, source = load_start(config)
    assert source.class_names == ("walk", "run", "jump")
    assert pinned.start_from == f"{VIDEOMAE}@{COMMIT}"  # for the run's config.yaml
    assert load_start(pinned)[0] == pinned
    for name in ("MCG-NJU/videomae-tniy", "nowhere/mine"):
        with pytest.raises(CheckpointError, match=f"{name}: there is no such file or folder here"):
            load_start(config.replace(start_from=name))


def test_what_is_here_wins(tmp_path, cache, tiny):
    lay(cache, VIDEOMAE, published(tmp_path / "hub", tiny)[VIDEOMAE])
    own = build("encoder", tiny, tiny)
    save(own, tmp_path / VIDEOMAE)
    same(load(VIDEOMAE).state_dict(), own.state_dict())
    assert load(f"{VIDEOMAE}@main").num_classes == 3


def test_a_mistyped_path_is_no_id(tmp_path, cache):
    (tmp_path / "runs").mkdir()
    message = (
        "runs/mnie: the folder runs has no mnie. Correct the path; or, .* hub, write runs/mnie@main"
    )
    with pytest.raises(CheckpointError, match=message):
        load("runs/mnie")
    for name in ("runs/model.pth", Path("a/b"), "a/b/c", "./a/b", "videomae-base", "/a/b", "a/b@"):
        with pytest.raises(CheckpointError, match="the file does not exist"):
            load(name)
    with pytest.raises(CheckpointError, match=r"A model on the Hugging Face hub is OWNER/NAME"):
        load("videomae-base")


def test_names_that_the_cache_lacks(tmp_path, cache, tiny, capsys):
    lay(cache, VIDEOMAE, published(tmp_path / "hub", tiny)[VIDEOMAE])
    for name in ("MCG-NJU/videomae-tniy", f"{VIDEOMAE}@v1"):
        words = f"{name}: there is no such file or folder here; as a model .* not, or not whole, in"
        with pytest.raises(
            CheckpointError, match=f"{words} {re.escape(str(cache))}.*OFFLINE=0, or"
        ):
            load(name)
        assert main(["convert", name, "out", "--to", "vmae"]) == 1
        assert "HF_HUB_OFFLINE=0" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="no model a--b/c on the Hugging Face hub"):
        load("a--b/c")


def test_a_path_is_looked_for_in_the_same_places_everywhere(cache):
    """One of the checkout is found from any folder, as `finetune --encoder` and near names have it."""
    assert load("data/tiny").config == load(ROOT / "data" / "tiny").config


def test_weights_under_other_names(tmp_path, cache):
    (tmp_path / "one").mkdir()
    torch.save({"model": official_pretrain()}, tmp_path / "one" / "checkpoint.pth")
    (tmp_path / "two").mkdir()
    for name in ("a.pth", "b.pth"):
        torch.save({"model": official_pretrain()}, tmp_path / "two" / name)
    (tmp_path / "none").mkdir()
    for name in ("one", "two", "none"):
        lay(cache, f"me/{name}", tmp_path / name)
    sizes = {"num_frames": 8, "img_size": 32, "num_heads": 4, "decoder_num_heads": 2}
    assert load("me/one", **sizes).config.depth == 3
    with pytest.raises(
        CheckpointError, match=r"2 files of weights \(a.pth, b.pth\): pass the path"
    ):
        load("me/two")
    with pytest.raises(CheckpointError, match="me/none on the Hugging Face hub has no weights"):
        load("me/none")


# ---- a server ------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, cache, monkeypatch, tiny) -> Iterator[Hub]:
    """The hub's server, as HF_ENDPOINT, with the stand-ins and a file of weights in a sub-folder."""
    models = published(tmp_path / "hub", tiny)
    (models[VIDEOMAE] / "checkpoint-1").mkdir()
    (models[VIDEOMAE] / "checkpoint-1" / "model.safetensors").write_bytes(b"large")
    server = Hub(models)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    at = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", at)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", at + template)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what resumes is a whole chunk
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def test_only_json_and_one_kind_of_weights_are_downloaded(hub, cache, monkeypatch):
    expected = {repo: load(folder).state_dict() for repo, folder in hub.models.items()}
    for repo, state in expected.items():
        same(load(repo).state_dict(), state)
    files = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(hub.downloads()) == sorted([*files, "config.json", "model.safetensors"])
    same(load(VIDEOMAE).state_dict(), expected[VIDEOMAE])
    assert len(hub.downloads()) == 5  # cached
    hub.models.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    same(load(V2).state_dict(), expected[V2])


@pytest.mark.slow
def test_a_command_downloads_once_and_then_works_offline(hub, tmp_path):
    """As a user has it: in processes of their own, with settings in the environment."""
    home = {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    for out, setting in (
        ("a", {"HF_ENDPOINT": constants.ENDPOINT}),
        ("b", {"HF_HUB_OFFLINE": "1"}),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "vmae", "convert", VIDEOMAE, out, "--to", "hf"], cwd=tmp_path,
            env=os.environ | home | setting, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert load(tmp_path / out).class_names == ("walk", "run", "jump")
        assert f"base_model: {VIDEOMAE}" in (tmp_path / out / "README.md").read_text()
    assert len(hub.downloads()) == 3


def test_shards_of_pickles_are_downloaded_too(hub):
    """Their index is JSON, so it is there after the first pass, which looks for safetensors."""
    folder = hub.models[VIDEOMAE]
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(state), {}
    for part, own in enumerate((names[::2], names[1::2]), 1):
        shard = f"pytorch_model-{part:05}-of-00002.bin"
        torch.save({name: state[name] for name in own}, folder / shard)
        index |= dict.fromkeys(own, shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    same(load(VIDEOMAE).state_dict(), load(folder).state_dict())


def test_a_broken_transfer_resumes(hub):
    expected, size = (
        load(hub.models[VIDEOMAE]),
        (hub.models[VIDEOMAE] / "model.safetensors").stat().st_size,
    )
    hub.cut = 1
    same(load(VIDEOMAE).state_dict(), expected.state_dict())
    assert [wanted for _, _, wanted in hub.log if wanted] == [f"bytes={size // 2 // 1000 * 1000}-"]


def test_a_transfer_that_stays_broken_keeps_what_is_complete(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.cut = 100
    words = (
        "there is no such file or folder here, and downloading it .*failed .RemoteProtocolError: "
    )
    with pytest.raises(CheckpointError, match=f"{words}.*keeps the files that are complete"):
        load(VIDEOMAE)
    hub.cut = 0
    hub.log.clear()
    load(VIDEOMAE)
    assert hub.downloads() == ["model.safetensors"]


def test_what_the_hub_refuses(hub):
    with pytest.raises(
        CheckpointError, match="no such file or folder here, and no model MCG-NJU/videomea on"
    ):
        load("MCG-NJU/videomea")
    with pytest.raises(CheckpointError, match=f"{V2}@v9: .* has {V2}, but no revision v9 of it"):
        load(f"{V2}@v9")
    hub.gated.add(V2)
    with pytest.raises(CheckpointError, match=f"{V2}: .*accepted its terms: .*`hf auth login`"):
        load(V2)


def test_no_network(hub):
    hub.shutdown()
    hub.server_close()
    words = (
        "MCG-NJU/videomae-base: there is no such file or folder here, and downloading it .*failed"
    )
    with pytest.raises(
        CheckpointError, match=rf"{words} \(ConnectError: .*try again.*path of their folder"
    ):
        load("MCG-NJU/videomae-base")
