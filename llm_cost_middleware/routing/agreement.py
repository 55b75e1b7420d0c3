"""Whether two models came to the same answer.

Compared is what an answer says, never how it says it: the tools that it calls, a declared field of its JSON, a number
or a choice, or the result that a longer text states in so many words at its end. A text that states none agrees with an
equal one only: that mistake costs one call of the stronger model, the other one is a wrong answer.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation

from llm_cost_middleware.request import AnswerContent

_SHORT = 80  # characters; a longer text explains, and its answer must be stated
_STATED = 60  # characters of a result that is stated; what is longer goes on to explain
_STATES = re.compile(
    r"(?:\b(?:answer|result|solution|total|verdict|choice|option)\b[^.:=\n]{0,20}?(?:\bis\b|[:=])|####|\\boxed)"
    r"\s*(?P<value>[^\n]+)$",
    re.IGNORECASE,
)
_CALCULATED = re.compile(r"(?:=|\b(?:equals|gets?|gives?|makes?)\b)\s*(?P<value>[^\s=]*\d[^\s=]*)$", re.IGNORECASE)
_FENCE = re.compile(r"^```\w*\s*\n(.*)\n```$", re.DOTALL)
_NUMBER = re.compile(r"[-+\u2212]?[$\u20ac\u00a3]?\s*\d[\d,_]*(?:\.\d+)?(?:e[-+]?\d+)?\s*%?", re.IGNORECASE)
_CHOICE = re.compile(r"(?:(?:option|choice|answer)\s*:?\s*)?\(?([a-j])[).:]?", re.IGNORECASE)
_QUOTES = "\"'`*_ \u201c\u201d\u2018\u2019{}()[]"


def answers_agree(one: AnswerContent, other: AnswerContent, *, field: str = "") -> bool:
    """Return whether two answers are the same answer.

    Args:
        one: The answer of one model.
        other: The answer of another.
        field: The field of a JSON answer that holds the result, dots between nested ones; empty: the whole document.
    """
    if one.tool_calls or other.tool_calls:  # they are the answer: the text beside them varies
        return _calls(one) == _calls(other)
    said = stated_answer(one.text, field)
    return said is not None and said == stated_answer(other.text, field)


def stated_answer(text: str, field: str = "") -> object:
    """Return what a text answers, in a form that can be compared; ``None`` where it says nothing."""
    text = text.strip()
    fenced = _FENCE.match(text)
    found, document = _parsed(fenced[1] if fenced else text)
    if found and (field or isinstance(document, dict | list)):
        for name in field.split(".") if field else ():
            document = document.get(name) if isinstance(document, dict) else None
        if document is None:  # a missing field is no answer
            return None
        return _value(document) if isinstance(document, str) else ("json", _canonical(document))
    if field or not text:
        return None
    if len(text) <= _SHORT:
        stated = _STATES.search(text)
        return _value(stated["value"] if stated else text)
    last = text.rstrip().splitlines()[-1]
    # of the last sentence; an abbreviation or a decimal point is no end of one
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z])", last)[-1]
    stated = _STATES.search(sentence)
    stated = stated or _CALCULATED.search(sentence)
    if stated and len(stated["value"].strip()) <= _STATED:
        return _value(stated["value"])
    return "text", _words(text)


def _calls(answer: AnswerContent) -> list[tuple[str, object]]:
    calls = []
    for name, arguments in answer.tool_calls:
        found, value = _parsed(arguments) if isinstance(arguments, str) else (True, arguments)
        calls.append((name, _canonical(value) if found else arguments))
    return sorted(calls, key=repr)  # parallel calls come in any order


def _parsed(text: str) -> tuple[bool, object]:
    try:
        return True, json.loads(text)
    except (ValueError, RecursionError):
        return False, None


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _value(text: str) -> tuple[str, object]:
    """A number as a number, a choice as its letter, anything else as words."""
    bare = text.strip().rstrip(".!;").strip(_QUOTES).rstrip(".!;")
    if _NUMBER.fullmatch(bare):
        unit = "%" if bare.endswith("%") else ""
        digits = re.sub(r"[$\u20ac\u00a3,_%\s+]", "", bare).replace("\u2212", "-")
        try:
            return f"number{unit}", Decimal(digits).normalize()
        except InvalidOperation:
            pass
    if choice := _CHOICE.fullmatch(bare):
        return "choice", choice[1].casefold()
    return "text", _words(bare)


def _words(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")
