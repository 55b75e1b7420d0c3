"""What LiteLLM lets its caller see of one attempt: the provider's own answer, through the documented ``logger_fn``.

An answer that LiteLLM cannot use ends as an error of LiteLLM's own making; what it cost stands in the body all the
same. A stream's outer wrapper may keep no chunks; the wrapper inside, which is shown here, does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from llm_cost_middleware.host import attach_billed_usage
from llm_cost_middleware.integrations.litellm.convert import RouterCall
from llm_cost_middleware.integrations.litellm.usage import never_zero
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import Attempt
from llm_cost_middleware.usage import UsageReport

_LINKS = 8
_OK = 200
_UNSENT = UsageReport(unbilled=True, complete=True, warnings=("nothing was sent: LiteLLM lacks a package",))


class Exchange:
    """Around one attempt: lets its error out with what is to be booked for it, where that is known.

    Args:
        call: The call.
        attempt: The attempt.
        theirs: The caller's own ``logger_fn``.
    """

    __slots__ = ("_attempt", "_began", "_call", "_theirs", "body", "chunks")

    def __init__(self, call: RouterCall, attempt: Attempt, theirs: Callable[[Any], Any] | None) -> None:
        self._call, self._attempt, self._theirs = call, attempt, theirs
        self._began = False
        self.body: str | None = None
        """The provider's answer, as JSON; ``None`` where none was shown."""
        self.chunks: list[Any] | None = None
        """The chunks of a chat stream with what the provider said in them; ``None`` where none was shown."""

    def watched(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments by which LiteLLM shows what passes; the messages API shows nothing."""
        return arguments if self._call.endpoint == "messages" else {**arguments, "logger_fn": self.logger_fn}

    def logger_fn(self, details: Mapping[str, Any]) -> None:
        """Called by LiteLLM before it sends and after it received. The mapping is its own, and lives on."""
        self._began = True
        seen = details.get("original_response")
        if isinstance(seen, str):  # of an error, too: only an answer is JSON from its first character
            self.body = seen if seen.startswith("{") else self.body
        elif isinstance(chunks := getattr(seen, "chunks", None), list):
            self.chunks = chunks  # not the stream: it leads back here, and a ring is not freed when it is dropped
        if self._theirs is not None:
            self._theirs(details)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Add the reading to the error; it goes on its way."""
        if isinstance(error, Exception):
            attach_billed_usage(error, self._reading(error))

    def _reading(self, error: Exception) -> UsageReport | None:
        behind = list(_chain(error))
        # that nothing was shown proves nothing by itself: LiteLLM shows little of the other endpoints
        lacking = any(isinstance(link, ImportError) for link in behind)
        if lacking and not self._began and self._call.endpoint == "chat.completions":
            return _UNSENT
        said = (str(getattr(link, "message", "")) for link in behind if getattr(link, "status_code", None) == _OK)
        for text in (self.body, *said):
            if text and (reading := self._read(text)) is not None:
                return reading
        return None

    def _read(self, text: str) -> UsageReport | None:
        try:
            body = json.loads(text)
            reading = never_zero(get_provider(self._attempt.target.provider).read_usage(body))
        except Exception:  # noqa: BLE001 - whatever is odd in it: what it cost is then unconfirmed
            return None
        return self._call.priced(reading) if reading.items else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(_LINKS):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__
