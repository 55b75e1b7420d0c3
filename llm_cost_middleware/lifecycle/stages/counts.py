"""Counts of input that the provider itself makes: which were made, and whether one more may be asked for.

Anthropic's vocabularies are not public, and two tokens a byte bound them many times too high. Its endpoint
``/v1/messages/count_tokens`` is free and has a rate limit of its own; what it returns is an estimate
(platform.claude.com, "Token counting"). It is asked where the bound does not fit, and as little as possible: one
request for equal inputs, at most five a second for a key, one second each, and not at all where it fails.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from math import ceil
from typing import NamedTuple

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.pricing.bound import measure
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import EMPTY, CallRequest, ModelRef, Part

TIMEOUT_S = 1.0
"""How long a call waits for a count, its turn included."""
_PER_SECOND = 5
_FAILURES, _CLOSED_S = 3, 30.0
"""Failures in a row after which a key is not asked again, and for how long."""
_MARGIN_PERCENT = 2
_KEEP = 4_096
_TURNS = 8
"""Messages at the end of a conversation that a count of its beginning is looked up without."""
_BYTES_PER_TOKEN_AT_BEST = 12
_POLL_S = 0.02
_NOT_OFFERED = frozenset({404, 405, 501})


class CountKey(NamedTuple):
    """Digests of an input: of all of it, and of its beginnings, the longest first."""

    whole: bytes
    beginnings: tuple[tuple[int, bytes], ...]
    """(messages, digest)."""


class Turn(NamedTuple):
    """What to do for a count: ask now, or wait so many seconds and look again."""

    delay_s: float = 0.0


class _Account:
    """One key at one address: its allowance, and how it has fared."""

    __slots__ = ("allowance", "at", "closed_until", "failures", "offered")

    def __init__(self, at: float) -> None:
        self.allowance, self.at = float(_PER_SECOND), at
        self.failures, self.closed_until, self.offered = 0, 0.0, True


class ProviderCounts:
    """Counts by digest of the input, and the state of those who make them. Safe to share between threads."""

    _lock = ForkSafeLock()

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._under_way: dict[bytes, float] = {}
        self._accounts: dict[str, _Account] = {}
        self.requests = 0
        """Counts that were asked for."""

    @property
    def knows_any(self) -> bool:
        """Whether there is anything to look up."""
        return bool(self._known)

    def key(self, request: CallRequest, target: ModelRef) -> CountKey | None:
        """The key of an input; ``None`` where two different ones could have the same."""
        digest = blake2b(digest_size=16)
        parts = [str(target), request.output_schema, repr(sorted(_steering(request).items()))]
        parts += [tool.text for tool in request.tools] + [repr(tool) for tool in request.server_tools]
        for text in parts:
            _feed(digest, text)
        ends: list[bytes] = []
        for message in request.messages:
            _feed(digest, message.role)
            for part in message.parts:
                if not _is_told_by_text(part):
                    return None
                _feed(digest, part.kind)
                _feed(digest, part.text)
            ends.append(digest.digest())
        if not ends:
            return None
        beginnings = [(len(ends) - back, ends[-1 - back]) for back in range(1, min(_TURNS, len(ends) - 1) + 1)]
        return CountKey(ends[-1], tuple(beginnings))

    def known(self, request: CallRequest, target: ModelRef, key: CountKey | None) -> int | None:
        """Input tokens with their margin, from a count of this input, or of its beginning and a bound of the rest."""
        if key is None:
            return None
        with self._lock:
            if (whole := self._known.get(key.whole)) is not None:
                return whole
            found = next(((at, self._known[begun]) for at, begun in key.beginnings if begun in self._known), None)
        if found is None:
            return None
        at, count = found
        # What follows is bounded by its bytes: short beside the beginning, in a conversation.
        rest = measure(request._replace(messages=request.messages[at:], tools=(), output_schema="", params=EMPTY))
        rules = get_provider(target.provider)
        return count + ceil(rest.text_bytes * rules.tokens_per_byte) + rest.blocks * rules.tokens_per_message

    def least(self, request: CallRequest) -> int:
        """Fewer input tokens than a request can be expected to have: where not even these fit, no count can help."""
        size = measure(request)
        return (size.text_bytes + size.tool_bytes) // _BYTES_PER_TOKEN_AT_BEST

    def may_ask(self, account_name: str) -> bool:
        """Whether this key is asked at all now."""
        with self._lock:
            account = self._accounts.get(account_name)
            return account is None or (account.offered and account.closed_until <= self._clock.monotonic())

    def take_turn(self, account_name: str, key: CountKey | None) -> Turn:
        """Ask now, or wait for one's turn or for the answer that another call is waiting for."""
        now = self._clock.monotonic()
        with self._lock:
            if key is not None and now < self._under_way.get(key.whole, 0.0):
                return Turn(_POLL_S)
            account = self._accounts.get(account_name)
            if account is None:
                account = self._accounts[account_name] = _Account(now)
            account.allowance = min(account.allowance + (now - account.at) * _PER_SECOND, float(_PER_SECOND))
            account.at = now
            if account.allowance < 1:
                return Turn((1 - account.allowance) / _PER_SECOND)
            account.allowance -= 1
            if account.closed_until:  # it was closed: one may try, the others wait for what comes of it
                account.closed_until = now + TIMEOUT_S
            if key is not None:
                self._under_way[key.whole] = now + TIMEOUT_S
            self.requests += 1
        return Turn()

    def counted(self, account_name: str, key: CountKey | None, tokens: int) -> int:
        """Take note of a count. Returns it with its margin."""
        held = -(-tokens * (100 + _MARGIN_PERCENT) // 100)
        with self._lock:
            account = self._accounts[account_name]
            account.failures, account.closed_until = 0, 0.0
            if key is not None:
                self._under_way.pop(key.whole, None)
                self._known[key.whole] = held
                if len(self._known) > _KEEP:
                    self._known.popitem(last=False)
        return held

    def failed(self, account_name: str, key: CountKey | None, error: BaseException | None) -> None:
        """Take note of a count that did not come. ``None``: its caller went away, which says nothing of the key."""
        with self._lock:
            if key is not None:
                self._under_way.pop(key.whole, None)
            if error is None:
                return
            account = self._accounts[account_name]
            if getattr(error, "status_code", None) in _NOT_OFFERED:
                account.offered = False  # a gateway without this endpoint
            account.failures += 1
            if account.failures >= _FAILURES:
                account.closed_until = self._clock.monotonic() + _CLOSED_S


def _steering(request: CallRequest) -> dict[str, object]:
    """What of a request's parameters adds input of its own."""
    names = ("tool_choice", "thinking", "reasoning_effort", "effort", "speed", "citations", "provider_tools")
    return {name: request.params[name] for name in names if name in request.params}


def _is_told_by_text(part: Part) -> bool:
    """Whether equal texts mean equal tokens: of media only the size is known here."""
    return not part.nested and part.kind not in ("image", "document", "audio") and not part.media


def _feed(digest: blake2b, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    digest.update(len(data).to_bytes(8, "big") + data)
