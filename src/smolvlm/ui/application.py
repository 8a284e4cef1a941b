"""The page as an ASGI application, and the server that runs it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import cast

import gradio as gr
import uvicorn
from fastapi import FastAPI

from smolvlm.listening import Callers
from smolvlm.ui.chat_page import chat_page
from smolvlm.ui.gate import App, Gate
from smolvlm.ui.look import CSS, theme
from smolvlm.ui.page import Page
from smolvlm.ui.simple_page import simple_page

_LAST_WORDS_S = 1  # for open connections, when the program ends


def application(page: Page, host: str, port: int) -> App:
    """The page, without Gradio's footer, API page, run history, sharing and telemetry."""
    blocks = simple_page(page) if page.config.simple else chat_page(page)
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        "/",
        host,
        port,
        footer_links=[],
        run_history=False,
        max_file_size=page.config.max_upload_mb * 10**6,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css=CSS,
        show_error=False,
    )
    # Only of a page that "has launched" does Gradio check that a file named in a request was uploaded; mounting one does not
    # set it, and any file that this process can read could be asked for (6.31).
    blocks.has_launched = True
    return Gate(cast(App, app), Callers(page.config.host, page.config.allowed_hosts))


class PageServer(uvicorn.Server):
    """Says when it listens, and ends without raising the signal again: the uploads are deleted on the way out."""

    def __init__(self, app: App, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app, lifespan="on", log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_LAST_WORDS_S
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # open tabs are cut off, which is no error
        self.force_exit = self.should_exit  # a second signal hurries
        self.should_exit = True
