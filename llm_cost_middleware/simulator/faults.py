"""Scripted faults: what goes wrong, with which request, how often."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from . import refusals
from .catalogue import ProviderName

FaultKind = Literal[
    "status", "hang", "reset", "cut", "error_event", "stall", "slow", "failed", "no_usage", "bare_delta", "odd_usage"
]


@dataclass(slots=True)
class Exchange:
    """Request that reached the wire. `body` is the parsed JSON, None when it was no JSON or is not kept."""

    index: int
    provider: ProviderName
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)
    at: float
    status: int | None = None  # None until something was answered; 0 when the connection was dropped before headers
    request_id: str = ""  # of the answer: msg_…, chatcmpl-…, resp_…
    took_s: float = 0.0  # seconds that its service tier took, waited for or not
    served_by: str = ""  # the platform that was called; empty: the provider itself

    def bare(self) -> "Exchange":
        """Return the same without its body."""
        return replace(self, body=None)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong; plain data, so that it crosses processes. Make it with the class methods."""

    kind: FaultKind
    code: int = 0
    preset: str = ""  # a refusal by name, or the type or code of an error
    provider: ProviderName | None = None
    body: Any = None
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 0  # stream events sent before it strikes
    clean: bool = False
    billed: bool = False
    delay_s: float = 0.0
    per_chunk_s: float = 0.0

    @classmethod
    def status(
        cls,
        code: int,
        *,
        body: Any = None,
        message: str | None = None,
        headers: Mapping[str, str] | None = None,
        provider: ProviderName | None = None,
        retry_after: float | str | None = None,
        retry_after_ms: float | None = None,
        should_retry: bool | None = None,
    ) -> "Fault":
        """Answer with an error status; the body is the provider's own unless given.

        Args:
            code: The HTTP status.
            body: Replaces the body: a str is sent as text/plain, anything else as JSON.
            message: Replaces the message inside the provider's body.
            headers: Added to the headers.
            provider: Whose words to use; by default those of the provider that was called.
            retry_after: ``retry-after`` in seconds, or an HTTP date.
            retry_after_ms: ``retry-after-ms``.
            should_retry: ``x-should-retry``; Anthropic's errors carry one anyway.
        """
        more = dict(headers or {})
        if retry_after is not None:
            more["retry-after"] = str(retry_after)
        if retry_after_ms is not None:
            more["retry-after-ms"] = str(retry_after_ms)
        if should_retry is not None:
            more["x-should-retry"] = "true" if should_retry else "false"
        return cls("status", code, provider=provider, body=body, message=message, headers=more)

    @classmethod
    def aws(cls, name: str, *, message: str | None = None) -> "Fault":
        """Answer with an exception of Bedrock's by its name: ``ThrottlingException``."""
        return cls("status", 0, name, message=message)

    @classmethod
    def google(cls, name: str, *, message: str | None = None, listed: bool = False) -> "Fault":
        """Answer with an error of Vertex's by its status: ``RESOURCE_EXHAUSTED``; `listed`: inside a list of one."""
        return cls("status", 0, name, message=message, clean=listed)

    @classmethod
    def azure(cls, name: str) -> "Fault":
        """Answer with an error of Azure's gateway by its code: ``content_filter``, ``Timeout``."""
        return cls("status", 0, name)

    @classmethod
    def insufficient_quota(cls) -> "Fault":
        """429: the account is out of money (OpenAI's code, or Anthropic's enforced spend limit)."""
        return cls("status", 429, "out_of_money")

    @classmethod
    def request_too_large(cls) -> "Fault":
        """429: the request alone is larger than a minute's allowance; no wait helps."""
        return cls("status", 429, "request_too_large")

    @classmethod
    def overloaded(cls) -> "Fault":
        """529 at Anthropic, 503 at OpenAI."""
        return cls("status", 529, "overloaded")

    @classmethod
    def proxy_503(cls) -> "Fault":
        """503 in plain text from the proxy in front of the provider."""
        return cls("status", 503, body=refusals.PROXY_503)

    @classmethod
    def hang(cls, *, billed: bool = True) -> "Fault":
        """Accept the request and never answer. `billed`: the provider did the work, and charges for all of it."""
        return cls("hang", billed=billed)

    @classmethod
    def reset(cls, *, billed: bool = False) -> "Fault":
        """Drop the connection before any header, with a TCP reset."""
        return cls("reset", billed=billed)

    @classmethod
    def cut(cls, *, after: int, clean: bool = False) -> "Fault":
        """End a stream after `after` events: with a TCP reset, or (`clean`) as if it were finished.

        A stream that ends sooner is left whole. A JSON answer is sent half and billed in full.
        """
        return cls("cut", after=after, clean=clean)

    @classmethod
    def stall(cls, *, after: int) -> "Fault":
        """Fall silent after `after` events of a stream, with the connection open."""
        return cls("stall", after=after)

    @classmethod
    def error_event(cls, *, after: int, error_type: str | None = None, message: str | None = None) -> "Fault":
        """Send the provider's error event after `after` events of a stream, and end it; billed as ``bill`` says."""
        return cls("error_event", after=after, preset=error_type or "", message=message)

    @classmethod
    def slow(cls, *, delay_s: float = 0.0, per_chunk_s: float = 0.0) -> "Fault":
        """Wait before the answer, and before each event of a stream. Real time, not the simulator's clock."""
        return cls("slow", delay_s=delay_s, per_chunk_s=per_chunk_s)

    @classmethod
    def failed(cls, *, code: str = "server_error", message: str = "The model failed to answer.") -> "Fault":
        """Responses API only: 200 with ``status: failed`` and no usage, in JSON or as the last event; not billed."""
        return cls("failed", preset=code, message=message)

    @classmethod
    def no_usage(cls) -> "Fault":
        """Leave the usage out of the answer."""
        return cls("no_usage")

    @classmethod
    def odd_usage(cls, **counts: Any) -> "Fault":
        """Report counts as no provider does, and some gateways do; the bill stays what it is.

        Args:
            **counts: ``input``, ``output`` and ``part`` (what of the input was read from a cache): what stands in
                place of the count, in every form of it; ``"gone"`` leaves it out.
        """
        return cls("odd_usage", body=counts)

    @classmethod
    def bare_delta(cls) -> "Fault":
        """Send only output_tokens in Anthropic's ``message_delta``, like some gateways."""
        return cls("bare_delta")

    def refusal(self, called: ProviderName) -> refusals.Refusal:
        """Return the reply of a `status` fault to a request for `called`."""
        provider = self.provider or called
        named = refusals.PRESETS.get(self.preset)
        refusal = named(provider) if named else refusals.default_refusal(provider, self.code)
        if self.body is not None:
            refusal.body = self.body
        elif self.message is not None:
            refusal.body["error"]["message"] = self.message
        refusal.headers = {**refusal.headers, **self.headers}
        return refusal


Match = Callable[[Exchange], bool]


class FaultScript:
    """Queue of faults; each is taken by the first request that it matches."""

    def __init__(self) -> None:
        self._queue: list[tuple[Fault, Match | None]] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault, *, times: int = 1, match: Match | None = None) -> None:
        """Queue a fault for the next `times` requests that match."""
        with self._lock:
            self._queue.extend([(fault, match)] * times)

    def take(self, exchange: Exchange) -> Fault | None:
        """Return the first queued fault that fits this request, removed from the queue."""
        with self._lock:
            for at, (fault, match) in enumerate(self._queue):
                if match is None or match(exchange):
                    del self._queue[at]
                    return fault
        return None

    def clear(self) -> None:
        """Forget everything queued."""
        with self._lock:
            self._queue.clear()

    def __len__(self) -> int:
        return len(self._queue)
