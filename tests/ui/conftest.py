"""What the tests of the page need from the machine, and pages and a browser that several tests share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from helpers_ui import Browser
    from helpers_ui_server import Server


def _programs() -> tuple[str, str]:
    """Chromium and its driver, or a skip that says what is missing."""
    pytest.importorskip("gradio", reason='no Gradio: pip install "smolvlm[ui]"')
    pytest.importorskip("selenium", reason="no Selenium: it is in the dependency group `test`")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its chromedriver: apt-get install chromium chromium-driver")
    return chromium, driver


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """For one file of tests: an open page and its server would take a tenth of a core each from all that follow."""
    chromium, driver = _programs()
    from helpers_ui import Browser

    made = Browser(chromium, driver, tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


@pytest.fixture(scope="module")
def nano_page(browser: Browser) -> Iterator[Server]:
    """The conversation with the model of the package."""
    from helpers_ui_server import Server

    server = Server("--model", "nano")
    yield server
    server.close()


@pytest.fixture(scope="module")
def endless_page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model of random weights, slow enough to be watched; at a temperature of 1 it never ends an answer by itself."""
    import dataclasses

    from helpers_ui_server import Server

    from smolvlm.checkpoint.random import TINY, write_random_checkpoint

    text = dataclasses.replace(TINY.text, hidden_size=512, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=8, head_dim=64)
    config = dataclasses.replace(TINY, text=text)
    folder = write_random_checkpoint(tmp_path_factory.mktemp("endless") / "endless", config, "bfloat16")
    server = Server("--model", folder)
    yield server
    server.close()
