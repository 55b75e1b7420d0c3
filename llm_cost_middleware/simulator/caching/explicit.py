"""Anthropic's prompt cache: explicit marks, a minimum length per model, a lookback, two lifetimes.

An entry is written at every mark whose prefix is long enough, and covers the whole prompt up to there. A mark finds an
entry at its own block or at one of the blocks before it, `LOOKBACK` positions counted with its own. The longest entry
found is read; what lies between it and the last one-hour mark is written for an hour, the rest up to the last mark for
five minutes. An entry that exists is read and renewed for the lifetime it was written with, whatever a mark asks now.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_cost_middleware.simulator.prompts import PromptBlock

from . import CacheUse, PrefixStore

if TYPE_CHECKING:
    from hashlib import blake2b

LOOKBACK = 20
LIFETIME_S = {"5m": 300.0, "1h": 3600.0}


def plan(store: PrefixStore, chain: "blake2b", blocks: Sequence[PromptBlock], minimum: int, now: float) -> CacheUse:
    """Decide what a request reads and writes, renewing what it reads.

    Args:
        store: The entries.
        chain: A hash over what separates caches: provider, workspace, model.
        blocks: The prompt in order: tools, system, messages.
        minimum: The shortest prefix in tokens that this model caches.
        now: When the request began.
    """
    marks = [at for at, block in enumerate(blocks) if block.ttl]
    if not marks:
        return CacheUse()
    digests: list[bytes] = []
    totals: list[int] = []
    total = 0
    for block in blocks[: marks[-1] + 1]:
        chain.update(len(block.data).to_bytes(8, "big"))
        chain.update(block.data)
        total += block.tokens
        digests.append(chain.digest())
        totals.append(total)

    hit = -1
    for mark in reversed(marks):
        for at in range(mark, max(mark - LOOKBACK, -1), -1):
            if at <= hit:
                break
            if store.live(digests[at], now):
                hit = at
                break
    if hit >= 0:
        for at in {hit, *(mark for mark in marks if mark < hit)}:
            if store.live(digests[at], now):
                store.refresh(digests[at], now)

    read = totals[hit] if hit >= 0 else 0
    writes = [at for at in marks if at > hit and totals[at] >= minimum]
    hourly = max((totals[at] for at in writes if blocks[at].ttl == "1h"), default=read)
    last = totals[writes[-1]] if writes else read
    return CacheUse(
        read=read,
        write=last - hourly,
        write_1h=hourly - read,
        fresh=tuple((digests[at], LIFETIME_S[blocks[at].ttl]) for at in writes),
        begun_at=now,
    )
