"""Weights by the id of a model on the Hugging Face hub: from a cache laid by hand, and from a server here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from conftest import randomize
from huggingface_hub import constants
from published_layouts import build, official_finetuned, official_pretrain, same
from safetensors.torch import load_file, save_file
from test_parity_videomae import hf_config

from vmae import ROOT
from vmae.cli import main
from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.train.config import FinetuneConfig
from vmae.train.starting import load_start
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, class_names, load, load_encoder, save

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VIDEOMAE, V2 = "MCG-NJU/videomae-tiny-finetuned", "OpenGVLab/VideoMAEv2-Tiny"
PRETRAINED = "MCG-NJU/videomae-tiny"


def published(folder: Path, tiny: ModelConfig) -> dict[str, Path]:
    """Stand-ins with random weights, with the files and fields that these models have on the hub."""
    model = randomize(VisionTransformer(tiny, 3)).eval()
    videomae = save(model, folder / VIDEOMAE, "hf", ["walk", "run", "jump"])
    torch.save(load_file(videomae / "model.safetensors"), videomae / "pytorch_model.bin")
    v2 = folder / V2
    v2.mkdir(parents=True)
    state = {f"model.{n}": t for n, t in official_finetuned().items() if not n.startswith("head.")}
    save_file(state, v2 / "model.safetensors")
    nested = {
        "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "mlp_ratio": 4,
        "tubelet_size": 2, "num_frames": 8, "num_classes": 0, "cos_attn": False,
        "use_learnable_pos_emb": False, "use_mean_pooling": True,
    }  # fmt: skip
    config = {
        "model_type": "VideoMAEv2_Base", "architectures": ["VideoMAEv2"], "model_config": nested,
        "auto_map": {"AutoModel": "modeling_videomaev2.VideoMAEv2"},
    }  # fmt: skip
    (v2 / "config.json").write_text(json.dumps(config))
    (v2 / "modeling_videomaev2.py").write_text("raise SystemExit('code of the model ran')")
    return {VIDEOMAE: videomae, V2: v2}


def pretrained(folder: Path, tiny: ModelConfig) -> Path:
    """The same for a pre-trained model of MCG-NJU: written by transformers, weights in a pickle."""
    transformers = pytest.importorskip("transformers")
    model = randomize(transformers.VideoMAEForPreTraining(hf_config(tiny, use_mean_pooling=False)))
    model.save_pretrained(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    crop = {"height": 32, "width": 32}
    processor = {
        "feature_extractor_type": "VideoMAEFeatureExtractor", "crop_size": crop, "resample": 2,
        "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "size": {"shortest_edge": 32},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def lay(cache: Path, repo: str, files: Path) -> None:
    """A model in the cache of huggingface_hub, as a download leaves it, without the tree of files."""
    place = cache / f"models--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    (place / "snapshots").mkdir()
    files.rename(place / "snapshots" / COMMIT)


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
    for name in (VIDEOMAE, f"{VIDEOMAE}@main", f"{VIDEOMAE}@{COMMIT}", V2):
        same(load(name).state_dict(), expected[name.split("@")[0]])
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


class Hub(ThreadingHTTPServer):
    """The few answers of the hub that a download needs, for the folders in `models`.

    gated    models that nobody may download
    cut      how many downloads of weights still break off: the first halfway, those that resume at once
    log      (method, path, Range) of each request
    """

    def __init__(self, models: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.models, self.gated, self.cut = models, set[str](), 0
        self.log: list[tuple[str, str, str | None]] = []

    def downloads(self) -> list[str]:
        got = [path for method, path, _ in self.log if method == "GET" and "/resolve/" in path]
        return [path.rsplit("/", 1)[1] for path in got]


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        fixed = {"Content_Length": str(len(body)), "X_Repo_Commit": COMMIT}
        for name, value in (fixed | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.log.append((self.command, path, self.headers.get("Range")))
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repo, kind, revision, *name = "/".join(parts[:2]), *parts[2:]
        folder = self.server.models.get(repo)
        if folder is None:  # also for those who may not see it
            return self.answer(401, X_Error_Code="RepoNotFound")
        if revision not in ("main", COMMIT):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if kind == "revision":
            return self.json({"id": repo, "sha": COMMIT, "siblings": []})
        if kind == "tree":
            return self.json([
                {"type": "file", "path": file.relative_to(folder).as_posix(), "oid": "0" * 40, "size": file.stat().st_size}
                for file in sorted(folder.rglob("*")) if file.is_file()
            ])  # fmt: skip
        if repo in self.server.gated:
            return self.answer(403, X_Error_Code="GatedRepo")
        self.file((folder / "/".join(name)).read_bytes())

    do_HEAD = do_GET

    def json(self, content: object) -> None:
        self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

    def file(self, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept_Ranges": "bytes"}
        status, first = 200, 0
        if wanted := self.headers.get("Range"):
            status, first = 206, int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content_Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        if self.command == "GET" and len(content) > 10_000 and self.server.cut:
            self.server.cut -= 1
            headers["Content_Length"] = str(len(body))
            body = b"" if wanted else body[: len(body) // 2]
        self.answer(status, body, **headers)


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
