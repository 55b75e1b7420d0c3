"""Responder that plays recorded conversations: the recorded answer at the same point."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from .answers import Answer, Responder, SimRequest, ToolCall, Turn
from .openai.chat_request import turns
from .responders import auto

HEADER = "x-sim-conversation"


class _RecordedAnswer(NamedTuple):
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
        self._points: dict[bytes, list[_RecordedAnswer]] = {}
        self._turn: dict[bytes, int] = {}
        self._fallback = fallback
        self.misses = 0
        for number, conversation in enumerate(conversations):
            if isinstance(conversation, Mapping):
                self._record(str(conversation.get("name", number)), conversation["messages"])
            else:
                self._record(str(number), conversation)

    def _record(self, name: str, messages: Sequence[Mapping[str, Any]]) -> None:
        digest = blake2b(digest_size=16)
        for message in messages:
            if message["role"] == "assistant":
                self._points.setdefault(digest.digest(), []).append(_RecordedAnswer(name, _answer(message)))
            _add_turns(digest, turns([message]))

    def __call__(self, request: SimRequest) -> Answer:
        """Return the recorded answer at this point."""
        digest = blake2b(digest_size=16)
        _add_turns(digest, request.turns)
        key = digest.digest()
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


def _add_turns(digest: blake2b, added: Iterable[Turn]) -> None:
    for turn in added:
        text = turn.text.strip()
        # Without the system prompt: an application may change it, and hosts place it differently.
        if turn.kind != "system" and text:
            digest.update(f"{turn.kind}\x00{text}\x00".encode("utf-8", "surrogatepass"))


def _answer(message: Mapping[str, Any]) -> Answer:
    calls = tuple(
        ToolCall(call["function"]["name"], json.loads(call["function"]["arguments"] or "{}"))
        for call in message.get("tool_calls") or ()
    )
    return Answer(text=message.get("content") or "", tool_calls=calls)
