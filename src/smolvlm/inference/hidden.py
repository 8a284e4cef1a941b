"""The decoder's last hidden states of prompts: several of them in one pass, nothing generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from smolvlm.engines.base import FloatArray
from smolvlm.errors import ParamsError
from smolvlm.inference.prompt import Prompt
from smolvlm.inference.runtime import Progress, Runtime
from smolvlm.inference.tiles import all_embeds
from smolvlm.prompt.context import check_context

Pool = Literal["last", "mean", "all"]
POOLS: tuple[str, ...] = ("last", "mean", "all")
_MOST_PROMPTS, _MOST_TOKENS = 64, 8192  # of one call of the engine: they are in its KV cache together


def check_pool(pool: object) -> None:
    """Raises ParamsError."""
    if pool not in POOLS:
        raise ParamsError(f"pool={pool!r}: expected one of {', '.join(POOLS)}.")


def hidden_states(runtime: Runtime, prompts: Sequence[Prompt], pool: Pool, on_progress: Progress | None = None) -> list[FloatArray]:
    """For each prompt (hidden,), its last token's state or the mean of all; with "all" (tokens, hidden).

    Raises ContextLengthError before anything is computed.
    """
    for prompt in prompts:
        check_context(len(prompt.input_ids), runtime.engine.config.text.max_position_embeddings, media=prompt.infos)
    found: list[FloatArray] = []
    for group in _groups(prompts):
        runtime.encode([medium for prompt in group for medium in prompt.media], on_progress)
        found += [rows[-1] if pool == "last" else rows.mean(0) if pool == "mean" else rows for rows in _rows(runtime, group, pool)]
    return found


def _rows(runtime: Runtime, group: Sequence[Prompt], pool: Pool) -> list[FloatArray]:
    engine = runtime.engine
    seqs: list[int] = []
    try:
        for prompt in group:
            seqs.append(engine.open(len(prompt.input_ids)))
        embeds = [all_embeds(prompt.tiles) for prompt in group]
        rows = engine.hidden(seqs, [prompt.input_ids for prompt in group], embeds, rows_to_keep=1 if pool == "last" else 0)
        runtime.counters.tokens_prefilled += sum(len(prompt.input_ids) for prompt in group)
        return rows
    finally:
        for seq in seqs:
            engine.close(seq)


def _groups(prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
    """Neighbors that fit together; a long prompt goes alone."""
    group: list[Prompt] = []
    tokens = 0
    for prompt in prompts:
        tokens += len(prompt.input_ids)
        if group and (tokens > _MOST_TOKENS or len(group) == _MOST_PROMPTS):
            yield group
            group, tokens = [], len(prompt.input_ids)
        group.append(prompt)
    if group:
        yield group
