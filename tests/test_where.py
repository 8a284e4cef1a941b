"""The table "Where is what" of docs/architecture.md, and the files that docs/glossary.md names; the Makefile's tests of `make check`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTION = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Where is what")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (.+?) \| (`.+`) \|$", SECTION, flags=re.MULTILINE)
WORDS = "pixel shuffle, sampling rule, KV cache, quantize, scheduler, sampler, gemm, thread pool, online softmax, dequantize, prefix cache"


def test_the_table_has_the_words_of_the_field() -> None:
    listed = {word.split(" (")[0] for word, _ in ROWS}
    assert set(WORDS.split(", ")) <= listed


@pytest.mark.parametrize(("word", "files"), ROWS, ids=[word for word, _ in ROWS])
def test_a_word_is_in_its_file(word: str, files: str) -> None:
    """As `git grep -iE 'kv.?cache'` finds it: spelled apart, with a hyphen, an underscore or together."""
    pattern = re.compile(word.split(" (")[0].replace("-", " ").replace(" ", "[ _-]?"), re.IGNORECASE)
    for name in re.findall(r"`([^`]+)`", files):
        assert pattern.search((ROOT / name).read_text(encoding="utf-8")), f"{name} has no {word}"


def test_the_glossary_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", text):
        assert (ROOT / "src" / "smolvlm" / name).exists(), name


def test_make_check_names_tests_that_exist() -> None:
    listed = re.findall(r"tests/[\w/.]+", (ROOT / "Makefile").read_text(encoding="utf-8").partition("UNIT :=")[2].partition("\n\n")[0])
    assert len(listed) > 10
    assert [name for name in listed if not (ROOT / name).exists()] == []
