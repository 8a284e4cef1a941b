"""A model's name -> the folder that holds it: a path, a built-in model, a short size, or an id on the Hub.

The cache comes first: what is complete on this machine is used without a word to the network. Only JSON, Jinja and
safetensors files of a repository's top folder are fetched; pickled weights never are.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.errors import ConfigError, ModelNotFoundError
from smolvlm.json_file import Fields, read_json

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]

SHORT_NAMES = {
    "256m": "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
    "500m": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    "2.2b": "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
}
OFFICIAL_IDS = (
    *SHORT_NAMES.values(),
    "HuggingFaceTB/SmolVLM-256M-Instruct",
    "HuggingFaceTB/SmolVLM-500M-Instruct",
    "HuggingFaceTB/SmolVLM-Instruct",
    "docling-project/SmolDocling-256M-preview",
    "ibm-granite/granite-docling-258M",
)
BUILT_IN = ("nano",)
_MODELS = Path(__file__).parent / "models"
# Names that tutorials use and under which nothing is published.
UNPUBLISHED = tuple(f"{owner}{name}" for owner in ("huggingface/", "huggingfacetb/", "") for name in ("smolvlm", "smolvlm2"))

_FETCHED = ["*.json", "*.jinja", "*.safetensors"]
_NOT_FETCHED = ["*/*"]  # `onnx/` and the like: other programs' copies of the same weights
_QUANTIZED_FILE = "native.safetensors"  # what `smolvlm quantize` writes in place of the weights
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,199}", re.ASCII)


@dataclass(frozen=True)
class LocalModel:
    """An official checkpoint that is complete in the cache: its Hub id, its folder, and its size in bytes."""

    name: str
    path: Path
    size_bytes: int


def resolve(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, offline: bool | None = None, on_progress: OnProgress | None = None
) -> Path:
    """The local folder of a model; fetched first if it is only on the Hub.

    `offline` None follows HF_HUB_OFFLINE; `on_progress(done, total)` counts bytes of a download. Raises
    ModelNotFoundError, with close names where there are any, for what is nowhere.
    """
    name = os.fspath(name_or_path)
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ModelNotFoundError(f"{name!r} is no model name; pass a folder, a Hub id, or one of {_known_names()}.")
    if (folder := _as_folder(name)) is not None:
        return folder
    if name.lower() in BUILT_IN:
        return _built_in(name.lower())
    if name.lower() in UNPUBLISHED:
        return _stand_in(name, _forbidden_by_environment() if offline is None else offline, on_progress)
    return _from_hub(_hub_id(name), revision, offline, on_progress)


def download(name: str, *, revision: str | None = None, on_progress: OnProgress | None = None) -> Path:
    """Fetch what is missing or has changed on the Hub, even if an older copy is complete; the folder in the cache.

    Raises ModelNotFoundError for an unknown name or no network.
    """
    repo = _hub_id(name)
    if _forbidden_by_environment():
        raise ModelNotFoundError(f"{repo} cannot be downloaded while HF_HUB_OFFLINE is set; unset it and try again.")
    return _fetch(repo, _checked_revision(revision), on_progress, "download it")


def list_local() -> list[LocalModel]:
    """The official checkpoints that are complete in the cache, largest first."""
    found = []
    for repo in OFFICIAL_IDS:
        folder = _cached(repo, "main")
        if folder is not None:
            size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
            found.append(LocalModel(repo, folder, size))
    return sorted(found, key=lambda model: -model.size_bytes)


def cache_folder() -> Path:
    """Where the Hub's own client keeps models: HF_HUB_CACHE, or `hub` inside HF_HOME or the user's cache folder."""
    if explicit := os.environ.get("HF_HUB_CACHE"):
        return Path(explicit).expanduser()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HF_HOME") or caches / "huggingface").expanduser() / "hub"


def _as_folder(name: str) -> Path | None:
    """The folder that `name` is, or None if it may be a name; ModelNotFoundError for a path that leads nowhere."""
    path = Path(name).expanduser()
    try:
        is_folder, exists, has_config = path.is_dir(), path.exists(), (path / "config.json").is_file()
    except (OSError, ValueError):
        is_folder = exists = has_config = False
    if has_config:
        return path
    is_name = name.lower() in (*SHORT_NAMES, *BUILT_IN)  # an unrelated folder called `nano` does not hide the model
    if is_folder and not is_name:
        raise ModelNotFoundError(f"{name} is a folder without config.json; pass a checkpoint's own folder.")
    if exists and not is_name:
        raise ModelNotFoundError(f"{name} is a file; pass the folder of the checkpoint that it belongs to.")
    if name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1:
        raise ModelNotFoundError(f"{name}: no such folder; check the path, or name a model such as {_known_names()}.")
    return None


def is_built_in(folder: Path) -> bool:
    """Whether the folder is that of a model in the package."""
    return folder.parent == _MODELS and folder.name in BUILT_IN


def _built_in(name: str) -> Path:
    folder = _MODELS / name
    if (folder / "config.json").is_file():
        return folder
    raise ModelNotFoundError(f"{folder}: the files of {name} are missing from this installation; install smolvlm again.")


def _stand_in(name: str, offline: bool, on_progress: OnProgress | None) -> Path:
    """A checkpoint for a name that stands for none: one from the cache, else the smallest, else nano. The log says which."""
    found = next(((repo, folder) for repo in OFFICIAL_IDS if (folder := _cached(repo, "main")) is not None), None)
    remedy = "name the checkpoint that you want"
    if found is None and not offline:
        try:
            found = OFFICIAL_IDS[0], _fetch(OFFICIAL_IDS[0], "main", on_progress, "")
        except ModelNotFoundError as error:
            logger.debug("%s", error)
    if found is None:
        found = "the built-in nano", _built_in("nano")
        remedy = "no other is on this machine, and nano knows drawn scenes only: run `smolvlm download 256m` where there is a network"
    logger.warning("%s is no published checkpoint; %s is taken. %s", name, found[0], remedy[0].upper() + remedy[1:])
    return found[1]


def _hub_id(name: str) -> str:
    """The id on the Hub that a name stands for; ModelNotFoundError for a name that can be none."""
    if name.lower() in SHORT_NAMES:
        return SHORT_NAMES[name.lower()]
    for repo in OFFICIAL_IDS:
        if name.lower() in (repo.lower(), repo.split("/")[1].lower()):
            return repo
    if name.lower() in BUILT_IN:
        raise ModelNotFoundError(f"{name!r} is built in, not downloaded; name one of {', '.join(SHORT_NAMES)}.")
    if not _HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise ModelNotFoundError(
            f"{name!r} is no folder here and no model name{_close(name)}; pass a folder, a Hub id (owner/name), or one of {_known_names()}."
        )
    return name


def _from_hub(repo: str, revision: str | None, offline: bool | None, on_progress: OnProgress | None) -> Path:
    revision = _checked_revision(revision)
    cached = _cached(repo, revision)
    if cached is not None:
        return cached
    absent = f"{repo} is not complete in the cache {cache_folder()}"
    if offline:  # the caller only wants to look at what is here
        raise ModelNotFoundError(f"{absent}{_close(repo)}; run `smolvlm download {repo}` first, or pass a checkpoint's folder.")
    if offline is None and _forbidden_by_environment():
        raise ModelNotFoundError(
            f"{absent}, and HF_HUB_OFFLINE, which is set, forbids the network{_close(repo)}; unset it, or pass a checkpoint's folder."
        )
    return _fetch(repo, revision, on_progress, f"run `smolvlm download {repo}`")


def _cached(repo: str, revision: str) -> Path | None:
    """The complete snapshot in the cache, or None. Reads the Hub's documented cache layout; asks nobody."""
    if not (cache_folder() / f"models--{repo.replace('/', '--')}").is_dir():
        return None  # without the client, whose import takes half a second of every command
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                cache_dir=cache_folder(),
                local_files_only=True,
                allow_patterns=_FETCHED,
                ignore_patterns=_NOT_FETCHED,
            )
        )
    except Exception as error:  # absent, or a cache that cannot be read: the client's errors differ by version
        logger.debug("%s is not in the cache: %s", repo, error)
        return None
    return folder if not _missing(folder) else None


