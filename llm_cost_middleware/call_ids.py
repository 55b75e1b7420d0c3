"""Which call a response answers, so that its quality can be reported: ``call_id_of(response)``.

Nothing is written on a response: objects are recognised by identity while they live, mappings by the provider's own id.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.fork import ForkSafeLock

BOOKED_KEY = "llm_cost"
"""Key in a LangChain message's ``response_metadata`` of how it was booked."""
_KEPT = 4_096  # ids of answers that are plain mappings, which cannot be watched


class _Answered:
    """The responses of this process that still live, by identity, and the newest mappings, by their id."""

    _lock = ForkSafeLock()

    def __init__(self) -> None:
        self._objects: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._mappings: OrderedDict[str, str] = OrderedDict()

    def add(self, response: Any, call_id: str) -> None:
        if isinstance(response, Mapping):
            if isinstance(own := response.get("id"), str):
                with self._lock:
                    self._mappings[own] = call_id
                    if len(self._mappings) > _KEPT:
                        self._mappings.popitem(last=False)
            return
        key, objects = id(response), self._objects

        def forget(gone: weakref.ref[Any]) -> None:
            # the identity may be another object's by now
            if (entry := objects.get(key)) is not None and entry[0] is gone:
                del objects[key]

        try:
            objects[key] = weakref.ref(response, forget), call_id
        except TypeError:
            return  # a value without an identity of its own: text, numbers, ``None``

    def find(self, response: Any) -> str | None:
        if isinstance(response, Mapping):
            own = response.get("id")
            return self._mappings.get(own) if isinstance(own, str) else None
        entry = self._objects.get(id(response))
        return entry[1] if entry is not None and entry[0]() is response else None


_answered = _Answered()


def note_call(response: Any, call_id: str) -> None:
    """Remember which call a host's response answers. What cannot be watched is not remembered."""
    _answered.add(response, call_id)


def call_id_of(response: Any) -> str:
    """Return the id of the call that a response answers, for ``CostPipeline.feedback``.

    Args:
        response: What a governed host returned: an answer, a stream, a raw response, a LangChain message, a
            ``CallOutcome`` or a ``Result``. A copy is not recognised, but for that of a LangChain message.

    Raises:
        ConfigurationError: No call of this process is known to have returned it.
    """
    found = _answered.find(response)
    if found is None:
        metadata = getattr(response, "response_metadata", None)  # of a LangChain message
        stamp = metadata.get(BOOKED_KEY) if isinstance(metadata, Mapping) else None
        own = getattr(getattr(response, "record", response), "call_id", None)  # of a ``Result``, a ``CallOutcome``
        found = stamp.get("call_id") if isinstance(stamp, Mapping) else own
    if not isinstance(found, str):
        what = type(response).__name__
        raise ConfigurationError(f"no governed call is known to have returned this {what}", key="response")
    return found
