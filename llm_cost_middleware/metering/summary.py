"""Summary of memos: one memo for many attempts at one model, for a ledger whose old rows were archived."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from typing import Any

from llm_cost_middleware.metering.memo import Memo, decode_memo
from llm_cost_middleware.usage import NO_USAGE, TokenUsage

_NO_MEMO = Memo("", 0, None)


class MemoSummary:
    """``MemoAggregator`` of the memos that a pipeline writes: calls and usage by model and price version."""

    def group_key(self, memo: bytes) -> Hashable:
        """See ``MemoAggregator``."""
        read = _read(memo)
        return (
            read.target,
            read.price_version,
            read.tier,
            read.asked,
            read.arm,
            json.dumps(_terms(read), sort_keys=True),
        )

    def combine(self, memos: Sequence[bytes]) -> bytes:
        """See ``MemoAggregator``."""
        read = [_read(memo) for memo in memos]
        items: dict[tuple[str | None, str], TokenUsage] = {}
        for memo in read:
            for usage, model, kind in memo.items:
                items[model, kind] = items.get((model, kind), NO_USAGE) + usage
        first = read[0]
        target = first.target
        data = {
            "v": 1, "call": "", "n": 0, "calls": sum(memo.calls for memo in read), "pv": first.price_version,
            "at": [target.provider, target.model] if target else None,
            "terms": _terms(first),
            **{name: word for name, word in (("tier", first.tier), ("ask", first.asked), ("arm", first.arm)) if word},
            "items": [[*key, {name: n for name, n in asdict(usage).items() if n}] for key, usage in items.items()],
        }  # fmt: skip
        return json.dumps(data, separators=(",", ":")).encode()


def _terms(memo: Memo) -> dict[str, Any]:
    """What the price and the tier of the attempts of a group rest on; tool calls are of each alone."""
    return {name: value for name, value in memo.terms.items() if name != "tool_calls"}


def _read(memo: bytes) -> Memo:
    # A memo that cannot be read must not stop an archive: its row is summed without a model.
    try:
        return decode_memo(memo)
    except ValueError:
        return _NO_MEMO
