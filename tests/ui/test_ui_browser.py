"""The page in a real browser, before a real server: what a user does, and what a user sees."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import pytest

if TYPE_CHECKING:
    from helpers_ui import Browser
    from helpers_ui_server import Server

CLIP = Path(__file__).resolve().parents[2] / "examples" / "media" / "nano" / "clip.mp4"
SCENE, SIGN = CLIP.with_name("scene.png"), CLIP.with_name("sign.png")


@contextlib.contextmanager
def second_tab(browser: Browser, address: str) -> Iterator[None]:
    """Another tab of the same browser, closed at the end; then the first one is in front again."""
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.open(address)
    try:
        yield
    finally:
        browser.driver.close()
        browser.driver.switch_to.window(first)


def test_a_clip_is_asked_about_twice(browser: Browser, nano_page: Server) -> None:
    browser.open(nano_page.address)
    assert "small demonstration model" in browser.text("#note")
    assert "nano" in browser.text("#note b")
    browser.shot("empty")
    browser.ask("What happens in this video?", CLIP)
    assert browser.answered(1) == "the butterfly falls"
    assert "Tiles encoded" in browser.text("#status")
    times = browser.until(lambda: [e.text for e in browser.all("#frames .caption-label")], "frames with their times")
    assert times == [f"00:{second:02d}" for second in range(len(times))]
    assert len(times) > 1
    browser.ask("When does the butterfly fall?")
    browser.until(lambda: browser.answers()[1:] and "Nothing encoded again" in browser.text("#status"), "the cost")
    assert browser.answers()[1].strip() == "at 00:02"
    browser.shot("clip")
    browser.ask("What does the sign say?", SIGN, SCENE)
    browser.until(lambda: len(browser.answers()) == 3 and "Tiles encoded" in browser.text("#status"), "a third answer")
    browser.shot("several")
    browser.click("#new")
    browser.until(lambda: not browser.answers() and not any(e.is_displayed() for e in browser.all("#frames")), "a new start")


def test_an_example_answers(browser: Browser, nano_page: Server) -> None:
    browser.open(nano_page.address)
    browser.until(lambda: len(browser.all("#chat .example")) == 3, "three examples")
    browser.all("#chat .example")[2].click()
    assert browser.answered(1) == "MILK"


def test_a_broken_file_ends_in_a_sentence(browser: Browser, nano_page: Server, tmp_path: Path) -> None:
    broken, note = tmp_path / "holiday.mp4", tmp_path / "notes.txt"
    broken.write_bytes(CLIP.read_bytes()[:3000])
    note.write_text("not a picture")
    browser.open(nano_page.address)
    browser.ask("What is this?", broken)
    browser.until(lambda: browser.answers() and "⚠️ holiday.mp4" in browser.answers()[0], "a sentence")
    browser.ask("And this?", note)
    browser.until(lambda: browser.answers()[1:] and "⚠️ notes.txt is neither a picture" in browser.answers()[1], "a sentence")
    browser.shot("broken")
    browser.ask("What does the sign say?", SIGN)
    assert browser.answered(3) == "MILK"
    assert "Traceback" not in browser.driver.page_source


def test_typed_markup_stays_text(browser: Browser, nano_page: Server) -> None:
    typed = "<b>bold</b> **stars** <img src=x onerror='document.title=1'> <end_of_utterance> $$x^2$$ {{ 7*7 }}"
    browser.open(nano_page.address)
    browser.ask(typed)
    browser.answered(1)
    assert browser.text("#chat .user .message, #chat .message.user").strip() == typed
    assert browser.driver.title == "smolvlm"


def test_an_empty_question_asks_for_one(browser: Browser, nano_page: Server) -> None:
    browser.open(nano_page.address)
    browser.ask("   ")
    browser.until(lambda: "Type a question" in browser.text(".toast-body, .toast-wrap"), "a hint")
    assert browser.answers() == []


def test_the_language_changes(browser: Browser, nano_page: Server) -> None:
    browser.open(nano_page.address)
    assert browser.text("#new") == "New conversation"
    browser.click("#language label:last-of-type")
    browser.until(lambda: browser.text("#new") == "新对话", "the button in Chinese")
    assert "演示模型" in browser.text("#note")
    assert "温度" in browser.text("#settings")
    browser.ask("What does the sign say?", SIGN)
    assert browser.answered(1) == "MILK"
    assert "编码了" in browser.text("#status")
    browser.shot("chinese")


def test_the_browsers_language_is_the_first(browser: Browser, nano_page: Server) -> None:
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}})
    try:
        browser.open(nano_page.address)
        browser.until(lambda: browser.text("#new") == "新对话", "the page in Chinese")
    finally:
        browser.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})


@pytest.mark.slow
def test_dark_and_light(browser: Browser, nano_page: Server) -> None:
    def brightness() -> int:
        colour = browser.driver.execute_script("return getComputedStyle(document.querySelector('gradio-app')).backgroundColor")
        return sum(int(part) for part in colour.split("(")[1].rstrip(")").split(",")[:3])

    browser.open(nano_page.address)
    light = brightness()
    browser.click("#theme")
    browser.until(lambda: brightness() < light - 300, "a dark page")
    browser.ask("What does the sign say?", SIGN)
    browser.answered(1)
    browser.shot("dark")
    browser.click("#theme")
    browser.until(lambda: brightness() == light, "a light page")


@pytest.mark.slow
def test_the_stream_grows_is_stopped_and_the_next_question_is_answered(browser: Browser, endless_page: Server) -> None:
    browser.open(endless_page.address)
    assert "random weights" in browser.text("#note")
    assert browser.text("#note b") == "endless", "not the path of its folder"
    browser.set("#temperature", 1)
    browser.set("#max-tokens", 4096)
    browser.ask("What happens?", CLIP)
    lengths: list[int] = []

    def grown() -> bool:
        shown = browser.answers()[0] if browser.answers() else ""
        lengths.append(0 if shown.endswith("…") else len(shown))  # before the first word: what is being done
        return len(set(lengths)) > 6

    browser.until(grown, "an answer that grows")
    assert lengths == sorted(lengths)
    browser.shot("streaming")
    browser.click("#box .stop-button")
    browser.until(lambda: browser.text("#status").startswith("Stopped."), "the stop", within_s=3)
    written = browser.answers()[0]
    assert _idle(endless_page)
    assert browser.answers() == [written]
    browser.set("#max-tokens", 8)
    browser.ask("And then?")
    browser.until(lambda: "Cut after 8 tokens" in browser.text("#status"), "the next answer")
    assert "Nothing encoded again." in browser.text("#status")


@pytest.mark.slow
def test_two_tabs_take_turns_and_a_closed_one_makes_room(browser: Browser, endless_page: Server) -> None:
    browser.open(endless_page.address)
    first = browser.driver.current_window_handle
    browser.set("#max-tokens", 8)
    with second_tab(browser, endless_page.address):
        browser.set("#temperature", 1)
        browser.set("#max-tokens", 4096)
        browser.ask("Go on for long.")
        browser.until(lambda: browser.answers() and browser.answers()[0], "the second tab's answer")
        second = browser.driver.current_window_handle
        browser.driver.switch_to.window(first)
        browser.ask("Am I next?")
        browser.until(lambda: browser.answers() and "1 before you" in browser.answers()[0], "a place in the line")
        browser.shot("waiting")
        browser.driver.switch_to.window(second)
    browser.until(lambda: "8 tokens" in browser.text("#status"), "an answer after the other tab was closed", within_s=8)
    assert _idle(endless_page)


@pytest.mark.slow  # a server of its own
def test_the_simple_form(browser: Browser) -> None:
    from helpers_ui_server import Server

    server = Server("--model", "nano", "--simple")
    try:
        browser.open(server.address)
        browser.upload(CLIP, into="#upload")
        browser.until(lambda: "clip.mp4" in browser.text("#upload").replace("\n", ""), "the upload")
        browser.one("#question textarea").send_keys("What happens in this video?")
        browser.click("#ask")
        browser.until(lambda: browser.text("#status"), "the end of the answer")
        assert browser.one("#answer textarea").get_property("value").strip() == "the butterfly falls"
        assert browser.until(lambda: browser.all("#frames .caption-label"), "frames")
        browser.shot("simple")
        browser.until(lambda: len(browser.all("tr.tr-body")) == 3, "three examples")
        browser.all("tr.tr-body")[2].click()
        browser.until(lambda: "sign.png" in browser.text("#upload").replace("\n", ""), "the example's file")
        browser.click("#ask")
        browser.until(lambda: browser.one("#answer textarea").get_property("value").strip() == "MILK", "a second answer")
        browser.until(lambda: not browser.all("#frames"), "a picture has no frames")
    finally:
        code = server.close()
    assert code == 0


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(browser: Browser, nano_page: Server) -> None:
    """All that the browser asked for in all tests before this one, as it tells itself."""
    hosts = set()
    browser.open(nano_page.address)
    for entry in browser.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = urlsplit(message["params"]["request"]["url"])
            if url.scheme in ("http", "https", "ws", "wss"):
                hosts.add(url.hostname)
    assert hosts == {"127.0.0.1"}


@pytest.mark.slow  # a server of its own
def test_the_uploads_go_with_the_process(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers_ui_server import Server

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    server = Server("--model", "nano")
    browser.open(server.address)
    browser.upload(SIGN)
    browser.until(lambda: list(temporary.glob("*/*/sign.png")), "the upload")
    assert server.close() == 0
    assert list(temporary.iterdir()) == []


def _idle(server: Server) -> bool:
    """Whether the server's process hardly computes any more: a decoding one has a core of its own."""
    process = psutil.Process(server.process.pid)
    for _ in range(10):
        before = process.cpu_times()
        time.sleep(0.3)
        after = process.cpu_times()
        if after.user + after.system - before.user - before.system < 0.1:
            return True
    return False
