"""Uploads: kept in a folder under names that we chose, seen by their owner only, deleted after a while."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from smolvlm.media.sandbox.limits import StoredFile
from smolvlm.serve.api.upload_quota import Reservation, UploadQuota
from smolvlm.serve.errors import ServeError, unavailable
from smolvlm.temporary import OwnFolder

_ID = re.compile(r"file-[0-9a-f]{32}", re.ASCII)
_CHUNK_BYTES = 1 << 20
_PARTIAL_S = 3600.0  # an upload that was cut off by a crash is swept away after this

Read = Callable[[int], Awaitable[bytes]]  # the next bytes of an upload, at most so many; empty at its end


@dataclass(frozen=True)
class FileRecord:
    """What is known of an upload. `filename` is what the client called it: shown, never used as a path."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int

    def public(self) -> dict[str, object]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


class FileStore:
    """A folder of `ID.bin` with `ID.json` beside each. Several processes may share it: what counts is what lies there."""

    def __init__(self, folder: str | None, max_bytes: int, keep_s: float, max_files: int = 4096, share: float = 1.0) -> None:
        """Without `folder`, a temporary one that `close` deletes. Raises ServeError when it cannot be made.

        `max_files` bounds the time that a look into the folder takes; `share`: see `UploadQuota`.
        """
        try:
            self._own = OwnFolder("smolvlm-files-") if folder is None else None
            self.folder = self._own.path if self._own is not None else Path(str(folder))
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise unavailable(f"{folder}: the folder for uploads cannot be made ({error.strerror}).", "no_storage") from None
        self._keep_s = keep_s
        self._known: dict[str, FileRecord] = {}  # by id: as of the last look, and what this process stored since
        self._quota = UploadQuota(max_bytes, max_files, share, lambda: self._known.values())

    @contextlib.asynccontextmanager
    async def receiving(self, owner: str, promised: int = 0) -> AsyncIterator[Reservation]:
        """Room for an upload of `owner` while it comes in. Raises ServeError 429 when the owner has no more."""
        await asyncio.to_thread(self.sweep)
        with self._quota.reservation(owner, promised) as coming:
            yield coming

    def arrived(self, coming: Reservation, size: int) -> None:
        """So many bytes of it have come. Raises ServeError 429 when the owner has no room for them."""
        self._quota.grow(coming, size)

    async def save(self, owner: str, filename: str, purpose: str, read: Read, coming: Reservation | None = None) -> FileRecord:
        """Store an upload, for which there may be a reservation.

        Raises ServeError: 400 for an empty one, 429 when the space or the number is used up, 503 for a full disk.
        """
        if coming is None:
            async with self.receiving(owner) as coming:
                return await self.save(owner, filename, purpose, read, coming)
        file_id = f"file-{secrets.token_hex(16)}"
        partial = self.folder / f"{file_id}.partial"
        size = 0
        try:
            with partial.open("xb") as stream:
                while chunk := await read(_CHUNK_BYTES):
                    size += len(chunk)
                    self.arrived(coming, size)
                    await asyncio.to_thread(stream.write, chunk)
            if not size:
                raise ServeError(400, "the uploaded file is empty.", param="file", code="invalid_value")
            record = FileRecord(file_id, owner, filename[:255] or "upload", purpose, size, int(time.time()))
            partial.replace(self.folder / f"{file_id}.bin")
            partial.write_text(json.dumps(asdict(record)), encoding="utf-8")
            partial.replace(self.folder / f"{file_id}.json")
            self._known[file_id] = record
        except OSError as error:
            _discard(self.folder / f"{file_id}.bin")
            raise unavailable(f"the upload cannot be stored ({error.strerror}).", "no_storage", 60) from None
        finally:
            _discard(partial)
        return record

    def get(self, owner: str, file_id: str) -> FileRecord:
        """The record of an upload. Raises ServeError 404, also for those of other owners."""
        record = self._read(self.folder / f"{file_id}.json") if _ID.fullmatch(file_id) else None
        if record is None or record.owner != owner or self._expired(record):
            raise ServeError(404, f"No such file: {file_id[:60]!r}; upload it with POST /v1/files.", param="file_id", code="file_not_found")
        return record

    def open(self, owner: str, file_id: str) -> StoredFile:
        """The content of an upload. Raises as `get` does."""
        record = self.get(owner, file_id)
        return StoredFile(self.folder / f"{record.id}.bin", record.id)

    def of_owner(self, owner: str) -> list[FileRecord]:
        """The uploads of `owner`, newest first."""
        mine = [record for record in self.sweep() if record.owner == owner]
        return sorted(mine, key=lambda record: (-record.created_at, record.id))

    def delete(self, owner: str, file_id: str) -> None:
        """Forget an upload. Raises as `get` does, and ServeError 503 when the disk does not let go of it."""
        try:
            self._remove(self.get(owner, file_id).id)
        except OSError as error:
            raise unavailable(f"the upload cannot be deleted ({error.strerror}).", "no_storage", 60) from None

    def sweep(self) -> list[FileRecord]:
        """Delete what is older than it may be; the records of the rest."""
        before = set(self._known)
        there: set[str] = set()
        names = {path.name for path in self.folder.iterdir()}
        for path in (self.folder / name for name in names):
            if path.suffix == ".json" and _ID.fullmatch(path.stem):
                record = self._known.get(path.stem) or self._read(path)  # a record never changes
                if record is None:
                    continue
                if not self._expired(record):
                    there.add(record.id)
                    self._known[record.id] = record
                    continue
                with contextlib.suppress(OSError):  # a disk that has become read-only; nobody gets it all the same
                    self._remove(record.id)
            elif path.suffix == ".partial" or (path.suffix == ".bin" and f"{path.stem}.json" not in names):
                self._sweep_remains(path)
        for file_id in before - there:  # another process deleted it
            self._known.pop(file_id, None)
        return list(self._known.values())

    def _sweep_remains(self, path: Path) -> None:
        """Delete a part of an upload that a crash cut off, once nobody can be writing it any more."""
        with contextlib.suppress(OSError):  # another process was quicker
            if time.time() - path.stat().st_mtime > _PARTIAL_S:
                path.unlink()

    def close(self) -> None:
        if self._own is not None:
            self._own.close()

    def _expired(self, record: FileRecord) -> bool:
        return time.time() - record.created_at > self._keep_s

    def _remove(self, file_id: str) -> None:
        self._known.pop(file_id, None)
        for suffix in ("json", "bin"):  # the record first: without it the content cannot be asked for
            (self.folder / f"{file_id}.{suffix}").unlink(missing_ok=True)

    def _read(self, path: Path) -> FileRecord | None:
        try:
            return FileRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def _discard(path: Path) -> None:
    """Delete what is left of an upload, if the disk lets it; a later sweep tries again."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
