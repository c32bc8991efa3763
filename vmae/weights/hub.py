"""Weights from the Hugging Face hub, by the id of a model there.

local_path("MCG-NJU/videomae-base")           # the folder of its files in huggingface_hub's cache
local_path("MCG-NJU/videomae-base@v1.0")      # at a branch, tag or commit

Only JSON and weights are downloaded, never code, and weights are read like any other file here,
without running what a pickle contains. The cache, its settings (HF_HOME, HF_HUB_OFFLINE, ...) and
the login are those of huggingface_hub.
"""

from __future__ import annotations

import re
from pathlib import Path

from vmae import at_root
from vmae.support.near import near
from vmae.weights.errors import CheckpointError
from vmae.weights.files import FILES

#: Kinds of weights, in order of preference: the first that a model has is downloaded.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.pth")
_ID = re.compile(r"([a-z\d][\w.-]*/[a-z\d][\w.-]*)(?:@([\w./-]+?))?/?", re.IGNORECASE | re.ASCII)
_FILE = (".safetensors", ".bin", ".pth", ".pt", ".json", ".yaml")


def hub_id(name: str | Path | None) -> tuple[str, str | None] | None:
    """The model and the revision that a string names on the hub; None for what exists here, or a file.

    A Path is never an id, nor is a string that ends like a file of weights.
    """
    found = _ID.fullmatch(name) if isinstance(name, str) else None
    if found is None or at_root(found[0]).exists() or Path(found[0]).suffix in _FILE:
        return None
    return found[1], found[2]


def local_path(path: str | Path) -> Path:
    """`path` itself, or the weights that it names on the hub, downloaded if they are not cached.

    What exists here always wins. If a folder `owner` exists here, `owner/name` is taken for a mistyped
    path; with a revision, it is an id. Raises CheckpointError, which says what both readings found and
    how to get the weights otherwise.
    """
    named = hub_id(path)
    if named is None:
        at = at_root(path)
        return at if at.exists() else Path(path)
    owner, name = named[0].split("/")
    if named[1] is None and at_root(owner).is_dir():
        raise CheckpointError(
            f"{path}: the folder {owner} has no {name}{near(path)}. Correct the path; or, for the "
            f"model of this name on the Hugging Face hub, write {path}@main"
        )
    return _fetch(*named)


def pinned(name: str, path: Path) -> str:
    """`name` with the commit that `local_path` found, `path`; if it is no id, itself."""
    named, commit = hub_id(name), re.search(r"/snapshots/([0-9a-f]{40})(/|$)", path.as_posix())
    return f"{named[0]}@{commit[1]}" if named and commit else name


def _fetch(repo: str, revision: str | None) -> Path:
    """The folder of a model's weights in the cache, or its only file if that has a name of its own."""
    for pattern in _WEIGHTS:
        folder = _snapshot(repo, revision, pattern)
        found = sorted(folder.glob(pattern))
        if found and any((folder / name).exists() for name in FILES):
            return folder  # an index alone, which is JSON, says nothing: its shards may be another kind
        if len(found) > 1:
            listed = ", ".join(path.name for path in found[:5])
            raise CheckpointError(
                f"{repo} has {len(found)} files of weights ({listed}): pass the path of one, in {folder}"
            )
        if found:
            return found[0]
    raise CheckpointError(
        f"{repo} on the Hugging Face hub has no weights ({', '.join(_WEIGHTS)}) in its top folder: "
        "download the file you want yourself, and pass its path"
    )


def _snapshot(repo: str, revision: str | None, pattern: str) -> Path:
    """Download JSON and what matches from the top folder; returns its commit's folder in the cache."""
    from huggingface_hub import snapshot_download  # takes a second, which paths need not wait for

    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=["*.json", pattern], ignore_patterns="*/*"
        )
    except Exception as error:  # of the hub, of the HTTP client or of the disk
        raise CheckpointError(_explanation(error, repo, revision)) from error
    return Path(folder)


def _explanation(error: Exception, repo: str, revision: str | None) -> str:
    """What to tell a user about an error of `snapshot_download`."""
    from huggingface_hub import constants, errors

    name = repo if revision is None else f"{repo}@{revision}"
    here = f"{name}: there is no such file or folder here{near(repo)}"
    folder = "download its files elsewhere, and pass the path of their folder"
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{name}: the Hugging Face hub has {repo}, but no revision {revision} of it: correct that, or "
            f"write {repo} for the main branch"
        )
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name}: the Hugging Face hub gives this model only to those who have accepted its terms: "
            "do so on its page there, log in with `hf auth login`, and try again"
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return (
            f"{here}, and no model {repo} on the Hugging Face hub that you may read: correct the path "
            "or the id; for a private model, log in with `hf auth login`"
        )
    if constants.HF_HUB_OFFLINE:
        return (
            f"{here}; as a model of the Hugging Face hub it is not, or not whole, in "
            f"{constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set: load it once with HF_HUB_OFFLINE=0, "
            f"or {folder}"
        )
    cause = error.__cause__ or error
    reason = (str(cause).strip().splitlines() or [""])[0][:200]
    return (
        f"{here}, and downloading it from the Hugging Face hub failed ({type(cause).__name__}: "
        f"{reason}): correct the path, or try again, which keeps the files that are complete; or {folder}"
    )
