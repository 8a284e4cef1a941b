"""`/`, `/docs`, `/v1/models`, `/health`, `/ready` and `/metrics`."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from smolvlm import __version__
from smolvlm.serve.api.docs_page import HEADERS, Pages
from smolvlm.serve.api.services import Services, services
from smolvlm.serve.api.sse import PlainJSON
from smolvlm.serve.errors import unavailable

router = APIRouter()
_PAGES = Pages()
_ENDPOINTS = ["/v1/chat/completions", "/v1/responses", "/v1/files", "/v1/models", "/health", "/ready", "/metrics", "/docs"]


@router.get("/", tags=["operation"], summary="What this is", response_model=None)
async def front(request: Request) -> Response:
    """A page for a browser, JSON for programs."""
    found = services(request)
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_PAGES.front(_ENDPOINTS, **_facts(request)), headers=HEADERS)
    return PlainJSON(
        {
            "name": "smolvlm",
            "version": __version__,
            "model": found.backend.name,
            "docs": "/docs",
            "keys": found.keys is not None,
            "endpoints": _ENDPOINTS,
        }
    )


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The API's page."""
    page = await asyncio.to_thread(lambda: _PAGES.docs(request.app.openapi(), **_facts(request)))
    return HTMLResponse(page, headers=HEADERS)


def _facts(request: Request) -> dict[str, Any]:
    found = services(request)
    return {
        "model": found.backend.name,
        "version": __version__,
        "keys": found.keys is not None,
        "address": f"{request.url.scheme}://{request.url.netloc}",
    }


@router.get("/v1/models", tags=["models"], summary="The model that is served")
async def models(request: Request) -> Response:
    """A list of one."""
    return PlainJSON({"object": "list", "data": [_model(services(request))]})


@router.get("/v1/models/{model_id:path}", tags=["models"], summary="One model")
async def model(request: Request, model_id: str) -> Response:
    """404 for any other name."""
    found = services(request)
    found.require_model(model_id)
    return PlainJSON(_model(found))


@router.get("/health", tags=["operation"], summary="Whether the process lives")
async def health(request: Request) -> Response:
    """503 when the engine's thread has ended."""
    found = services(request)
    if found.backend.ready and not found.backend.scheduler.alive:
        raise unavailable("the engine's thread has ended; restart the server.", "engine_stopped")
    return PlainJSON({"status": "ok"})


@router.get("/ready", tags=["operation"], summary="Whether requests should be sent here")
async def ready(request: Request) -> Response:
    """503 while the model warms up and while the server is ending."""
    found = services(request)
    if found.draining:
        raise unavailable("the server is shutting down.", "shutting_down")
    if not found.backend.ready:
        raise unavailable("the model is warming up.", "warming_up", 1)
    return PlainJSON({"status": "ready", "model": found.backend.name})


@router.get("/metrics", tags=["operation"], summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counters, gauges and histograms of this process."""
    found = services(request).metrics
    return Response(found.render(), media_type=found.content_type)


def _model(found: Services) -> dict[str, Any]:
    engine = found.backend.model.engine
    return {
        "id": found.backend.name,
        "object": "model",
        "created": found.started_at,
        "owned_by": "smolvlm",
        "context_length": found.backend.context,
        "engine": engine.name,
        "dtype": engine.dtype,
    }
