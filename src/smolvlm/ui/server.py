"""The process of the page: its port, its temporary folder, and what Gradio is told before it is imported."""

from __future__ import annotations

import os
from collections.abc import Callable

from smolvlm.errors import MissingExtraError
from smolvlm.listening import listen
from smolvlm.temporary import OwnFolder
from smolvlm.ui.config import PageConfig
from smolvlm.ui.examples import copied
from smolvlm.ui.line import EngineLine
from smolvlm.ui.tabs import Tabs
from smolvlm.vlm import SmolVLM


def run_page(model: SmolVLM, config: PageConfig, ready: Callable[[str], None]) -> None:
    """Serve the page until SIGTERM or Ctrl-C. `ready(address)` is called once it listens.

    Uploads live in a folder that goes with the process. Raises MissingExtraError without Gradio, ParamsError for an
    address that cannot be had.
    """
    with listen(config.host, config.port) as listening, OwnFolder("smolvlm-ui-") as folder:
        uploads = folder.path
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        require_gradio()
        from smolvlm.ui.application import PageServer, application
        from smolvlm.ui.page import Page

        host, port = listening.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        line = EngineLine()
        page = Page(model, config, uploads, copied(uploads / "examples"), Tabs(model, line), line)
        try:
            PageServer(application(page, host, port), lambda: ready(address)).run(sockets=[listening])
        finally:
            line.close()


def require_gradio() -> None:
    """Raise MissingExtraError unless Gradio can be found; nothing is imported."""
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise MissingExtraError("smolvlm ui", "ui")
