"""Small documents with exact fields: an invoice, a receipt, a note. All amounts are whole cents, and totals are sums.

Invoices and receipts are drawn at twice the world's side, as a model with picture tiles reads them; notes at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smolvlm.synth.finish import finish
from smolvlm.synth.paper import Row, print_page
from smolvlm.synth.questions import phrased
from smolvlm.synth.sample import Question, Sample, Split
from smolvlm.synth.world import World

SCALE = 2  # a document's side in sides of the world
_COMPANIES = (
    "Acme",
    "Nova",
    "Delta",
    "Orion",
    "Zenith",
    "Vertex",
    "Atlas",
    "Lumen",
    "Pixel",
    "Quartz",
    "Summit",
    "Harbor",
    "Maple",
    "Falcon",
    "Copper",
    "Ivory",
)
_FORMS = ("Ltd", "Inc", "GmbH", "Co", "LLC")
_GOODS = (
    "Cable",
    "Paper",
    "Chair",
    "Desk",
    "Lamp",
    "Screen",
    "Printer",
    "Toner",
    "Drill",
    "Paint",
    "Keyboard",
    "Router",
    "Battery",
    "Shelf",
    "Folder",
    "Camera",
)
_SHOPS = ("Corner Shop", "City Market", "Bean Cafe", "Green Grocer", "Book Barn", "Sun Bakery", "Star Deli", "Park Kiosk")
_FOOD = (
    "Coffee",
    "Tea",
    "Milk",
    "Bread",
    "Butter",
    "Yogurt",
    "Flour",
    "Rice",
    "Juice",
    "Soup",
    "Cake",
    "Water",
    "Pasta",
    "Cheese",
    "Honey",
    "Salad",
)
_PEOPLE = ("Anna", "Tom", "Lisa", "Ben", "Maria", "Paul", "Emma", "Max", "Nina", "Leo", "Sara", "Omar", "Kim", "Ravi")
_THINGS = ("milk", "bread", "paint", "tea", "soap", "rice", "tape", "salt", "wine", "paper", "cake", "soup")
_COUNTED = ("apples", "stamps", "eggs", "nails", "pens", "cards", "lemons", "bulbs", "bags", "towels")
_PLACES = ("school", "the bank", "the park", "work", "the zoo", "home", "the cafe", "the gym")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_TOTAL = ("What is the total of the {}?", "How much is the {} total?", "What is the total amount?", "What is the {} total?")
_NUMBER = ("What is the invoice number?", "Which number does the invoice have?", "Read the invoice number.")
_DATE = ("What is the date of the invoice?", "When was the invoice issued?", "What is the invoice date?")
_DUE = ("When is the invoice due?", "What is the due date?", "By which date must the invoice be paid?")
_COMPANY = ("Which company sent the invoice?", "Who issued the invoice?", "What is the name of the company?")
_PRICE = ("How much is the {}?", "What does the {} cost?", "What is the price of the {}?")
_SHOP = ("Which shop is the receipt from?", "What is the name of the shop?", "Where was this bought?")
_PAID = ("How was it paid, cash or card?", "Was this paid in cash or by card?", "What was the payment method?")
_NOTE = ("What does the note say?", "Read the note.", "What is written on the note?")


@dataclass(frozen=True)
class Purchase:
    """Goods with their prices in cents, in the order printed; `sign` stands before each amount."""

    goods: tuple[str, ...]
    cents: tuple[int, ...]
    tax_cents: int
    sign: str

    @property
    def total_cents(self) -> int:
        return sum(self.cents) + self.tax_cents

    def money(self, cents: int) -> str:
        """As in "$12.05"."""
        return f"{self.sign}{cents // 100}.{cents % 100:02d}"

    def rows(self) -> list[Row]:
        return [Row(name, self.money(cents)) for name, cents in zip(self.goods, self.cents, strict=True)]


def draw_invoice(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """An invoice: company, number, date, often a due date, two to four goods, sometimes tax, the total."""
    bought = _purchase(rng, _GOODS, world, with_tax=bool(rng.random() < 0.35))
    company = f"{rng.choice(_COMPANIES)} {rng.choice(_FORMS)}"
    number = str(int(rng.integers(10 ** (world.max_digits - 1), 10**world.max_digits)))
    year, day, style = int(rng.integers(2020, 2030)), int(rng.integers(0, 330)), int(rng.integers(3))
    date, due = _date(year, day, style), _date(year, day + int(rng.integers(7, 30)), style)
    fields = [
        Row(_one_of(rng, "Invoice No.", "Invoice number", "Number", "No."), number),
        Row(_one_of(rng, "Date", "Invoice date", "Issued"), date),
    ]
    has_due = bool(rng.random() < 0.5)
    if has_due:
        fields.append(Row(_one_of(rng, "Due", "Due date", "Pay by"), due))
    centred = bool(rng.random() < 0.4)
    head = [Row(company, centred=centred, scale=1.2), Row(_one_of(rng, "INVOICE", "Invoice"), centred=centred, scale=1.2)]
    if rng.random() < 0.3:
        head.reverse()
    if rng.random() < 0.5:
        fields[:2] = fields[1::-1]
    tail = _sum_rows(rng, bought, ("Total", "TOTAL", "Total due", "Amount due"))
    goods = bought.rows()
    rows = [*head, *fields, Row(scale=0.4), *goods, *tail]
    picked = int(rng.integers(len(bought.goods)))
    questions = [
        Question("invoice_total", phrased(rng, _TOTAL, "invoice"), bought.money(bought.total_cents)),
        Question("invoice_number", phrased(rng, _NUMBER), number),
        Question("invoice_date", phrased(rng, _DATE), date),
        Question("invoice_company", phrased(rng, _COMPANY), company),
        Question("invoice_price", phrased(rng, _PRICE, bought.goods[picked].lower()), bought.money(bought.cents[picked])),
    ]
    if has_due:
        questions.append(Question("invoice_due", phrased(rng, _DUE), due))
    side = SCALE * world.side_px
    page = print_page(rng, rows, side, side, split, paper_share=float(rng.uniform(0.9, 1.0)))
    return Sample("image", (finish(rng, page, strength=0.6),), tuple(questions))


def draw_receipt(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """A narrow receipt: shop, goods, total, cash or card."""
    bought = _purchase(rng, _FOOD, world, with_tax=bool(rng.random() < 0.25))
    shop = str(rng.choice(_SHOPS))
    paid = "cash" if rng.random() < 0.5 else "card"
    date = _date(int(rng.integers(2020, 2030)), int(rng.integers(0, 360)), int(rng.integers(3)))
    rows = [
        Row(shop, centred=True, scale=1.1),
        Row(date, centred=True, scale=0.9),
        Row(scale=0.3),
        *bought.rows(),
        *_sum_rows(rng, bought, ("TOTAL", "Total", "SUM")),
        Row(_one_of(rng, "Paid by {}", "Payment: {}", "{}").format(paid.upper() if rng.random() < 0.5 else paid), centred=True),
    ]
    picked = int(rng.integers(len(bought.goods)))
    questions = (
        Question("receipt_total", phrased(rng, _TOTAL, "receipt"), bought.money(bought.total_cents)),
        Question("receipt_shop", phrased(rng, _SHOP), shop),
        Question("receipt_price", phrased(rng, _PRICE, bought.goods[picked].lower()), bought.money(bought.cents[picked])),
        Question("receipt_payment", phrased(rng, _PAID), paid),
    )
    side = SCALE * world.side_px
    page = print_page(rng, rows, side, side, split, paper_share=float(rng.uniform(0.68, 0.85)))
    return Sample("image", (finish(rng, page, strength=0.6),), questions)


def draw_note(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """A note of two or three short lines; the answer is its words with single spaces."""
    hour = int(rng.integers(1, 13))
    when = f"at {hour}" if rng.random() < 0.5 else f"at {hour}:{int(rng.integers(1, 4)) * 15:02d}"
    person, place = str(rng.choice(_PEOPLE)), str(rng.choice(_PLACES))
    lines = (
        (f"{_one_of(rng, 'Call', 'Meet', 'Ask', 'Email')} {person}", when),
        (f"Buy {int(rng.integers(2, 10))}", str(rng.choice(_COUNTED))),
        (f"Meet {person}", when, f"at {place}"),
        (f"Bring {rng.choice(_THINGS)}", f"for {person}"),
        (f"Go to {place}", when),
    )[int(rng.integers(5))]
    centred = bool(rng.random() < 0.5)
    rows = [Row(line, centred=centred) for line in lines]
    page = print_page(rng, rows, world.side_px, world.side_px, split, paper_share=float(rng.uniform(0.85, 1.0)))
    return Sample("image", (finish(rng, page, strength=0.8),), (Question("note_text", phrased(rng, _NOTE), " ".join(lines)),))


def _purchase(rng: np.random.Generator, names: tuple[str, ...], world: World, *, with_tax: bool) -> Purchase:
    count = int(rng.integers(2, 4 if world.max_digits <= 3 else 5))
    goods = tuple(str(names[int(i)]) for i in rng.permutation(len(names))[:count])
    ceiling = 10 ** min(world.max_digits + 1, 5)  # cents: below 100.00 in the small world, 1000.00 in the wide one
    cents: list[int] = []
    while len(cents) < count:
        # Prices end in 0 or 5 cents and differ, so that no two questions about one page share an answer by chance.
        price = int(rng.integers(20, ceiling // 5)) * 5
        if price not in cents:
            cents.append(price)
    tax = round(sum(cents) * float(rng.choice((0.05, 0.1, 0.2)))) if with_tax else 0
    return Purchase(goods, tuple(cents), tax, str(rng.choice(("$", "$", "\u20ac", "\u00a3"))))


def _sum_rows(rng: np.random.Generator, bought: Purchase, labels: tuple[str, ...]) -> list[Row]:
    label = str(rng.choice(labels))
    total = Row(label, bought.money(bought.total_cents), rule=not bought.tax_cents)
    return [Row("Tax", bought.money(bought.tax_cents)), total] if bought.tax_cents else [total]


def _date(year: int, day: int, style: int) -> str:
    """Day 0 to 359 of a year of twelve 30-day months, as printed in one of three styles."""
    month, within = divmod(day, 30)
    within = min(within, 27)  # every month has 28 days
    if style == 0:
        return f"{year}-{month + 1:02d}-{within + 1:02d}"
    if style == 1:
        return f"{within + 1:02d}.{month + 1:02d}.{year}"
    return f"{within + 1} {_MONTHS[month]} {year}"


def _one_of(rng: np.random.Generator, *texts: str) -> str:
    return texts[int(rng.integers(len(texts)))]
