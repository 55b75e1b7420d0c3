"""What was learned of prefixes, as small values by key that all processes of a ledger share.

A key is a prefix, a group of peers, or the account of savings. A process reads the values that a request needs before
it plans it, and merges what it has learned into them afterwards: counts are added, of what can be true only once the
newest is kept. Fingerprints, counts and times, never text. A value of another version, or one that cannot be read, is
as good as none.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from llm_cost_middleware.prompt_cache.entries import Entry
from llm_cost_middleware.prompt_cache.insurance import Loan
from llm_cost_middleware.prompt_cache.layout import PromptLayout
from llm_cost_middleware.prompt_cache.returns import EDGES_S, Returns
from llm_cost_middleware.prompt_cache.reuse import ENOUGH_SEEN, end_keys, shape_key
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics, PrefixStats
from llm_cost_middleware.request import ModelRef

_ACCOUNT, _PREFIX, _GROUP = "2m", "2p.", "2g."
"""Kinds of keys; the number is the version of the values."""
_MOST_MODELS = 8
_MOST_SLOTS = 80
"""Slots of an hour's loans, and some more: processes' clocks differ."""
_encode = json.JSONEncoder(separators=(",", ":")).encode


def keys_of(layout: PromptLayout) -> list[str]:
    """Return the keys that planning and recording a request can need."""
    sections = dict.fromkeys(each.ref.section for each in layout.boundaries)
    names = [*end_keys(layout.traffic_key, layout.stage, layout.turns)]
    if layout.turns:
        names += end_keys(layout.traffic_key, layout.previous_stage, layout.turns - 1)
    if shape := shape_key(layout):
        names.append(shape)
    for section in sections:
        names += (section, *(f"{section}.{seen}" for seen in range(ENOUGH_SEEN + 1)))
    prefixes = [_prefix_key(each.fingerprint) for each in layout.boundaries]
    return [_ACCOUNT, *prefixes, *(f"{_GROUP}{name}" for name in dict.fromkeys(names))]


def changed_keys(statistics: PrefixStatistics, layout: PromptLayout) -> Iterator[str]:
    """Yield those of ``keys_of`` whose values a request has changed."""
    yield _ACCOUNT
    tracked = {layout.boundaries[at].fingerprint for at in statistics.tracked(layout)}
    for key in keys_of(layout):
        if key.startswith(_PREFIX):
            fingerprint = _fingerprint(key)
            record = statistics.records.get(fingerprint)
            if record is not None and (fingerprint in tracked or record.entries):
                yield key
        elif key.startswith(_GROUP):
            group = statistics.peers.find(key.removeprefix(_GROUP))
            if group is not None and (group.begun or group.settled):
                yield key


def absorb(statistics: PrefixStatistics, key: str, data: bytes | None, now: float) -> None:
    """Take over what other processes have learned, with what was learned here since on top."""
    if data is None:
        return
    with suppress(ValueError, KeyError, TypeError, IndexError):
        stored: Any = json.loads(data)
        if key.startswith(_PREFIX):
            _absorb_prefix(statistics.record(_fingerprint(key)), stored)
        elif key.startswith(_GROUP):
            group = statistics.peers.group(key.removeprefix(_GROUP))
            group.rebase(_counts(stored["c"]), _counts(stored["p"]), dict(stored["o"]), now)
        else:
            _absorb_account(statistics, stored)


def merge(statistics: PrefixStatistics, key: str, data: bytes | None, now: float) -> bytes:
    """Return the shared value with what was learned here; from then on both are the same."""
    absorb(statistics, key, data, now)
    if key.startswith(_PREFIX):
        value = _share_prefix(statistics.record(_fingerprint(key)))
    elif key.startswith(_GROUP):
        group = statistics.peers.group(key.removeprefix(_GROUP))
        group.share()
        value = {"c": _written(group.came), "p": _written(group.passed), "o": list(group.open.items())}
    else:
        value = _share_account(statistics)
    return _encode(value).encode()


def _absorb_prefix(record: PrefixStats, stored: dict[str, Any]) -> None:
    seen, known = record.base
    others = Returns(_counts(stored["c"]), _counts(stored["p"]))
    returns = Returns(
        _added(record.returns.came, known.came, others.came), _added(record.returns.passed, known.passed, others.passed)
    )
    record.seen, record.returns = stored["n"] + record.seen - seen, returns
    record.base = stored["n"], others
    if stored["t"] > record.last:  # it was seen elsewhere since
        record.last, record.groups = stored["t"], ()
        record.rhythm = Returns(*map(_counts, stored["r"])) if stored["r"] else None
    record.was_end = record.was_end or bool(stored["e"])
    for provider, model, expires, ttl, tokens, at, loan in stored["w"]:
        target = ModelRef(provider, model)
        entry = record.entries.get(target)
        if entry is None or entry.seen_at < at:
            record.entries[target] = entry = Entry(expires, str(ttl), tokens, at)
            entry.loan = Loan(*loan) if loan else None


def _share_prefix(record: PrefixStats) -> dict[str, Any]:
    record.base = record.seen, Returns(record.returns.came, record.returns.passed)
    newest = sorted(record.entries.items(), key=lambda item: -item[1].seen_at)[:_MOST_MODELS]
    return {
        "n": record.seen,
        "t": record.last,
        "e": int(record.was_end),
        "c": _written(record.returns.came),
        "p": _written(record.returns.passed),
        "r": [_written(record.rhythm.came), _written(record.rhythm.passed)] if record.rhythm else None,
        "w": [[*target, entry.expires, entry.ttl, entry.tokens, entry.seen_at, entry.loan] for target, entry in newest],
    }


def _absorb_account(statistics: PrefixStatistics, stored: dict[str, Any]) -> None:
    account, (saved, input_cost, calls, lent) = statistics.insurance, statistics.account_base
    others = {int(slot): int(amount) for slot, amount in stored["l"]}
    account.saved += int(stored["s"]) - saved
    account.input_cost += int(stored["i"]) - input_cost
    account.calls += int(stored["n"]) - calls
    for slot in others.keys() | lent.keys():
        account.lent[slot] = account.lent.get(slot, 0) + others.get(slot, 0) - lent.get(slot, 0)
    statistics.account_base = int(stored["s"]), int(stored["i"]), int(stored["n"]), others
    for provider, model, density in stored["d"]:
        statistics.densities.setdefault(ModelRef(provider, model), density)


def _share_account(statistics: PrefixStatistics) -> dict[str, Any]:
    account = statistics.insurance
    lent = {slot: amount for slot, amount in sorted(account.lent.items())[-_MOST_SLOTS:] if amount}
    statistics.account_base = account.saved, account.input_cost, account.calls, lent
    densities = list(statistics.densities.items())[-_MOST_MODELS:]
    return {
        "s": account.saved,
        "i": account.input_cost,
        "n": account.calls,
        "l": list(lent.items()),
        "d": [[*target, density] for target, density in densities],
    }


def _added(mine: list[float], known: list[float], others: list[float]) -> list[float]:
    return [max(one + other - old, 0.0) for one, old, other in zip(mine, known, others, strict=True)]


def _written(counts: list[float]) -> list[float]:
    """Counts without the zeros at their end: most prefixes never come back, and every one of them is kept."""
    rounded = [round(each, 3) for each in counts]
    while rounded and not rounded[-1]:
        rounded.pop()
    return rounded


def _counts(written: list[float]) -> list[float]:
    return [*written, *(0.0 for _ in range(len(EDGES_S) - len(written)))]


def _prefix_key(fingerprint: bytes) -> str:
    return _PREFIX + urlsafe_b64encode(fingerprint).decode().rstrip("=")


def _fingerprint(key: str) -> bytes:
    text = key.removeprefix(_PREFIX)
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
