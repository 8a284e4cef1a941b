"""`/v1/files`: uploads that later requests name by their id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Message

from smolvlm.serve.api.request_errors import UPLOAD
from smolvlm.serve.api.services import owner_of, services
from smolvlm.serve.api.sse import PlainJSON
from smolvlm.serve.api.wording import path_of, short
from smolvlm.serve.errors import ServeError, unavailable


class UploadRoute(APIRoute):
    """Counts the body of an upload against its owner's room while it comes in.

    The framework keeps the body in temporary files meanwhile, and calls it the client's fault when these are full.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def counted(request: Request) -> Response:
            if request.method != "POST":
                return await handle(request)
            if (kind := request.headers.get("content-type", "")).partition(";")[0].strip().lower() != "multipart/form-data":
                came = f"came as {short(kind)}" if kind else "came without a Content-Type"
                raise ServeError(415, f"an upload is multipart/form-data and this body {came}; {UPLOAD}.", code="unsupported_media_type")
            files, size = services(request).files, 0
            promised = request.headers.get("content-length", "")
            async with files.receiving(owner_of(request), int(promised[:18]) if promised.isdecimal() else 0) as coming:

                async def receive() -> Message:
                    nonlocal size
                    message = await request.receive()
                    size += len(message.get("body", b""))
                    files.arrived(coming, size)
                    return message

                request.scope["smolvlm.upload"] = coming
                try:
                    return await handle(Request(request.scope, receive))
                except HTTPException as error:
                    if isinstance(error.__cause__, ServeError):
                        raise error.__cause__ from None
                    if isinstance(error.__cause__, OSError):
                        reason = error.__cause__.strerror
                        raise unavailable(f"the upload cannot be stored ({reason}).", "no_storage", 60) from None
                    if error.status_code != 400:
                        raise
                    reason = str(error.detail).rstrip(".")
                    raise ServeError(400, f"the form of the upload cannot be read ({reason}); {UPLOAD}.", code="invalid_value") from None

        return counted


router = APIRouter(prefix="/v1/files", tags=["files"], route_class=UploadRoute)


class FileObject(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool = False


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


@router.post("", response_model=FileObject, summary="Upload a picture or a video")
async def upload(
    request: Request, file: Annotated[UploadFile, File()], purpose: Annotated[str, Form(max_length=64)] = "vision"
) -> Response:
    """A request names it as `{"type": "file", "file": {"file_id": ...}}`. It is deleted after a while."""
    form = await request.form()  # read already
    if len(form.getlist("file")) > 1:
        raise ServeError(
            400,
            f"an upload holds one file, and this form has {len(form.getlist('file'))}; send them one by one.",
            param="file",
            code="invalid_value",
        )
    record = await services(request).files.save(
        owner_of(request), _printable(file.filename or ""), _printable(purpose), file.read, request.scope["smolvlm.upload"]
    )
    unknown = [path_of((name,)) for name in form if name not in ("file", "purpose")]
    warnings = [f"{name}: this field is unknown here and changed nothing." for name in dict.fromkeys(unknown)]
    return PlainJSON(record.public() | ({"warnings": warnings[:32]} if warnings else {}))


@router.get("", response_model=FileList, summary="The uploads of this key")
async def listing(
    request: Request,
    purpose: str | None = None,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
) -> Response:
    """Newest first, unless `order` says otherwise; `after` is the id of the last one on the page before."""
    mine = await asyncio.to_thread(services(request).files.of_owner, owner_of(request))
    found = [record for record in (mine if order == "desc" else mine[::-1]) if purpose in (None, record.purpose)]
    if after is not None:
        place = next((i for i, record in enumerate(found) if record.id == after), None)
        if place is None:
            raise ServeError(400, f"after: {short(after)} is no upload of this list.", param="after", code="invalid_value")
        found = found[place + 1 :]
    data: list[dict[str, Any]] = [record.public() for record in found[:limit]]
    return PlainJSON({"object": "list", "data": data, "has_more": len(found) > limit})


@router.get("/{file_id}", response_model=FileObject, summary="One upload")
async def one(request: Request, file_id: str) -> Response:
    """Its size, name and time."""
    return PlainJSON(services(request).files.get(owner_of(request), file_id).public())


@router.delete("/{file_id}", response_model=FileDeleted, summary="Delete an upload")
async def delete(request: Request, file_id: str) -> Response:
    """Answers that are being written are not disturbed."""
    services(request).files.delete(owner_of(request), file_id)
    return PlainJSON({"id": file_id, "object": "file", "deleted": True})


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
