"""Text and tool calls of an answer of Converse, for checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.request import AnswerContent


def read_content(answer: Mapping[str, Any]) -> AnswerContent:
    """The content of an answer."""
    blocks = answer["output"]["message"]["content"]
    texts = "".join(block["text"] for block in blocks if isinstance(block.get("text"), str))
    calls = tuple((use["name"], use.get("input")) for block in blocks if (use := block.get("toolUse")) is not None)
    return AnswerContent(texts, calls, answer.get("stopReason") == "refusal")
