"""What a call asks for, as it stood when it was read: money is held for that, so that is what is sent.

Between the two a call may wait: for a retry, a rate limiter, a ledger that an event loop asks, a reader of its stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models._utils import _normalize_messages
from langchain_core.messages import BaseMessage
from langchain_core.utils.utils import LC_AUTO_PREFIX

_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
_TAKEN_OUT = frozenset({"ls_structured_output_format", "structured_output_format"})
"""Arguments that LangChain takes out on the way from an entry to the sending."""
Model = TypeVar("Model", bound=BaseChatModel)


class Snapshot(NamedTuple):
    """Messages and arguments of a call that nobody else holds."""

    messages: list[BaseMessage]
    arguments: dict[str, Any]

    @classmethod
    def of(cls, messages: Sequence[BaseMessage], arguments: Mapping[str, Any]) -> Snapshot:
        """A copy of every list and mapping in them. What they hold is shared: texts, classes, the data of files.

        Images, audio and files of older forms are in the form that LangChain brings them to on the way to the sending.
        """
        return cls([_own_message(message) for message in _normalize_messages(messages)], _own(dict(arguments)))

    def is_of(self, messages: Sequence[BaseMessage], arguments: Mapping[str, Any]) -> bool:
        """Whether this is what they say now, too. No, where they hold what cannot be compared: it is read again."""
        try:
            return (
                len(messages) == len(self.messages)
                and all(map(_is_same, messages, self.messages))
                and _compared(arguments) == _compared(self.arguments)
            )
        except Exception:  # noqa: BLE001 - of an array, say, that took the place of another
            return False


def own_copy(model: Model) -> Model:
    """A copy of a chat model, of its class, that shares no list and no mapping with it."""
    made: Model = model.model_copy()
    _take_over(vars(made))
    return made


def _is_same(one: BaseMessage, other: BaseMessage) -> bool:
    return type(one) is type(other) and (one.__dict__ == other.__dict__ or _without_ids(one) == _without_ids(other))


def _without_ids(message: BaseMessage) -> dict[str, Any]:
    """What a message says, without the names that LangChain makes up for blocks that it brings to another form."""
    blocks = [
        {name: value for name, value in block.items() if name != "id" or not str(value).startswith(LC_AUTO_PREFIX)}
        if isinstance(block, dict) else block
        for block in message.content
    ]  # fmt: skip
    return {**message.__dict__, "content": blocks}


def _own_message(message: BaseMessage) -> BaseMessage:
    # as ``model_copy``, at half its price, and half of what the garbage collector walks: conversations are long
    kind = type(message)
    made, fields = object.__new__(kind), message.__dict__.copy()
    _take_over(fields)
    object.__setattr__(made, "__dict__", fields)
    for name in _OF_PYDANTIC:
        object.__setattr__(made, name, getattr(message, name, None))
    return made


_OF_PYDANTIC = ("__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")
"""Nothing of these is sent."""


def _take_over(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if type(value) not in _SCALARS and name not in _NEVER_SENT:
            fields[name] = value.copy() if name in _FLAT and type(value) is dict else _own(value)


_NEVER_SENT = frozenset({"artifact"})
"""What a tool found, for the program alone: of any size, and it may refer to itself."""
_FLAT = frozenset({"response_metadata", "usage_metadata"})
"""Of an answer: what lies deeper in them is not sent, and long conversations are full of it."""
_DEEPEST = 100
"""No body goes deeper: what lies there is shared, as is what leads back to where it lies."""


def _own(value: Any, within: tuple[int, ...] = ()) -> Any:
    made: Any
    if id(value) in within or len(within) == _DEEPEST:
        return value
    if isinstance(value, dict):
        made = dict(value)
        items: Iterable[tuple[Any, Any]] = made.items()
    elif isinstance(value, list):
        made = list(value)
        items = enumerate(made)
    else:
        return tuple(_own(list(value), within)) if type(value) is tuple else value
    inner = None
    for at, item in items:
        if type(item) not in _SCALARS:
            inner = inner or (*within, id(value))
            made[at] = _own(item, inner)
    return made


def _compared(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    if _TAKEN_OUT.isdisjoint(arguments):
        return arguments
    return {name: value for name, value in arguments.items() if name not in _TAKEN_OUT}
