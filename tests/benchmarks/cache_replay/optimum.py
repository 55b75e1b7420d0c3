"""The offline optimum: dynamic programming over every prefix, with all arrivals known.

Every block boundary is a node of the prefix tree; requests pass through nodes. At each pass a node is read where an
entry lives, or else sent uncached or written for five minutes or an hour. Nodes share nothing but the passes, so each
is solved by itself, exactly, over the provider's rules (an entry is readable once its writer's answer has begun; a read
renews it for its own lifetime). The solutions nest, because a deeper node has fewer passes; they are turned into at
most four marks a request, and played on the simulator like any other rule.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from traffic import READABLE_S, Call

from llm_cost_middleware.prompt_cache.plan import LIFETIME_S, CachePrices
from llm_cost_middleware.usage import TokenUsage

_ORDER = {"5m": 0, "1h": 1}


class Optimum:
    """Marks chosen with the future known."""

    def __init__(self, calls: Sequence[Call], prices: CachePrices, minimum: int) -> None:
        self._prices = prices
        self._minimum = minimum
        self._calls = calls
        self._paths = [_path(call.body) for call in calls]
        order = sorted(range(len(calls)), key=lambda number: calls[number].at)
        passes: dict[bytes, list[int]] = {}
        for number in order:
            for digest, *_ in self._paths[number]:
                passes.setdefault(digest, []).append(number)
        solved: dict[tuple[int, ...], dict[int, tuple[str, str]]] = {}
        self._passes = {digest: tuple(numbers) for digest, numbers in passes.items()}
        for numbers in set(self._passes.values()):
            solved[numbers] = self._solve(numbers)
        self._solved = solved

    def send(self, number: int, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        ends: list[tuple[int, str, str]] = []  # the last block of each stretch with the same passes: (block, deed, ttl)
        path = self._paths[number]
        for at, (digest, tokens) in enumerate(path):
            passes = self._passes[digest]
            if at + 1 < len(path) and self._passes[path[at + 1][0]] == passes:
                continue
            deed, ttl = self._solved[passes][number]
            if deed != "send" and tokens >= self._minimum:
                ends.append((at, deed, ttl))
        ends = ends[-4:] if len(ends) > 4 else ends
        longest, marks = "5m", []
        for at, deed, ttl in reversed(ends):
            longest = max(longest, ttl if deed == "write" else "5m", key=_ORDER.__getitem__)
            marks.append((at, longest))
        return _marked(body, marks)

    def answered(self, number: int, usage: TokenUsage, now: float) -> None:
        pass

    def _solve(self, numbers: tuple[int, ...]) -> dict[int, tuple[str, str]]:
        """What to do at each pass: ``send``, ``write`` or ``read``, and the lifetime in question."""
        times = [self._calls[number].at for number in numbers]
        count = len(times)
        cost = [0] * (count + 1)
        choice: list[tuple[str, int]] = [("send", 0)] * count
        for at in range(count - 1, -1, -1):
            cost[at], choice[at] = self._prices.uncached + cost[at + 1], ("", at + 1)
            for ttl, price in self._prices.write.items():
                spent, until = self._run(times, at, LIFETIME_S[ttl])
                if price + spent + cost[until] < cost[at]:
                    cost[at], choice[at] = price + spent + cost[until], (ttl, until)
        deeds, at = {}, 0
        while at < count:
            ttl, until = choice[at]
            deeds[numbers[at]] = ("write", ttl) if ttl else ("send", "5m")
            for later in range(at + 1, until):
                deeds[numbers[later]] = ("read", ttl) if times[later] >= times[at] + READABLE_S else ("send", "5m")
            at = until
        return deeds

    def _run(self, times: list[float], at: int, lifetime: float) -> tuple[int, int]:
        """What the passes after a write cost while its entry lives, and the first pass after it has lapsed."""
        readable, last, spent = times[at] + READABLE_S, times[at], 0
        for later in range(at + 1, len(times)):
            if times[later] >= last + lifetime:
                return spent, later
            if times[later] < readable:
                spent += self._prices.uncached
            else:
                spent += self._prices.read
                last = times[later]
        return spent, len(times)


def _blocks(body: Mapping[str, Any]):
    """The blocks in the order of the prompt, each with where it stands."""
    for at, tool in enumerate(body.get("tools") or ()):
        yield ("tools", at), tool
    for at, block in enumerate(body["system"]):
        yield ("system", at), block
    for number, message in enumerate(body["messages"]):
        for at, block in enumerate(message["content"]):
            yield ("messages", number, "content", at), {"role": message["role"], **block}


def _path(body: Mapping[str, Any]) -> list[tuple[bytes, int]]:
    digest, size, path = blake2b(digest_size=16), 0, []
    for _, block in _blocks(body):
        data = json.dumps(block).encode()
        digest.update(data)
        size += len(block.get("text") or data)
        path.append((digest.digest(), size // 4))
    return path


def _marked(body: Mapping[str, Any], marks: list[tuple[int, str]]) -> dict[str, Any]:
    places = [place for place, _ in _blocks(body)]
    out = dict(body)
    for at, ttl in marks:
        holder: Any = out
        for step in places[at][:-1]:
            holder[step] = holder[step].copy()
            holder = holder[step]
        holder[places[at][-1]] = {**holder[places[at][-1]], "cache_control": {"type": "ephemeral", "ttl": ttl}}
    return out
