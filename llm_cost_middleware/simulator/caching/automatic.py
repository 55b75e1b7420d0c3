"""OpenAI's prompt cache: automatic, from 1,024 tokens.

Before GPT-5.6 (`steps`) the longest cached prefix counts in steps of 128 tokens, writes are free and entries live a
day (`in_memory`: ten minutes). From GPT-5.6 on (`breakpoints`) an entry ends exactly at a breakpoint: an implicit one
at the end of the conversation and the explicit ones; the newest four are written and paid for, any of the newest 80
message ends and marks may match, and an entry lives thirty minutes. The last token of a prompt is never cached.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_cost_middleware.simulator.prompts import PromptBlock
from llm_cost_middleware.simulator.tokens import Tokenizer

from . import CacheUse, PrefixStore

if TYPE_CHECKING:
    from hashlib import blake2b

MINIMUM = 1024
STEP = 128
WRITTEN = 4
CONSIDERED = 80
LIFETIME_S = {"24h": 86_400.0, "in_memory": 600.0, "30m": 1_800.0, "12h": 43_200.0}


def plan_steps(
    store: PrefixStore,
    chain: "blake2b",
    blocks: Sequence[PromptBlock],
    total: int,
    rule: Tokenizer,
    now: float,
    *,
    retention: str = "24h",
) -> CacheUse:
    """Find the longest cached prefix in steps; store every step of this prompt.

    Args:
        store: The entries.
        chain: A hash over what separates caches: provider, organisation, model, cache key.
        blocks: The prompt in order: tools, messages.
        total: Input tokens of the whole prompt.
        rule: How bytes become tokens, to find the byte at which a step ends.
        now: When the request began.
        retention: ``24h`` or ``in_memory``.
    """
    steps: list[tuple[int, bytes]] = []
    edge, before = MINIMUM, 0
    for block in blocks:
        done = 0
        # Text can be cut at any token; a block whose tokens do not follow from its bytes (an image) only as a whole.
        exact = block.tokens - block.lead == rule.size(len(block.data) - block.salt)
        while edge <= before + block.tokens and edge < total:
            inside = max(edge - before - block.lead, 0)
            end = min(block.salt + rule.room(inside), len(block.data)) if exact else len(block.data)
            chain.update(block.data[done:end])
            done = max(done, end)
            steps.append((edge, chain.digest()))
            edge += STEP
        chain.update(block.data[done:] + b"\x00\x01")
        before += block.tokens
    read = 0
    for edge, digest in reversed(steps):
        if store.live(digest, now):
            read = edge
            break
    for edge, digest in steps:
        if edge <= read and store.live(digest, now):
            store.refresh(digest, now)
    return CacheUse(read=read, fresh=tuple((digest, LIFETIME_S[retention]) for _, digest in steps), begun_at=now)


def plan_breakpoints(
    store: PrefixStore,
    chain: "blake2b",
    blocks: Sequence[PromptBlock],
    now: float,
    *,
    explicit_only: bool = False,
    lifetime: str = "30m",
) -> CacheUse:
    """Read the longest entry at a breakpoint of the conversation; write at the newest breakpoints.

    Args:
        store: The entries.
        chain: A hash over what separates caches: provider, organisation, model, cache key.
        blocks: The prompt in order: tools, messages.
        now: When the request began.
        explicit_only: ``prompt_cache_options.mode = "explicit"``: without marks nothing is cached.
        lifetime: ``30m`` or ``12h``.
    """
    marks = [at for at, block in enumerate(blocks) if block.ttl]
    if not blocks or (explicit_only and not marks):
        return CacheUse()
    points = marks if explicit_only else sorted({*marks[-(WRITTEN - 1) :], len(blocks) - 1})
    ends = [at for at in range(len(blocks)) if at + 1 == len(blocks) or blocks[at + 1].salt]
    candidates = set(sorted({*marks, *ends})[-CONSIDERED:])

    digests: dict[int, bytes] = {}
    totals: dict[int, int] = {}
    total = 0
    for at, block in enumerate(blocks):
        chain.update(len(block.data).to_bytes(8, "big"))
        chain.update(block.data)
        total += block.tokens
        if at in candidates:
            digests[at] = chain.digest()
            totals[at] = total
    hit = next((at for at in sorted(candidates, reverse=True) if store.live(digests[at], now)), None)
    read = 0 if hit is None else totals[hit]
    if hit is not None:
        store.refresh(digests[hit], now)
    # a mark before the newest 80 is not considered at all
    writes = [at for at in points[-WRITTEN:] if totals.get(at, 0) > read and totals[at] >= MINIMUM]
    return CacheUse(
        read=read,
        write=totals[writes[-1]] - read if writes else 0,
        fresh=tuple((digests[at], LIFETIME_S[lifetime]) for at in writes),
        begun_at=now,
    )
