"""Web pages of other origins: what their browsers are told before they may ask (CORS)."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from smolvlm.listening.callers import refused_page
from smolvlm.serve.api.sse import PlainJSON
from smolvlm.serve.errors import ServeError

_METHODS = ("GET", "POST", "DELETE")


class Cors(CORSMiddleware):
    """Around the gatekeeper: a preflight has no key, and refusals are for an allowed page to read too."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        """`origins`: `https://example.org` or `*`; without any, every preflight is refused in our words."""
        super().__init__(
            app,
            allow_origins=[origin.lower() for origin in origins],
            allow_methods=_METHODS,
            allow_headers=("*",),
            allow_private_network=True,  # to the pages of these origins alone
            expose_headers=("X-Request-Id", "Retry-After") if origins else (),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The library's answer, or a refusal in OpenAI's form that says how to allow the page."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        origin, method = request_headers["origin"], request_headers["access-control-request-method"]
        if self.is_allowed_origin(origin):
            error = ServeError(405, f"pages may send {', '.join(_METHODS)}, not {method[:20]}.", code="method_not_allowed")
        else:
            refusal = refused_page(origin)
            error = ServeError(refusal.status, refusal.sentence, code="origin_not_allowed")
        return PlainJSON(error.body(), error.status, {"Vary": "Origin"})
