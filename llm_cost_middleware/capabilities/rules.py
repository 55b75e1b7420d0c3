"""Whether a model takes a value of a parameter: one rule a concept of ``parameters.toml``.

A rule may write a change of its own into ``at.changes``, and then the model takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.capabilities.efforts import nearest_effort
from llm_cost_middleware.capabilities.thinking import cap_thinking, changes_for_cap

if TYPE_CHECKING:
    from llm_cost_middleware.capabilities.fitting import Fitting

_USUAL_TIERS = frozenset({None, "auto", "default", "standard", "standard_only"})


def _is_usual(tier: Any) -> bool:
    return (tier is None or isinstance(tier, str)) and tier in _USUAL_TIERS  # a list, say, is the provider's to refuse


_THINKING_BUDGET = 4_096
"""Tokens of thinking for a caller who left their number to the model."""
_FREE_TEMPERATURE = 1
_IDLE: Mapping[str, Callable[[Any], bool]] = {
    "choices": lambda value: value == 1,
    "logprobs": lambda value: not value,
    "logit_bias": lambda value: not value,
    "stop": lambda value: not value,
    "audio": lambda value: value == ["text"],
    "speed": lambda value: value == "standard",
    "geo": lambda value: not value,
    "service_tier": _is_usual,
}
"""Values that ask for nothing."""


def asks_for_something(concept: str, value: Any) -> bool:
    """Whether a value asks for more than the absence of its parameter would."""
    idle = _IDLE.get(concept)
    return idle is None or not idle(value)


def _temperature(at: Fitting, _name: str, value: Any) -> bool:
    if at.abroad and at.target.provider == "anthropic" and isinstance(value, int | float) and value > 1:
        return False  # OpenAI's range ends at 2, Anthropic's at 1
    return _samples(at, value)


def _samples(at: Fitting, value: Any) -> bool:
    sampling = "fixed" if at.thinks else at.known.sampling
    if sampling == "fixed":
        return bool(value == _FREE_TEMPERATURE)
    return sampling != "unreasoned" or value == _FREE_TEMPERATURE or at.effort == "none"


def _top_p(at: Fitting, _name: str, value: Any) -> bool:
    if at.known.sampling == "exclusive" and at.settings.get("temperature") is not None:
        return False
    return _samples(at, value)


def _top_k(at: Fitting, _name: str, _value: Any) -> bool:
    return not at.abroad and at.known.sampling != "fixed" and not at.thinks


def _flag(field: str) -> Callable[[Fitting, str, Any], bool]:
    """A rule for a parameter that a model takes or not; a value that asks for nothing is left out without a word."""

    def rule(at: Fitting, name: str, value: Any) -> bool:
        if getattr(at.known, field):
            return True
        if asks_for_something(field, value):
            return False
        at.changes[name] = None
        return True

    return rule


def _penalties(at: Fitting, name: str, value: Any) -> bool:
    if at.known.penalties:
        return True
    if not value:
        at.changes[name] = None
        return True
    return False


def _logprobs(at: Fitting, name: str, value: Any) -> bool:
    if at.known.logprobs == "free" or (at.known.logprobs == "unreasoned" and at.stated_effort == "none"):
        return True
    if not value:
        at.changes[name] = None
        return True
    return False


def _effort(at: Fitting, name: str, value: Any) -> bool:
    if at.abroad and at.bridged and (cap := at.request.max_tokens) is not None:
        fits = changes_for_cap(at.request, at.target, cap)  # of the thinking that a host makes of it
        at.changes.update(fits or {})
        if fits is None:
            return False
    if at.abroad and (value in ("none", "minimal") or (at.bridged and not at.levels)):
        return True  # hosts have a table of their own for it
    if not at.levels:
        return False
    found = nearest_effort(value, at.levels) if isinstance(value, str) else None
    if found is not None and found != value:
        at.changes[name] = found
    return found is not None


def _reasoning(at: Fitting, name: str, value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    if at.abroad:
        return at.bridged or bool(at.levels) or value.get("effort") in (None, "none", "minimal")  # as for an effort
    if not at.levels:
        return False
    kept = dict(value)
    if isinstance(value.get("effort"), str):
        kept["effort"] = nearest_effort(value["effort"], at.levels)
    if value.get("mode") is not None and value["mode"] not in at.known.reasoning_modes:
        if value["mode"] != "standard":
            at.refused.append(f"has no reasoning.mode {value['mode']!r}")
        del kept["mode"]
    if value.get("context") is not None and value["context"] not in at.known.reasoning_contexts:
        del kept["context"]
        at.left_out.append("reasoning.context")
    for key in value.keys() - _REASONING_KEYS:
        at.refused.append(f"is not known to take reasoning.{key}")
    if kept != value:
        at.changes[name] = kept
    return True


_REASONING_KEYS = frozenset({"effort", "summary", "generate_summary", "mode", "context"})


def _text(at: Fitting, name: str, value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    form = value.get("format")
    if isinstance(form, Mapping) and form.get("type") == "json_schema" and not at.known.schema:
        at.refused.append("has no structured output")
    for key in value.keys() - {"format", "verbosity"}:
        at.refused.append(f"is not known to take text.{key}")
    if value.get("verbosity") not in (None, "medium") and not at.known.verbosity:
        at.changes[name] = {key: item for key, item in value.items() if key != "verbosity"}
        at.left_out.append("text.verbosity")
    return True


def _verbosity(at: Fitting, name: str, value: Any) -> bool:
    if at.known.verbosity and not at.abroad:
        return True
    if value == "medium":
        at.changes[name] = None
        return True
    return False


def _output_config(at: Fitting, name: str, value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    kept = dict(value)
    if value.get("effort") is not None and not at.abroad:
        thinking = at.settings.get("thinking")
        quiet = isinstance(thinking, Mapping) and thinking.get("type") == "disabled"
        found = nearest_effort(str(value["effort"]), (quiet and at.known.quiet_efforts) or at.known.efforts)
        if found is None:
            del kept["effort"]
            at.left_out.append("output_config.effort")
        else:
            kept["effort"] = found
    if value.get("effort") is not None and at.abroad and not at.bridged:
        at.changes["reasoning_effort"] = found = at.stated_effort
        if found is None:
            at.left_out.append("output_config.effort")
    if value.get("format") is not None and not at.known.schema:
        at.refused.append("has no structured output")
    for key in value.keys() - {"format", "effort"}:
        at.refused.append(f"is not known to take output_config.{key}")
    if kept != value:
        at.changes[name] = kept or None
    return True


def _thinking(at: Fitting, name: str, value: Any) -> bool:
    kind, styles = (value.get("type") if isinstance(value, Mapping) else None), at.known.thinking
    if kind in styles:
        if kind == "disabled" and "enabled" not in styles and "adaptive" not in styles:
            at.changes[name] = None  # it never thinks
        return True
    rest = {key: item for key, item in value.items() if key not in ("type", "budget_tokens")} if kind else {}
    if kind == "enabled" and "adaptive" in styles:
        at.changes[name] = {"type": "adaptive", **rest}
        return True
    if kind == "adaptive" and "enabled" in styles:
        asked, cap = {"type": "enabled", "budget_tokens": _THINKING_BUDGET}, at.request.max_tokens
        budget = asked if cap is None else cap_thinking(asked, cap)
        at.changes[name] = budget
        return budget is not None
    return False


def _schema(at: Fitting, _name: str, value: Any) -> bool:
    kind = value.get("type") if isinstance(value, Mapping) else "json_schema"  # a class, as LangChain has it
    if at.abroad and at.bridged:
        return True  # the host asks for a tool with the schema instead
    if kind == "json_object":
        return not at.abroad  # Claude has no JSON mode
    return kind == "text" or at.known.schema


def _service_tier(at: Fitting, name: str, value: Any) -> bool:
    tier = "priority" if value == "fast" else value
    if _is_usual(value):
        if at.abroad:
            at.changes[name] = None
        return True
    return not at.abroad and tier in at.known.service_tiers


def _speed(at: Fitting, name: str, value: Any) -> bool:
    if value == "standard" and at.known.speeds == ("standard",):
        at.changes[name] = None  # the parameter came with the faster ones
        return True
    return value in at.known.speeds


def _include(at: Fitting, name: str, value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return True
    kept = list(value)
    if not at.known.efforts and _ENCRYPTED in kept:
        kept.remove(_ENCRYPTED)
    if _LOGPROBS in kept and not _logprobs(at, _LOGPROBS, True):  # noqa: FBT003 - the value that is asked for
        kept.remove(_LOGPROBS)
        if at.lenient:
            at.left_out.append(_LOGPROBS)
        else:
            at.refused.append(f"does not take {_LOGPROBS}")
    if len(kept) != len(value):
        at.changes[name] = kept or None
    return True


_ENCRYPTED, _LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"

RULES: Mapping[str, Callable[[Fitting, str, Any], bool]] = {
    "temperature": _temperature,
    "top_p": _top_p,
    "top_k": _top_k,
    "penalties": _penalties,
    "seed": lambda at, _, __: not at.abroad,
    "prediction": _flag("prediction"),
    "verbosity": _verbosity,
    "parallel_tools": lambda at, _, __: at.abroad or at.known.parallel_tools,
    "effort": _effort,
    "reasoning": _reasoning,
    "text": _text,
    "output_config": _output_config,
    "thinking": _thinking,
    "stop": _flag("stop"),
    "logprobs": _logprobs,
    "logit_bias": _flag("logit_bias"),
    "choices": _flag("choices"),
    "schema": _schema,
    "audio": _flag("audio"),
    "search": _flag("search"),
    "service_tier": _service_tier,
    "speed": _speed,
    "geo": _flag("geo"),
    "cache_options": _flag("cache_options"),
    "include": _include,
}
