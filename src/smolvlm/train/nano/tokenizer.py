"""nano's vocabulary: the official kind of tokenizer, trained on what the synthetic worlds say.

Most words of the questions and answers become one token each; capitals and digits stay single, so that reading is
spelling. Anything else can still be written, in smaller pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

from smolvlm.checkpoint.random_tokenizer import byte_level_bpe, with_added_specials
from smolvlm.families import SMOLVLM
from smolvlm.synth.generate import GENERATORS, generate
from smolvlm.synth.words import plural
from smolvlm.synth.world import WIDE
from smolvlm.synth.writing import LETTERS

VOCAB = 1536
_ADDED = 40  # the official added tokens without the reserved ones, which fill the vocabulary up
_MIN_RESERVED = 8
_SAMPLES = 120  # of each generator: every template occurs

# Words that people ask with, and that later data will need, beyond those of the generators.
_COMMON = """
the a an is are was were be it this that these those there here what which who where when why how many much do does did can could
will would should you i we they he she his her their my your me us them not no yes and or but if then than of in on at by for from
to with without into over under between behind before after near next first last second third one two three four five six seven eight
nine ten zero all some any other same different new old big small large little long short high low full empty open closed left right
top bottom centre center middle above below inside outside front back picture image photo video clip frame text word number letter sign
colour color shape object thing people person man woman child animal pet door window room table floor wall street road sky ground water
describe answer question briefly name list count read say says show shows see look looks like make makes hold holds wear wears stand
stands sit sits walk walks run runs fall falls move moves appear appears disappear disappears change changes happen happens nothing
invoice receipt total amount date due tax item price paid company customer order part parts defect scratch dent missing hole broken
damaged good bad ok pass fail chart bar value highest lowest most least more less year month day time hour minute true false unknown
""".split()


def build_tokenizer() -> str:
    """The text of nano's `tokenizer.json`, the same at every call."""
    base = byte_level_bpe(_corpus(), VOCAB - _ADDED - _MIN_RESERVED)
    return with_added_specials(base, reserved=VOCAB - _ADDED - base.get_vocab_size())


def _corpus() -> Iterator[str]:
    for _ in range(200):  # enough that each becomes one token
        yield "User:"
        yield "Assistant:"
        yield "System:"
        yield SMOLVLM.prompt.video_text((0.0, 1.0), 2.0, 0)
        yield "".join(f" {letter}" for letter in LETTERS)  # a space and a capital: how every word in capitals begins
    names = (*WIDE.objects, *WIDE.shapes, *WIDE.colours)
    for _ in range(20):
        yield "".join(f" {word}" for word in _COMMON)
        yield "".join(f" {name} {plural(name)}" for name in names)
    for name in GENERATORS:
        for index in range(_SAMPLES):
            for question in generate(name, "train", index, WIDE).questions:
                yield question.text
                if not question.task.startswith("reading"):  # random capitals would be merged into pairs
                    yield f" {question.answer}"
