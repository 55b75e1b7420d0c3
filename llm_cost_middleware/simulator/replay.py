"""Plays recorded conversations: the simulated model says what the recorded one said at the same point."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from .answers import Answer, Responder, SimRequest, ToolCall, Turn
from .openai.chat_request import turns
from .responders import auto

HEADER = "x-sim-conversation"


class _Point(NamedTuple):
    conversation: str
    answer: Answer


class Replay:
    """Answers with the recorded assistant message that followed the same conversation, system prompt aside.

    A conversation is compared by its texts, tool calls and tool results in order, so it is recognised through any
    endpoint. Where several recordings share a beginning, the request header ``x-sim-conversation`` picks one by its
    name (its `name`, else its position); without it they take turns.

    Args:
        conversations: Recordings: ``{"messages": [OpenAI chat messages], "name": optional}``, or bare message lists.
        fallback: Answers what no recording knows.
    """

    def __init__(
        self,
        conversations: Iterable[Mapping[str, Any] | Sequence[Mapping[str, Any]]],
        *,
        fallback: Responder = auto,
    ) -> None:
        self._points: dict[bytes, list[_Point]] = {}
        self._turn: dict[bytes, int] = {}
        self._fallback = fallback
        self.misses = 0
        for number, conversation in enumerate(conversations):
            if isinstance(conversation, Mapping):
                self._learn(str(conversation.get("name", number)), conversation["messages"])
            else:
                self._learn(str(number), conversation)

    def _learn(self, name: str, messages: Sequence[Mapping[str, Any]]) -> None:
        said = blake2b(digest_size=16)
        for message in messages:
            if message["role"] == "assistant":
                self._points.setdefault(said.digest(), []).append(_Point(name, _answer(message)))
            _hear(said, turns([message]))

    def __call__(self, request: SimRequest) -> Answer:
        """The recorded answer at this point."""
        said = blake2b(digest_size=16)
        _hear(said, request.turns)
        key = said.digest()
        points = self._points.get(key)
        if not points:
            self.misses += 1
            return self._fallback(request)
        wanted = request.headers.get(HEADER)
        if wanted is not None:
            return next((point for point in points if point.conversation == wanted), points[0]).answer
        turn = self._turn.get(key, 0)
        self._turn[key] = turn + 1
        return points[turn % len(points)].answer


def _hear(said: blake2b, heard: Iterable[Turn]) -> None:
    for turn in heard:
        text = turn.text.strip()
        if turn.kind != "system" and text:
            said.update(f"{turn.kind}\x00{text}\x00".encode("utf-8", "surrogatepass"))


def _answer(message: Mapping[str, Any]) -> Answer:
    calls = tuple(
        ToolCall(call["function"]["name"], json.loads(call["function"]["arguments"] or "{}"))
        for call in message.get("tool_calls") or ()
    )
    return Answer(text=message.get("content") or "", tool_calls=calls)
