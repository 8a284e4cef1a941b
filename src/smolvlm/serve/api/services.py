"""What the routes share: made once by `app.create_app`, found on the request."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from smolvlm.media.sandbox.limits import StoredFile
from smolvlm.serve.api.bodies import BodyBudget
from smolvlm.serve.api.files import FileStore
from smolvlm.serve.api.keys import KeyOwner, KeyRing
from smolvlm.serve.api.loop_share import LoopShare
from smolvlm.serve.api.quotas import Quotas
from smolvlm.serve.config import ServeConfig
from smolvlm.serve.dialects import CHAT, Dialect
from smolvlm.serve.engine.backend import Asked, Backend
from smolvlm.serve.errors import ServeError
from smolvlm.serve.metrics import Metrics


@dataclass(eq=False)
class Services:
    """The parts of one server."""

    config: ServeConfig
    backend: Backend
    files: FileStore
    metrics: Metrics
    quotas: Quotas
    keys: KeyRing | None
    bodies: BodyBudget
    loop: LoopShare = field(default_factory=LoopShare)
    arriving: set[asyncio.Future[Any]] = field(default_factory=set)  # pieces of bodies that are waited for
    started_at: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False
    in_flight: int = 0
    failed: Exception | None = None  # why the model could not be warmed up

    def require_model(self, name: str) -> None:
        """Raises ServeError 404, as OpenAI does, for any model but the one that is served."""
        if name != self.backend.name:
            raise ServeError(
                404,
                f"The model {name[:100]!r} does not exist here; this server has {self.backend.name!r}.",
                code="model_not_found",
                param="model",
            )

    async def find_file(self, owner: str, file_id: str) -> tuple[StoredFile, str]:
        """An upload of `owner`, and whether it is an "image" or a "video"."""
        stored = self.files.open(owner, file_id)
        return stored, await self.backend.gate.kind(stored, owner)


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def speak(request: Request, dialect: Dialect) -> None:
    """From now on messages about this request use these words."""
    request.scope["smolvlm.dialect"] = dialect


def dialect_of(request: Request) -> Dialect:
    """The words that the client knows."""
    given: Dialect = request.scope.get("smolvlm.dialect", CHAT)
    return given


def owner_of(request: Request) -> str:
    """Who asks: the name of the key, or the address where no keys are used. Set by the gatekeeper."""
    key: KeyOwner = request.scope["smolvlm.owner"]
    return key.name


def note_usage(request: Request, asked: Asked, completion_tokens: int) -> None:
    """Leave numbers for the request's line in the log."""
    facts: dict[str, Any] = request.scope["smolvlm.facts"]
    started = asked.started
    facts |= {"prompt_tokens": asked.prompt_tokens, "completion_tokens": completion_tokens, "media": asked.media}
    if started is not None:
        facts |= {
            "cached_tokens": started.cached_tokens,
            "tiles_encoded": started.encoded_tiles,
            "queued_ms": round(1000 * started.queued_s, 1),
        }
