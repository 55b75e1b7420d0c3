"""Messages of a role and a text each, of which most conversations consist: kept as two columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from llm_cost_middleware.contents import Columns
from llm_cost_middleware.request import Message, Part, Role

_ROLE_AND_TEXT = 2
"""Fields of a message that is nothing but a role and a text."""


class PlainTurns(Columns, Sequence[Message]):
    """The messages as a sequence: their blocks are made for who asks for them, and few do."""

    __slots__ = ("_messages",)

    def __init__(self, roles: list[Role], texts: list[str]) -> None:
        self.roles, self.texts = roles, texts
        self._messages: tuple[Message, ...] | None = None

    def __len__(self) -> int:
        return len(self.roles)

    @overload
    def __getitem__(self, at: int) -> Message: ...

    @overload
    def __getitem__(self, at: slice) -> PlainTurns: ...

    def __getitem__(self, at: int | slice) -> Message | PlainTurns:
        if isinstance(at, slice):
            return PlainTurns(self.roles[at], self.texts[at])
        return Message(self.roles[at], (Part("text", self.texts[at]),))

    def __iter__(self) -> Iterator[Message]:
        if self._messages is None:
            self._messages = tuple(
                [Message(role, (Part("text", text),)) for role, text in zip(self.roles, self.texts, strict=True)]
            )
        return iter(self._messages)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == (tuple(other) if isinstance(other, PlainTurns) else other)

    __hash__ = None  # type: ignore[assignment]  # as of messages with attachments

    def __repr__(self) -> str:
        return repr(tuple(self))


def read_plain(messages: Any, speakers: Mapping[Any, Role], instructions: Any = None) -> PlainTurns | None:
    """Read messages of a body that are all a role and a text; ``None`` where one is more than that, or there is none.

    Args:
        messages: Those of the body.
        speakers: Roles that are written so, in our words.
        instructions: What stands before them, if anything does.
    """
    if type(messages) is not list and type(messages) is not tuple:
        return None  # what can be gone through once only
    roles: list[Role] = []
    texts: list[str] = []
    if instructions:
        if type(instructions) is not str:
            return None
        roles.append("system")
        texts.append(instructions)
    for message in messages:
        if type(message) is not dict or len(message) != _ROLE_AND_TEXT:
            return None
        try:
            text, role = message["content"], speakers[message["role"]]
        except (KeyError, TypeError):  # a list, say: the provider says what it thinks of that
            return None
        if type(text) is not str:
            return None
        roles.append(role)
        texts.append(text)
    return PlainTurns(roles, texts) if roles else None
