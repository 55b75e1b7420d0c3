"""Text and tool calls of an answer, in whichever of the three shapes it came: its text and the tools it calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_cost_middleware.request import AnswerContent
from llm_cost_middleware.wire import field_reader


def read_content(response: Any) -> AnswerContent:
    """Read a whole answer of the messages, chat or responses endpoint, as JSON or as an SDK's object; the first choice.

    Anything else has no content.
    """
    get = field_reader(response)
    if choices := _list(get("choices")):
        return _chat(field_reader(choices[0])("message"))
    if output := get("output"):
        return _responses(output)
    return _blocks(get("content"))


def _chat(message: Any) -> AnswerContent:
    get = field_reader(message)
    functions = [field_reader(field_reader(call)("function")) for call in _list(get("tool_calls"))]
    calls = tuple((function("name"), function("arguments")) for function in functions)
    return AnswerContent(_text(get("content")), calls, refused=bool(get("refusal")))


def _responses(output: Any) -> AnswerContent:
    texts, calls, refused = [], [], False
    for item in _list(output):
        get = field_reader(item)
        if get("type") == "function_call":
            calls.append((get("name"), get("arguments")))
        elif get("type") == "message":
            texts.append(_text(get("content")))
            refused = refused or any(field_reader(part)("type") == "refusal" for part in _list(get("content")))
    return AnswerContent("".join(texts), tuple(calls), refused)


def _blocks(content: Any) -> AnswerContent:
    calls = []
    for block in _list(content):
        get = field_reader(block)
        if get("type") == "tool_use":
            calls.append((get("name"), get("input")))
    return AnswerContent(_text(content), tuple(calls))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = [field_reader(part)("text") for part in _list(content)]
    return "".join(part for part in parts if isinstance(part, str))


def _list(value: Any) -> Sequence[Any]:
    """``value`` if it is a list: an answer may come from anywhere."""
    return value if isinstance(value, list | tuple) else ()
