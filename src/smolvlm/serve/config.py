"""The server's settings: one frozen dataclass, filled from flags, the environment and a TOML file, in that order of strength."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from smolvlm.errors import ParamsError
from smolvlm.listening import Callers
from smolvlm.options.declare import check, option, shown

PREFIX = "SMOLVLM_SERVE_"
# A setting of earlier versions.
_WORKERS = (
    "workers={}: one server uses all cores, and there is one process of it. For several processes or machines run "
    "`serve run smolvlm.scale.ray_serve:app model=256m max_replicas=4` (docs/scale.md)."
)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """A list of texts, each of which may hold several with commas. Raises ParamsError."""
    if isinstance(value, str) or not all(isinstance(part, str) for part in value):
        raise ParamsError(f"{name}={shown(value)}: expected a list of strings.")
    return tuple(part.strip() for item in value for part in item.split(",") if part.strip())


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Every setting of `smolvlm serve`; each default lives here. Raises ParamsError that names a setting out of range.

    Field `max_waiting` is the flag `--max-waiting`, the variable SMOLVLM_SERVE_MAX_WAITING and the TOML key `max_waiting`.
    A list is written with commas in the environment.
    """

    model: str | None = option(None, "The model: a folder, a Hub id, 256m, 500m, 2.2b or nano.")
    served_name: str | None = option(None, "The name that clients ask for; else the model's.")
    adapter: str | None = option(None, "A LoRA or DoRA adapter of the model.")
    engine: str = option("auto", "auto, native or torch.")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.")
    dtype: str = option("auto", "auto, bfloat16, q8, q4; float32 or float16 (torch).")
    host: str = option("127.0.0.1", "The address to listen on; 0.0.0.0 is every network of this machine.")
    port: int = option(8000, "The port; 0 takes a free one and prints it.", least=0, most=65535)
    keys_file: str | None = option(None, "A file of API keys, as --new-key writes it; without one, anybody may ask.")
    files_folder: str | None = option(None, "Where uploads are kept; else a temporary folder that goes with the server.")
    allowed_hosts: tuple[str, ...] = option(
        (),
        "Host names that the server answers to, beside localhost, addresses and --host: chat.example.org, *.example.org or *.",
        convert=_texts,
    )
    cors_origin: tuple[str, ...] = option(
        (), "Origins whose pages may use the API in a browser: http://localhost:3000, https://example.org or *.", convert=_texts
    )
    max_body_bytes: int = option(100 * 1024**2, "Bytes of a request.", least=1)
    max_json_bytes: int = option(1024**2, "Bytes of a request's JSON beside its pictures and videos.", least=1)
    max_bodies_bytes: int = option(512 * 1024**2, "Bytes of requests that are held at the same time, over all connections.", least=1)
    head_timeout_s: float = option(10.0, "Seconds in which the head of a request must come.", least=0.01)
    body_timeout_s: float = option(60.0, "Seconds between two pieces of a request's body.", least=0.01)
    max_files_bytes: int = option(2 * 1024**3, "Bytes of all uploads together.", least=1)
    key_files_share: float = option(0.5, "What one key may have of the space for uploads, as a share of what the others leave.", least=0.01)
    file_hours: float = option(24.0, "Hours after which an upload is deleted.", least=0.001)
    max_answer_tokens: int = option(4096, "The most tokens that a request may ask for.", least=1)
    max_choices: int = option(8, "The largest n.", least=1)
    request_timeout_s: float = option(300.0, "Seconds in which a request must be answered.", least=0.01)
    max_waiting: int = option(128, "Requests that may wait; the next is refused with 429.", least=1)
    max_waiting_bytes: int = option(1024**3, "Bytes of pixels that may wait for the encoder.", least=1)
    max_running: int = option(32, "Answers that are written at the same time.", least=1)
    kv_tokens: int = option(65536, "Tokens of KV cache, in whole pages, for all answers, finished ones that are kept among them.", least=1)
    tile_cache_bytes: int = option(512 * 1024**2, "Bytes of encoded pictures that are kept.", least=0)
    prefill_chunk: int = option(256, "Tokens of a new prompt that are read between two decode steps, at most.", least=16)
    encode_tiles: int = option(2, "Tiles that are encoded at once while no answer is being written.", least=1)
    stall_ratio: float = option(3.0, "How many times longer than alone a token may take while prompts are read.", least=1)
    patience_s: float = option(2.0, "Seconds that a picture waits at most for answers that are being written.", least=0)
    key_rate: float = option(0.0, "Requests a minute of one key; 0: any.", least=0)
    key_concurrency: int = option(0, "Requests of one key at the same time; 0: any.", least=0)
    remote_hosts: tuple[str, ...] = option((), "Hosts that pictures may be fetched from: example.org, *.example.org or *.", convert=_texts)
    media_workers: int = option(2, "Processes that decode pictures and videos; at least two, one of which is kept for other keys.", least=1)
    max_media: int = option(16, "Pictures and videos in one request.", least=1)
    max_frames: int = option(64, "Frames of one video.", least=1)
    drain_s: float = option(60.0, "Seconds that answers have to finish in after SIGTERM.", least=0)
    log_level: str = option("info", "debug, info, warning or error.", choices=("debug", "info", "warning", "error"))

    def __post_init__(self) -> None:
        check(self)
        Callers(self.host, self.allowed_hosts, self.cors_origin)

    @classmethod
    def gather(cls, flags: Mapping[str, Any], file: str | None = None, environ: Mapping[str, str] = os.environ) -> ServeConfig:
        """The settings: what `flags` give (None is not given), else the environment, else the TOML file, else the default.

        Raises ParamsError for an unknown name, naming where it stands, and for a file that cannot be read.
        """
        known = {f.name for f in fields(cls)}
        file = file or environ.get(PREFIX + "CONFIG")
        values = _read_toml(file) if file else {}
        named = {name[len(PREFIX) :].lower(): text for name, text in environ.items() if name.startswith(PREFIX)}
        flags = dict(flags)
        for given in (flags, named, values):
            if str(workers := given.pop("workers", None)) not in ("None", "1"):
                raise ParamsError(_WORKERS.format(str(workers)[:20]))
        if unknown := sorted(set(values) - known):
            raise ParamsError(f"{file}: unknown setting {', '.join(unknown)}; the settings are `{', '.join(sorted(known))}`.")
        if unknown := sorted(set(named) - known - {"config"}):
            raise ParamsError(f"{PREFIX}{unknown[0].upper()} is no setting of the server; see `smolvlm serve --help`.")
        values |= {f.name: _from_text(f.name, str(f.type), named[f.name]) for f in fields(cls) if f.name in named}
        values |= {name: value for name, value in flags.items() if value is not None and value != []}
        return cls(**values)


def _read_toml(file: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ParamsError(f"{file}: cannot be read as TOML ({' '.join(str(error).split())}).") from None


def _from_text(name: str, kind: str, text: str) -> Any:
    try:
        if kind.startswith("tuple"):
            return (text,)
        return int(text) if kind == "int" else float(text) if kind == "float" else text
    except ValueError:
        raise ParamsError(f"{PREFIX}{name.upper()}={text[:60]!r}: expected a number.") from None
