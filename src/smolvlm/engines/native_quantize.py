"""From an official checkpoint to a folder that the native engine maps: packed weights, and the small files as they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from smolvlm.checkpoint.dtypes import Bytes
from smolvlm.checkpoint.fingerprint import fingerprint
from smolvlm.checkpoint.folder import FolderInMaking
from smolvlm.checkpoint.native_file import NativeHeader, has_native_file, write_native_file
from smolvlm.checkpoint.reader import INDEX_FILE, CheckpointReader
from smolvlm.config import load_configs
from smolvlm.engines.native_engine import Formats, NativeEngine
from smolvlm.engines.native_weights import parts
from smolvlm.errors import CheckpointError

_SMALL = (".json", ".jinja", ".md", ".txt")
_LICENCES = ("LICENSE", "LICENCE", "NOTICE")
_SMALL_BYTES = 64 << 20  # a tokenizer is a few MB; a README that is larger than this is something else


def quantize(
    folder: Path, out: Path, *, dtype: str = "q8", overwrite: bool = False, on_tensor: Callable[[int, int], None] | None = None
) -> Formats:
    """Write the checkpoint in `folder` to `out`, quantized as `dtype` says (`Formats.of`); returns how.

    The folder `out` appears whole or not at all. Raises EngineError without the native engine or for a dtype that it does
    not know, CheckpointError for a source that is not whole or is quantized already, or an `out` that is not empty.
    """
    if has_native_file(folder):
        raise CheckpointError(f"{folder}: is quantized already; quantize the original checkpoint.")
    if out.expanduser().resolve() == folder.resolve():
        raise CheckpointError(f"{out}: is the checkpoint itself; choose another folder.")
    FolderInMaking(out, overwrite=overwrite)  # refused now, not after the long part
    config, _ = load_configs(folder)
    engine = NativeEngine(folder, config, dtype=dtype, on_tensor=on_tensor)
    with CheckpointReader(folder) as reader:
        header = NativeHeader(engine.formats.vision, engine.formats.text, engine.formats.head, fingerprint(reader, engine.config))
    contents = list(_contents(engine))
    places: dict[str, tuple[str, tuple[int, ...]]] = {name: (code, shape) for name, code, shape, _ in contents}
    size = sum(data.size for *_, data in contents)
    with FolderInMaking(out, overwrite=overwrite, needed_bytes=size) as making:
        for path in _small_files(folder):
            shutil.copyfile(path, making.path / path.name)
        write_native_file(making.path, header, places, ((name, data) for name, _, _, data in contents))
        making.finish()
    return engine.formats


def _contents(engine: NativeEngine) -> Iterator[tuple[str, str, tuple[int, ...], Bytes]]:
    """(name, number format, shape, bytes) of every tensor. The embedding is last: only its size may be uneven."""
    config, native = engine.config, engine.packed
    for part in parts(config):
        if part.kind == "matrix":
            data, scales = native.matrix(part.name)
            yield f"{part.name}.data", "U8", (data.size,), data
            if scales.size:
                yield f"{part.name}.scales", "U8", (scales.size,), scales
        elif part.kind == "vector":
            values = native.vector(part.name)
            yield part.name, "F32", (values.size // 4,), values
    yield "embedding", "BF16", (config.text.vocab_size, config.text.hidden_size), native.embedding()


def _small_files(folder: Path) -> Iterator[Path]:
    """The files beside the weights that a copy needs or should not lose: configuration, tokenizer, template, licence."""
    for path in sorted(folder.iterdir()):
        named = path.suffix in _SMALL or path.name in _LICENCES
        if not named or path.name.startswith(".") or path.name == INDEX_FILE or not path.is_file():
            continue
        if path.stat().st_size > _SMALL_BYTES:
            raise CheckpointError(
                f"{path}: has {path.stat().st_size / 1e6:.0f} MB, more than such a file may have "
                f"({_SMALL_BYTES / 1e6:.0f} MB); move it away."
            )
        yield path
