"""A real browser before the page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

WAIT_S = 20.0

Found = TypeVar("Found")


class Browser:
    """The page as a user sees it. Elements are looked up anew each time: Gradio draws them again when it likes."""

    def __init__(self, chromium: str, driver: str, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "disable-dev-shm-usage",
            "window-size=1280,900",
            "lang=en",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def open(self, address: str) -> None:
        self.driver.get(address)
        self.until(lambda: self.text("#brand h1") == "smolvlm")

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> Any:
        return self.until(lambda: next(iter(self.all(css)), None), f"no {css}")

    def text(self, css: str) -> str:
        """The text of the last element that fits, or nothing."""
        found = self.all(css)
        return str(found[-1].text) if found else ""

    def until(self, condition: Callable[[], Found], what: str = "", within_s: float = WAIT_S) -> Found:
        """Wait until `condition()` is true, and give what it gave."""
        limit = time.monotonic() + within_s
        while True:
            try:
                if found := condition():
                    return found
            except StaleElementReferenceException:
                pass
            assert time.monotonic() < limit, f"{what or condition} after {within_s} s; the chat: {self.text('#chat')!r}"
            time.sleep(0.02)

    def click(self, css: str) -> None:
        self.until(lambda: next((e for e in self.all(css) if e.is_displayed()), None), f"no {css} to click").click()

    def upload(self, *files: Path, into: str = "#box") -> None:
        field = self.one(f"{into} input[type=file]")
        self.driver.execute_script("arguments[0].value = ''", field)  # the driver adds to what was chosen before
        field.send_keys("\n".join(map(str, files)))

    def ask(self, question: str, *files: Path) -> None:
        """Type a question into the chat, with files, and send it."""
        if files:
            self.upload(*files)
            self.until(lambda: len(self.all("#box .thumbnail-item")) == len(files), "the uploads are shown")
        box = self.one("#box textarea")
        box.send_keys(question, Keys.ENTER)

    def answers(self) -> list[str]:
        return [e.text for e in self.all("#chat .bot .message, #chat .message.bot")]

    def answered(self, count: int) -> str:
        """Wait for the end of answer number `count` (from 1); its text."""
        self.until(lambda: len(self.answers()) == count and self.text("#status"), f"answer {count}")
        return self.answers()[-1].strip()

    def set(self, css: str, value: object) -> None:
        """Type a number into a control."""
        field = self.one(f"{css} input[type=number]")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value), Keys.TAB)

    def shot(self, name: str) -> None:
        """Keep a picture of the page where the variable SMOLVLM_UI_SHOTS names a folder."""
        if folder := os.environ.get("SMOLVLM_UI_SHOTS"):
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))
