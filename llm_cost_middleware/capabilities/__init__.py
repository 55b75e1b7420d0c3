"""What each model takes of the parameters of a request, as data: one TOML file a provider, every row with its source.

A new model gets a row there; a test fails for a model with a price and without one. ``parameters.toml`` beside them
says what becomes of a parameter that the model does not take. ``fitting`` applies both.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from llm_cost_middleware.model_table import Rows, look_up, read_rows
from llm_cost_middleware.platform import served_model

Fate = Literal["content", "cap", "hint", "demand", "bookkeeping", "provider", "home"]


class ModelCapabilities(NamedTuple):
    """What a model takes. The defaults are those of a model that takes everything."""

    sampling: Literal["free", "exclusive", "unreasoned", "fixed"] = "free"
    """``temperature`` and ``top_p``: any, one of the two, any while the effort is ``none``, the default value alone."""
    logprobs: Literal["free", "unreasoned", "none"] = "free"
    """``unreasoned``: only where the request itself states the effort ``none``."""
    penalties: bool = True
    logit_bias: bool = True
    stop: bool = True
    choices: bool = True
    """More answers than one."""
    prediction: bool = True
    audio: bool = False
    """Answers in sound."""
    search: bool = False
    """A search model of chat completions, with ``web_search_options``."""
    chat_cap: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The field that caps a chat; every model takes ``max_completion_tokens``."""
    chat_tools: Literal["free", "unreasoned"] = "free"
    """Function tools of a chat; ``unreasoned``: while the effort is ``none``."""
    efforts: tuple[str, ...] = ()
    """Levels of reasoning effort; none where it takes no effort."""
    quiet_efforts: tuple[str, ...] = ()
    """Those that it takes while thinking is ``disabled``, where they are fewer."""
    default_effort: str | None = None
    verbosity: bool = True
    thinking: tuple[str, ...] = ()
    """Styles of Anthropic's extended thinking: ``enabled`` (with a budget), ``adaptive``, ``disabled``."""
    prefill: bool = True
    """An answer that the caller has begun."""
    forced_tools: bool = True
    parallel_tools: bool = True
    """The parameter, not the ability."""
    deferred_tools: bool = False
    """Tools with ``defer_loading``."""
    schema: bool = True
    """Structured output."""
    mid_system: bool = False
    """Instructions inside the conversation (Anthropic)."""
    cache_options: bool = False
    """``prompt_cache_options``."""
    service_tiers: tuple[str, ...] = ()
    """Beyond the standard one."""
    speeds: tuple[str, ...] = ("standard",)
    geo: bool = False
    """``inference_geo``."""
    reasoning_modes: tuple[str, ...] = ("standard",)
    reasoning_contexts: tuple[str, ...] = ("auto", "current_turn")
    endpoints: tuple[str, ...] = ()
    """Where it is served; empty: at every endpoint of its provider."""


class Parameter(NamedTuple):
    """One parameter of an endpoint, and what becomes of it where the chosen model does not take it."""

    fate: Fate
    concept: str
    """What decides whether a model takes it: the name of a rule in ``fitting``; empty where none is needed."""
    soft: bool
    """A demand that may be left out where no model that can be reached meets it."""
    crosses: bool
    """It has a name at the other provider's endpoint, too."""


@cache
def find_capabilities(provider: str, model: str) -> ModelCapabilities | None:
    """What a model takes, each key from the longest name that begins its own; ``None`` for an unknown model."""
    provider, model, _ = served_model(provider, model)
    found = look_up(read_table(provider), provider, model)
    if not found:
        return None
    # the file's values are of the fields' types: tested
    stated: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    return ModelCapabilities(**stated)


@cache
def read_table(provider: str) -> Rows:
    """The rows of a provider by name, shortest names first; empty for a provider without a file."""
    return read_rows(__package__, provider, ModelCapabilities._fields)


_ENDPOINTS: Mapping[str, str] = {"chat.completions": "chat", "responses": "responses", "messages": "messages"}


@cache
def read_parameters() -> Mapping[str, Mapping[str, Parameter]]:
    """Every parameter by endpoint and name."""
    rows = tomllib.loads(files(__package__).joinpath("parameters.toml").read_text(encoding="utf-8"))["parameter"]
    found: dict[str, dict[str, Parameter]] = {endpoint: {} for endpoint in _ENDPOINTS}
    for row in rows:
        crosses = "messages" in row and bool({"chat", "responses"} & row.keys())
        for endpoint, key in _ENDPOINTS.items():
            for name in row.get(key, ()):
                found[endpoint][name] = Parameter(row["fate"], row.get("concept", ""), row.get("soft", False), crosses)
    return found