def _missing(folder: Path) -> list[str]:
    """The files that a checkpoint needs and this folder lacks."""
    wanted = ["config.json", "tokenizer.json"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = {str(shard) for shard in Fields(read_json(index), "").inner("weight_map").raw.values()}
            wanted += sorted(shards) or [index.name]
        except ConfigError:
            wanted.append(index.name)
            return wanted
    elif not (folder / _QUANTIZED_FILE).is_file():
        wanted.append("model.safetensors")
    return [name for name in wanted if not (folder / name).is_file()]


def _fetch(repo: str, revision: str, on_progress: OnProgress | None, remedy: str) -> Path:
    """`remedy` is how to have it on a machine with a network."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                cache_dir=cache_folder(),
                allow_patterns=_FETCHED,
                ignore_patterns=_NOT_FETCHED,
                tqdm_class=_progress_class(on_progress),
            )
        )
    except errors.GatedRepoError:
        raise ModelNotFoundError(
            f"{repo} asks for an agreement on its page first; accept it there, sign in with `hf auth login`, and try again."
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFoundError(f"{repo} has no revision {revision!r}; name a branch, tag or commit.") from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"{repo} is not on the Hub, or is private{_close(repo)}; check the name, or sign in with `hf auth login`."
        ) from None
    except OSError as error:
        if error.errno is not None:  # a full disk, a cache that cannot be written
            raise ModelNotFoundError(
                f"{repo} cannot be stored in the cache {cache_folder()} ({error.strerror}); free "
                "space there or set HF_HOME to another folder."
            ) from None
        raise _no_network(repo, error, remedy) from None
    except Exception as error:  # httpx's and requests' errors, by the client's version
        logger.debug("%s: %s", repo, error)
        raise _no_network(repo, error, remedy) from None
    if missing := _missing(folder):
        raise ModelNotFoundError(
            f"{repo} has no {', '.join(missing[:3])}; only checkpoints with safetensors weights are read, never pickled ones."
        )
    return folder


def _no_network(repo: str, error: BaseException, remedy: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{repo} is not complete in the cache {cache_folder()}, and the Hub cannot be reached "
        f"({_cause(error)}){_close(repo)}; check the network, or {remedy} on a machine "
        "that has one and copy its cache here."
    )


def _cause(error: BaseException) -> str:
    """The innermost reason that says something: the client wraps a failed connection several times."""
    reasons: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(reasons) < 20:
        reasons.append(" ".join(str(seen).split()) or type(seen).__name__)
        seen = seen.__cause__ or seen.__context__
    return reasons[-1][:200].rstrip(".")


def _progress_class(on_progress: OnProgress | None) -> type[Any]:
    """A silent stand-in for the client's progress bars, which would print; bytes written go to `on_progress`."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Progress(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Newer clients also count the bytes received, compressed, in a bar of its own: one of the two is enough.
            self._counts_bytes = kwargs.get("unit") == "B" and not str(kwargs.get("name")).endswith(".transfer")
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self._counts_bytes and on_progress is not None:
                on_progress(int(self.n), int(self.total or 0))

    return Progress


def _forbidden_by_environment() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _checked_revision(revision: str | None) -> str:
    if revision is None:
        return "main"
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise ModelNotFoundError(f"{revision!r} is no revision; name a branch, tag or commit.")
    return revision


def _known_names() -> str:
    return ", ".join((*BUILT_IN, *SHORT_NAMES))


def _close(name: str) -> str:
    """The words " (did you mean ...?)" over all known names, or nothing."""
    names = {known.lower(): known for repo in OFFICIAL_IDS for known in (repo, repo.split("/")[1])}
    names |= {short: short for short in (*BUILT_IN, *SHORT_NAMES)}
    matches = [names[match] for match in difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.7)]
    return f" (did you mean {' or '.join(matches)}?)" if matches and name not in matches else ""
