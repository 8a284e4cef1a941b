"""Answers that must be JSON of a schema: `llguidance` tells which tokens may come next, and the end always fits."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt

from smolvlm.errors import CheckpointError, EngineError, GrammarError, ParamsError, SchemaError
from smolvlm.generation.ending import EndingPlanner, JsonState, Memo
from smolvlm.generation.matching import BitArray, Effort, Matcher, first_line
from smolvlm.generation.schema import normalize_schema

BoolArray = npt.NDArray[np.bool_]

MAX_NUMBER_CHARS = 16  # a float64 has 15 to 17 digits; without an end a small model writes 0.3333 for ever
LONGEST_SHORTEST_ANSWER = 4096  # tokens; a schema whose shortest answer is longer is refused
# Masks and seconds of a thread: for the first plan of a schema, and for all later ones of an answer, which then ends by the
# plan that it has.
_FIRST_PLAN = 60_000, 0.8
_NEW_PLANS, _EFFORT_A_TOKEN = (6_000, 0.5), (60, 0.005)
_TRIALS, _TRIAL_TOKENS = 2, 24
_REMEMBERED_SCHEMAS = 16


class Grammar:
    """The state of one answer under a grammar. Make one for each answer; it ends up used.

    At any time it holds a plan: tokens that complete the document. A token is taken only while a plan fits into the
    tokens that are left, else the plan's next token is taken in its place. So the answer is complete within its budget.
    """

    def __init__(self, matcher: Matcher, shared: _Shared, plan: list[int]) -> None:
        self._matcher = matcher
        self._shared = shared
        self._plan = plan
        self._state = JsonState()
        self._memo: Memo = {}
        self._effort = Effort(*_NEW_PLANS)

    @property
    def is_complete(self) -> bool:
        """Whether the text so far is a whole document; it may still be continued, as 1 by 12."""
        return self._matcher.is_accepting

    @property
    def is_finished(self) -> bool:
        """Whether the document is complete and nothing more may come."""
        return self._matcher.is_stopped

    @property
    def tokens_to_complete(self) -> int:
        """Tokens of the planned ending."""
        return len(self._plan)

    @property
    def plan(self) -> tuple[int, ...]:
        """The planned ending: tokens that complete the document."""
        return tuple(self._plan)

    def require(self, budget: int) -> None:
        """Raises ParamsError when not even the shortest known answer fits into `budget` tokens."""
        if len(self._plan) > budget:
            raise ParamsError(
                f"max_new_tokens leaves {budget} tokens for the answer, but the shortest answer of this schema takes "
                f"{len(self._plan)}: raise max_new_tokens, shorten the prompt, or make the schema smaller."
            )

    def require_complete(self) -> None:
        """Raises GrammarError unless the text so far is a whole document, by the grammar and by JSON's own brackets."""
        if not (self._matcher.is_stopped or self._matcher.is_accepting) or self._state.in_string:
            raise GrammarError("The answer ended before its document was complete, a defect of smolvlm; please report it.")

    def allowed(self) -> BoolArray:
        """(vocab,) bool: the tokens that may come next; no special ones but, once complete, the stop tokens."""
        allowed = self._shared.as_bools(self._shared.planner.mask(self._matcher))
        number_chars = self._state.number_chars
        if number_chars:
            # No exponents: 1e999 is JSON too, and reads as infinity.
            ruled_out = self._shared.numeric if number_chars >= MAX_NUMBER_CHARS else self._shared.exponent
            without = allowed & ~ruled_out
            allowed = without if without.any() else allowed
        return allowed

    def apply(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A copy of `logits` (vocab,) with -inf for every token that may not come next."""
        return np.where(self.allowed(), logits, np.float32(-np.inf))

    def accept(self, token_id: int, tokens_left: int | None = None) -> int:
        """Take `token_id`, or the next token of the planned ending where the budget asks for it; the token taken.

        `tokens_left` counts this token too; None: no budget. Raises EngineError for a token that is not allowed.
        """
        after = self._matcher.copy()
        if not after.consume([token_id]):
            raise EngineError(f"Token {token_id} is not allowed by the grammar here; sample under Grammar.allowed().")
        limit = LONGEST_SHORTEST_ANSWER if tokens_left is None else tokens_left - 1
        state = self._state.after(self._shared.texts[token_id])
        plan = self._ending(after, state, [token_id], limit)
        if plan is None:
            assert self._plan, "an incomplete document has a plan"
            token_id, plan = self._plan[0], self._plan[1:]
            after = self._matcher
            after.consume([token_id])
            state = self._state.after(self._shared.texts[token_id])
        self._matcher, self._state, self._plan = after, state, plan
        return token_id

    def forced(self, tokens_left: int) -> list[int]:
        """Take and return the tokens whose text is the only one possible now (keys, punctuation); often none."""
        if self.is_finished:
            return []
        forced = self._matcher.forced()
        if not forced or len(forced) > tokens_left or any(not self._shared.is_text(i) for i in forced):
            return []
        after = self._matcher.copy()
        if not after.consume(forced):
            return []
        state = self._state.after(b"".join(self._shared.texts[i] for i in forced))
        plan = self._ending(after, state, forced, tokens_left - len(forced))
        if plan is None:
            return []
        self._matcher, self._state, self._plan = after, state, plan
        return forced

    def _ending(self, matcher: Matcher, state: JsonState, taken: list[int], limit: int) -> list[int] | None:
        """A plan of at most `limit` tokens after `taken`: what is left of the old one if it holds, else a new one."""
        if matcher.is_stopped:
            return []
        planner = self._shared.planner
        # A token that was not planned stands before the plan (more text) or in place of its first one (another digit).
        after, whole = self._plan[len(taken) :], self._plan
        for rest in (after,) if whole[: len(taken)] == taken else (whole, after):
            if len(rest) <= limit and planner.completes(matcher, rest):
                return rest
        self._effort.add(*_EFFORT_A_TOKEN)
        try:
            return planner.plan(matcher, state, limit, self._plan, self._memo, self._effort)
        except GrammarError:  # the document need not go there: the old plan leads to an end
            return None


class _Shared:
    """What all grammars of one tokenizer share: token texts, and which tokens may ever be chosen."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, vocab_size: int, eos_ids: list[int], special: set[int]) -> None:
        self.vocab_size = vocab_size
        kept = np.ones(32 * ((vocab_size + 31) // 32), dtype=np.uint8)
        kept[vocab_size:] = 0
        kept[[i for i in special if i not in eos_ids]] = 0
        self.texts = [b"" if i in special else tokenizer.decode_bytes([i]) for i in range(vocab_size)]
        self._is_text = [bool(text) for text in self.texts]
        selectable: BitArray = np.packbits(kept, bitorder="little").view(np.int32)
        self.planner = EndingPlanner(self.texts, selectable, eos_ids[0])
        numeric = [text if text and not text.strip(b"0123456789.eE+-") else b"" for text in self.texts]
        self.numeric: BoolArray = np.array([bool(text) for text in numeric])
        self.exponent: BoolArray = np.array([b"e" in text or b"E" in text for text in numeric])

    def is_text(self, token_id: int) -> bool:
        """Whether the token is an ordinary one."""
        return self._is_text[token_id]

    def as_bools(self, bits: BitArray) -> BoolArray:
        return np.unpackbits(bits.view(np.uint8), bitorder="little")[: self.vocab_size].view(np.bool_)


class GrammarCompiler:
    """Compiles grammars for one tokenizer; its tables are built at the first use (about 0.3 s).

    `tokenizer_json` is the text of `tokenizer.json`, `vocab_size` the width of the logits, `eos_ids` every stop token.
    """

    def __init__(self, tokenizer_json: str, vocab_size: int, eos_ids: Iterable[int], remember: int = _REMEMBERED_SCHEMAS) -> None:
        """`remember`: schemas that are kept compiled."""
        self._tokenizer_json = tokenizer_json
        self._vocab_size = vocab_size
        self._remember = remember
        self._eos_ids = list(eos_ids)
        self._tables: tuple[llguidance.LLTokenizer, _Shared] | None = None
        self._made: OrderedDict[str, tuple[Matcher, list[int]]] = OrderedDict()  # by the bounded schema
        self._lock = threading.Lock()  # a matcher that others copy is not used meanwhile

    def json_schema(self, schema: Any) -> Grammar:
        """A grammar for the JSON documents of `schema`: whatever `normalize_schema` takes.

        The newest schemas are kept compiled. Raises SchemaError, naming the keyword, for a schema that is malformed,
        unsatisfiable, too complex or not supported; CheckpointError for a tokenizer that cannot be read.
        """
        return self.vetted(self.bounded(schema))

    def bounded(self, schema: Any) -> str:
        """The text of `normalize_schema(schema)`, for `vetted`."""
        return json.dumps(normalize_schema(schema))

    def vetted(self, text: str, plan: Sequence[int] | None = None) -> Grammar:
        """A grammar for what `bounded` gave, here or in another process, and `Grammar.plan` of it there, which saves time."""
        with self._lock:
            made = self._made.pop(text, None) or self._compile(text, plan)
            self._made[text] = made
            while len(self._made) > self._remember:
                self._made.popitem(last=False)
            matcher, found = made
            return Grammar(matcher.copy(), self._load()[1], list(found))

    def json_object(self) -> Grammar:
        """A grammar for any JSON object, bounded in depth, items and text."""
        return self.json_schema({"type": "object"})

    def _compile(self, schema: str, plan: Sequence[int] | None) -> tuple[Matcher, list[int]]:
        """The matcher at the beginning, and a shortest answer."""
        tokenizer, shared = self._load()
        matcher = Matcher.for_schema(tokenizer, schema)
        try:
            if plan is not None and shared.planner.completes(matcher, list(plan)):
                return matcher, list(plan)
            effort = Effort(*_FIRST_PLAN)
            found = shared.planner.plan(matcher, JsonState(), LONGEST_SHORTEST_ANSWER, [], {}, effort)
            if found is None and effort.spent:
                raise SchemaError(
                    "The schema is too complex: no answer to it was found in time; simplify its patterns, "
                    "multipleOf and minimum lengths, or shorten it."
                )
            if found is None:
                raise SchemaError(
                    "No answer to the schema could be found: its constraints exclude each other or demand too much; "
                    "loosen patterns, multipleOf or minimum lengths."
                )
            shared.planner.try_out(matcher, _TRIALS, _TRIAL_TOKENS)
        except GrammarError as error:
            raise SchemaError(str(error)) from None
        return matcher, found

    def _load(self) -> tuple[llguidance.LLTokenizer, _Shared]:
        if self._tables is None:
            if not self._eos_ids:
                raise CheckpointError("The checkpoint names no stop token (eos_token_id in generation_config.json).")
            try:
                tokenizer = llguidance.LLTokenizer(self._tokenizer_json, n_vocab=self._vocab_size, eos_token=self._eos_ids)
                raw = json.loads(self._tokenizer_json)
                special = {int(token["id"]) for token in raw.get("added_tokens", ())}
            except Exception as error:  # the Rust library raises more kinds than it names
                raise CheckpointError(f"tokenizer.json cannot be used for a grammar: {first_line(error)}.") from None
            special = {i for i in special | set(self._eos_ids) if 0 <= i < self._vocab_size}
            special |= {i for i in range(self._vocab_size) if tokenizer.is_special_token(i)}
            self._tables = tokenizer, _Shared(tokenizer, self._vocab_size, self._eos_ids, special)
        return self._tables
