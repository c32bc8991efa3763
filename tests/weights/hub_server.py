"""A hub for tests: models with random weights, laid into a cache or served on loopback."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from conftest import randomize
from published_layouts import official_finetuned
from safetensors.torch import load_file, save_file
from test_parity_videomae import hf_config

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.vit import VisionTransformer
from vmae.weights import save

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
