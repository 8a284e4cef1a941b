"""The search page in a real browser, and the VLC extension: in both Luas against a stub of VLC's names, and in VLC itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers_videos import Programme
from smolvlm import SmolVLM
from smolvlm.apps.local_server import LocalServer
from smolvlm.apps.videos import vlc
from smolvlm.apps.videos.serving import VideoPages
from smolvlm.errors import SourceError

# VLC's names as the extension uses them; what it shows is printed.
STUB = r"""
local tsv = arg[2]
local rows, shown, selected = {}, {}, {}
local function widget(text) return {
  get_text = function() return text end, set_text = function(_, t) print("label", t) end,
  clear = function() rows = {} end, add_value = function(_, t, i) rows[i] = t; print("row", i, t) end,
  get_selection = function() return { [tonumber(arg[4] or 1)] = "x" } end } end
vlc = {
  dialog = function() return {
    add_text_input = function() return widget(arg[3]) end, add_button = function() end, add_list = function() return widget() end,
    add_label = function() return widget() end, show = function() end, update = function() end, delete = function() end } end,
  stream = function(address) print("asked", address)
    if tsv == "none" then return nil end
    local file = io.open(tsv); return { readline = function() return file:read("*l") end } end,
  playlist = { add = function(l) print("added", l[1].path, l[1].options[1]) end,
    enqueue = function(l) print("queued", #l, l[1].options[2]) end },
  object = { input = function() return "the input" end },
  var = { set = function(_, name, value) print("set", name, string.format("%d", value)) end },
  deactivate = function() end,
}
local open = { uri = function() return "file:///a%20b.mp4" end }
if arg[5] == "4" then
  vlc.player = { item = function() return open end, seek_by_time_absolute = function(t) print("seek", string.format("%d", t)) end }
else
  vlc.input = { item = function() return open end }
end
dofile(arg[1])
print("title", descriptor().title)
activate(); search(); jump(); queue_all(); deactivate()
"""
TSV = "12.000\t17.000\tfile:///a%20b.mp4\there\tthe cat falls\n33.500\t36.000\tfile:///other.mp4\tother\tthe dog falls\n"


@pytest.fixture
def server(programme: Programme, nano: SmolVLM) -> Iterator[LocalServer]:
    server = LocalServer(VideoPages(nano, programme.library).routes())
    server.start()
    yield server
    server.close()


def get(server: LocalServer, path: str) -> bytes:
    with urllib.request.urlopen(server.url + path, timeout=60) as answer:
        return answer.read()


def test_the_server_finds_shows_and_lists(server: LocalServer, programme: Programme) -> None:
    found = json.loads(get(server, "search?q=the%20cat%20falls"))
    hit = found["hits"][0]
    assert hit["caption"] == "the cat falls"
    assert get(server, f"frame.jpg?id={hit['id']}").startswith(b"\xff\xd8")
    assert len(get(server, f"video?id={hit['id']}")) == programme.path.stat().st_size
    assert programme.path.as_uri().encode() in get(server, f"playlist.xspf?ids={hit['id']}")
    open_file = urllib.request.quote(programme.path.as_uri(), safe="")
    start, end, uri, where, title = get(server, f"search.tsv?q=the%20cat%20falls&open={open_file}").decode().splitlines()[0].split("\t")
    assert (float(start), uri, where) == (hit["start_s"], programme.path.as_uri(), "here")
    assert float(end) > float(start)
    assert title.startswith("the cat falls")
    assert get(server, "search.tsv?q=the%20hammer%20falls").decode().startswith("# nothing matches; the nearest is: ")
    assert b"</html>" in get(server, "")


@pytest.mark.parametrize("lua", ["lua5.1", "lua5.2"])
@pytest.mark.parametrize("names", ["3", "4"])
def test_the_extension_in_both_luas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lua: str, names: str) -> None:
    """Against a stub: that VLC 4 really has these names was not seen."""
    if shutil.which(lua) is None:
        pytest.skip(f"needs {lua}: apt-get install {lua}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    extension = vlc.install(9321)
    (tmp_path / "stub.lua").write_text(STUB)
    (tmp_path / "rows.tsv").write_text(TSV)

    def run(rows: str, text: str, choice: int) -> list[str]:
        command = [lua, str(tmp_path / "stub.lua"), str(extension), rows, text, str(choice), names]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    lines = run(str(tmp_path / "rows.tsv"), 'a cat & "dog" 猫', 1)
    said = "\n".join(lines)
    assert (
        f"asked\thttp://127.0.0.1:9321/{vlc.link().token}/search.tsv?q=a%20cat%20%26%20%22dog%22%20%E7%8C%AB&open=file%3A%2F%2F%2Fa%2520b.mp4"
        in lines
    )
    assert "row\t1\t0:12  the cat falls" in lines
    assert ("seek\t12000000" if names == "4" else "set\ttime\t12000000") in lines
    assert "queued\t2\tstop-time=17.000" in lines, said
    assert "added\tfile:///other.mp4\tstart-time=33.500" in run(str(tmp_path / "rows.tsv"), "a dog", 2)
    assert any("run `smolvlm vlc serve`" in line for line in run("none", "a cat", 1))


def test_install_and_uninstall_touch_nothing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    path = vlc.install()
    assert path.stat().st_mode & 0o077 == 0  # it holds the token
    assert vlc.link().url in path.read_text()
    assert vlc.install() == path  # again, over our own
    assert vlc.uninstall() == path
    assert vlc.uninstall() is None
    path.write_text("-- somebody else's\n")
    for call in (vlc.install, vlc.uninstall):
        with pytest.raises(SourceError, match="not ours"):
            call()
    assert path.read_text() == "-- somebody else's\n"


@pytest.mark.slow
def test_the_page_in_a_browser(server: LocalServer, programme: Programme, tmp_path: Path) -> None:
    """Typed query, cards, a click that seeks, a miss; in both languages, and as narrow as a phone."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("needs chromedriver: tests/install_system_packages")
    for language, nothing in (("en", "Nothing matches."), ("zh-CN", "没有匹配的内容。")):
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--mute-audio", f"--lang={language}", "--window-size=390,800"):
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        browser = webdriver.Chrome(options=options, service=Service(driver))
        try:
            wait = WebDriverWait(browser, 60)
            browser.get(server.url)
            field = browser.find_element(By.ID, "q")
            field.send_keys("the cat falls\n")
            card = wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#hits button"))[0]
            assert "the cat falls" in card.text
            wait.until(lambda b: b.execute_script("return document.querySelector('#hits img').naturalWidth") > 0)
            assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            card.click()
            start_s = next(event.start_s for event in programme.events if event.text == "the cat falls")
            wait.until(lambda b, at=start_s: b.execute_script("return document.getElementById('player').currentTime") >= at - 0.05)
            field.clear()
            field.send_keys("the hammer falls\n")
            wait.until(lambda b, said=nothing: said in b.find_element(By.ID, "said").text)
            errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE" and "favicon" not in entry["message"]]
            assert not errors, errors
        finally:
            browser.quit()
