"""The application: routes, errors in OpenAI's format, and the gatekeeper around them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from smolvlm import __version__
from smolvlm.errors import SmolVLMError
from smolvlm.serve.api import routes_basic, routes_chat, routes_files, routes_responses
from smolvlm.serve.api.bodies import BodyBudget
from smolvlm.serve.api.cors import Cors
from smolvlm.serve.api.files import FileStore
from smolvlm.serve.api.gatekeeper import Gatekeeper
from smolvlm.serve.api.keys import KeyRing
from smolvlm.serve.api.quotas import Quotas
from smolvlm.serve.api.request_errors import invalid_request
from smolvlm.serve.api.services import Services, dialect_of, services
from smolvlm.serve.api.sse import PlainJSON
from smolvlm.serve.api.wrong_addresses import no_such_address, wrong_method
from smolvlm.serve.config import ServeConfig
from smolvlm.serve.dialects import DIALECTS
from smolvlm.serve.engine.backend import Backend
from smolvlm.serve.errors import INVALID, ServeError, as_serve_error
from smolvlm.serve.metrics import Metrics
from smolvlm.vlm import SmolVLM

logger = logging.getLogger(__name__)

_THREADS = 32
_CODES = {404: "not_found", 405: "method_not_allowed"}


class ErrorFields(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """How every error looks."""

    error: ErrorFields


def create_app(model: SmolVLM, config: ServeConfig) -> tuple[ASGIApp, Services]:
    """The ASGI application that serves `model`, and its parts. Its lifespan starts, warms up and ends them.

    Raises ParamsError for a file of keys that cannot be read.
    """
    keys = KeyRing(Path(config.keys_file)) if config.keys_file else None
    metrics = Metrics()
    quotas = Quotas(config.key_rate, config.key_concurrency)
    backend = Backend(model, config, metrics)
    files = FileStore(config.files_folder, config.max_files_bytes, 3600 * config.file_hours, share=min(1.0, config.key_files_share))
    found = Services(config, backend, files, metrics, quotas, keys, BodyBudget(config.max_bodies_bytes, config.max_body_bytes))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async def warm_up() -> None:
            try:
                await asyncio.to_thread(app.openapi)  # takes a second, once
                await backend.start()
            except Exception as error:
                logger.exception("the model could not be warmed up")
                found.failed = error

        # Beside the event loop run short pieces of work. Python's default of four more threads than cores lets one owner fill it.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="smolvlm-beside"))
        warming = asyncio.create_task(warm_up())  # /health and /ready answer from the beginning
        try:
            yield
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)
            await backend.close()
            files.close()

    refusals = {status: {"model": ErrorBody} for status in (400, 401, 403, 404, 408, 413, 415, 421, 429, 500, 503)}
    app = FastAPI(
        title="smolvlm",
        version=__version__,
        lifespan=lifespan,
        responses=refusals,  # type: ignore[arg-type]
        description=f"OpenAI-compatible API of {backend.name}.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = found
    for router in (routes_basic.router, routes_chat.router, routes_responses.router, routes_files.router):
        app.include_router(router)
    app.add_exception_handler(SmolVLMError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _ours)  # a fault of ours: uvicorn logs it
    make_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        """FastAPI promises 422 for what is invalid; here it is 400, as it is with OpenAI. And it does not know the model."""
        document = make_openapi()
        for body in ("ChatRequest", "ResponsesRequest"):
            document["components"]["schemas"][body]["properties"]["model"]["enum"] = [backend.name]
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    return Cors(Gatekeeper(app, found), config.cors_origin), found


def _reply(error: ServeError) -> Response:
    return PlainJSON(error.body(), error.status, error.headers)


async def _ours(request: Request, error: Exception) -> Response:
    return _reply(as_serve_error(error, dialect_of(request)))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = services(request)
    try:
        refusal = invalid_request(error.errors(), DIALECTS.get(request.scope["route"].path), found.backend.name)
    except ServeError as better:
        refusal = better
    return _reply(refusal)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, path = _CODES.get(error.status_code), request.url.path
    if error.status_code == 404:
        text = no_such_address(path, [known for known in request.app.openapi()["paths"] if "{" not in known])
    elif error.status_code == 405:
        route = getattr(request.scope.get("route"), "path", path)
        text = wrong_method(request.method, path, request.app.openapi()["paths"].get(route, {}))
    else:
        text = f"{str(error.detail).rstrip('.')}."
    kind = INVALID if error.status_code < 500 else "server_error"
    return _reply(ServeError(error.status_code, text, code=code, kind=kind, headers=dict(error.headers or {})))
