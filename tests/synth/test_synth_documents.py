"""Invoices, receipts and notes: every answer stands on the page, and sums are sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from smolvlm.synth import documents
from smolvlm.synth.documents import draw_invoice, draw_note, draw_receipt
from smolvlm.synth.fonts import fonts
from smolvlm.synth.paper import LINE, Row, largest_size, print_page
from smolvlm.synth.sample import SPLITS, Split
from smolvlm.synth.world import SMALL, WIDE, World


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Row]]:
    """The rows of each page that is printed, which still is printed."""
    pages: list[Sequence[Row]] = []

    def spy(rng: np.random.Generator, rows: Sequence[Row], *args: Any, **kwargs: Any) -> Any:
        pages.append(rows)
        return print_page(rng, rows, *args, **kwargs)

    monkeypatch.setattr(documents, "print_page", spy)
    return pages


def _amount(text: str) -> Decimal | None:
    return Decimal(text[1:]) if text[:1] in ("$", "€", "£") else None


@pytest.mark.parametrize("draw", [draw_invoice, draw_receipt])
@pytest.mark.parametrize("world", [SMALL, WIDE], ids=lambda world: world.name)
def test_totals_are_the_sums_of_what_is_printed(draw: Any, world: World, printed: list[Sequence[Row]]) -> None:
    for seed in range(12):
        sample = draw(np.random.default_rng(seed), world, "train")
        amounts = [amount for row in printed[-1] if (amount := _amount(row.right)) is not None]
        answer = next(q.answer for q in sample.questions if q.task.endswith("_total"))
        assert _amount(answer) == amounts[-1] == sum(amounts[:-1])


@pytest.mark.parametrize("draw", [draw_invoice, draw_receipt, draw_note])
def test_every_answer_stands_on_the_page(draw: Any, printed: list[Sequence[Row]]) -> None:
    for seed in range(25):
        sample = draw(np.random.default_rng(seed), SMALL, "train")
        text = " ".join(part for row in printed[-1] for part in (row.left, row.right) if part)
        for question in sample.questions:
            where = text.lower() if question.task == "receipt_payment" else text
            assert question.answer in where, question


def test_the_price_asked_for_is_that_of_the_goods_named(printed: list[Sequence[Row]]) -> None:
    for seed in range(15):
        sample = draw_invoice(np.random.default_rng(seed), SMALL, "train")
        prices = {row.left.lower(): row.right for row in printed[-1] if row.right}
        question = next(q for q in sample.questions if q.task == "invoice_price")
        named = [goods for goods in prices if f" {goods} " in question.text.replace("?", " ")]
        assert [prices[goods] for goods in named] == [question.answer]


def test_what_is_printed_fits_the_page() -> None:
    rows = [Row("A long company name", centred=True, scale=1.2), Row("Total", "$1234.50"), Row("x" * 20, "y" * 6)]
    for name in fonts("train") + fonts("test"):
        size = largest_size(rows, name, (300, 200))
        assert LINE * size * sum(row.scale for row in rows) <= 200.01
        assert size > 8


def test_another_amount_changes_only_its_own_line() -> None:
    """Two pages that differ in one digit differ in pixels there, and nowhere else: rows do not run into each other."""
    pages = []
    for total in ("$31.50", "$31.60"):
        rows = [Row("Paper", "$10.00"), Row("Total", total), Row("Thank you")]
        pages.append(np.asarray(print_page(np.random.default_rng(3), rows, 200, 120, "train"), dtype=int))
    changed = np.argwhere((pages[0] != pages[1]).any(axis=2))
    assert len(changed) > 10
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
    assert bottom - top < 40
    assert left > 100, "the amount stands on the right"
    assert right < 200


@pytest.mark.parametrize("split", SPLITS)
def test_letters_are_large_enough_to_read(split: Split) -> None:
    """The smallest text: at least 9 pixels of font size in pictures of 320 pixels."""
    seen: list[float] = []
    original = largest_size

    def spy(rows: Sequence[Row], font_name: str, room: tuple[float, float]) -> float:
        seen.append(original(rows, font_name, room) * min(row.scale for row in rows if row.left))
        return original(rows, font_name, room)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smolvlm.synth.paper.largest_size", spy)
        for seed in range(12):
            for draw in (draw_invoice, draw_receipt):
                draw(np.random.default_rng(seed), replace(SMALL, side_px=160), split)
    print(f"{split}: smallest font {0.8 * min(seen):.1f} px")
    assert 0.8 * min(seen) >= 9


def test_documents_are_drawn_at_twice_the_side() -> None:
    world = replace(SMALL, side_px=160)
    assert draw_invoice(np.random.default_rng(0), world, "train").frames[0].shape == (320, 320, 3)
    assert draw_receipt(np.random.default_rng(0), world, "train").frames[0].shape == (320, 320, 3)
    assert draw_note(np.random.default_rng(0), world, "train").frames[0].shape == (160, 160, 3)
