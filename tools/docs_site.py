"""The site of `make docs`: a hook of mkdocs.

It adds the pages at the root of the repository and turns links between files into links between pages. A link to a file
that is no page (source, an example) becomes the file's name in type: the site stands alone, without a repository.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

# A file outside docs/ -> its page.
PAGES = {
    "README.md": "index.md",
    "README.zh-CN.md": "index.zh-CN.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "src/smolvlm/models/nano/README.md": "nano.md",
}
MEDIA = "examples/media"  # pictures and clips of the pages, with their licenses

# What a browser fetches by itself; a link that somebody follows is no such thing.
FETCHED = re.compile(r"""<(?:script|img|iframe|source|video|link(?![^>]*canonical))\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^>]*>""")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / MEDIA / "nano").iterdir()):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def place_of(page: str) -> str:
    """The path in the repository of a page's file."""
    return next((source for source, name in PAGES.items() if name == page), f"docs/{page}")


def site_link(page: str, target: str, known: set[str]) -> str | None:
    """Where a link of `page` leads in the site, or None where the site has no such file."""
    path = normpath(str(PurePosixPath(place_of(page)).parent / target))
    path = PAGES.get(path, path.removeprefix("docs/"))
    return relpath(path, PurePosixPath(page).parent) if path in known else None


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  the names that mkdocs calls by
    known = {file.src_uri for file in files}

    def rewrite(match: re.Match[str]) -> str:
        mark, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = site_link(page.file.src_uri, target, known)
        if path is not None:
            return f"{mark}[{text}]({path}{anchor})"
        if mark or not (ROOT / PurePosixPath(place_of(page.file.src_uri)).parent / target).exists():
            return match[0]  # mkdocs reports it
        return f"{text} (`{normpath(str(PurePosixPath(place_of(page.file.src_uri)).parent / target))}`)"

    return LINK.sub(rewrite, markdown)


def on_post_page(output: str, page: Any, config: MkDocsConfig) -> str:  # noqa: ARG001
    if fetched := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} would fetch from elsewhere: {fetched[0]}")
    return output
