"""The site of `make docs`: it builds in strict mode, shows both languages and the public names, and fetches nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, normpath

import pytest

import smolvlm

ROOT = Path(__file__).resolve().parents[1]


class Links(HTMLParser):
    """The addresses that a page leads to, and those that a browser fetches with it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.leads: set[str] = set()
        self.fetches: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get("src") or values.get("href")
        if address and not (tag == "link" and values.get("rel") in ("canonical", "alternate")):
            (self.leads if tag == "a" else self.fetches).add(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_reached_from_the_first_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    reached, ahead = set(), ["index.html"]
    while ahead:
        name = ahead.pop()
        if name in reached:
            continue
        reached.add(name)
        links = Links(site / name)
        assert not [address for address in links.fetches if re.match(r"(https?:)?//", address)], name
        leads = (a.split("#")[0] for a in links.leads if re.fullmatch(r"[\w./-]+\.html(#.*)?", a))
        ahead += [normpath(f"{dirname(name)}/{lead}".lstrip("/")) for lead in leads]
    pages = {path.relative_to(ROOT / "docs").as_posix().replace(".md", ".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages | {"index.html", "index.zh-CN.html", "contributing.html", "changelog.html"} <= reached


def test_the_reference_names_what_the_package_offers(site: Path) -> None:
    text = (site / "reference.html").read_text(encoding="utf-8")
    for name in set(smolvlm.__all__) - {"__version__"}:
        assert re.search(rf'id="smolvlm\.[\w.]*\b{name}"|<code>{name}</code>', text), name
    for verb in ("ask", "stream", "choose", "extract", "session"):
        assert f'id="smolvlm.vlm.SmolVLM.{verb}"' in text, verb
    assert "ready to answer" in text  # the text of load's docstring
