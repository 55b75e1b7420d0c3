"""Arms: a model with the parameters that a tier states for it, such as ``reasoning_effort``.

The capability table decides which a model has. What the caller states for a call wins over its arm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Self

from llm_cost_middleware.capabilities import ModelCapabilities, find_capabilities
from llm_cost_middleware.capabilities.efforts import LEVELS, states_thinking, states_verbosity
from llm_cost_middleware.capabilities.thinking import LEAST_BUDGET
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.platform import maker_of
from llm_cost_middleware.request import CallRequest, ModelRef

VERBOSITIES = ("low", "medium", "high")


class Arm(ModelRef):
    """A model with the parameters that a tier states for it, and by which it differs from the model alone.

    Costs and outcomes are kept by arm: two arms of a model are equal only where their parameters are.

    Args:
        provider: The provider.
        model: The model.
        parameters: ``reasoning_effort``, ``thinking_budget`` (tokens), ``verbosity``; at least one.
    """

    def __new__(cls, provider: str, model: str, parameters: Mapping[str, Any]) -> Self:
        """Keep the parameters in the order of their names."""
        made = super().__new__(cls, provider, model)
        made.__dict__["_stated"] = MappingProxyType(dict(sorted(parameters.items())))
        made.__dict__["_key"] = (provider, model, *made.__dict__["_stated"].items())
        return made

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What is asked of the model beside the call, by the names of the configuration."""
        stated: Mapping[str, Any] = self.__dict__["_stated"]
        return stated

    @property
    def plain(self) -> ModelRef:
        """The model alone."""
        return ModelRef(self.provider, self.model)

    def __str__(self) -> str:
        return "+".join([super().__str__(), *(f"{name}={value}" for name, value in self.parameters.items())])

    def __repr__(self) -> str:
        return f"Arm({self.provider!r}, {self.model!r}, {dict(self.parameters)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arm) and self.__dict__["_key"] == other.__dict__["_key"]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.__dict__["_key"])

    def __reduce__(self) -> tuple[type[Arm], tuple[str, str, dict[str, Any]]]:
        return Arm, (self.provider, self.model, dict(self.parameters))


def read_arm(target: ModelRef, parameters: Mapping[str, Any], key: str) -> ModelRef:
    """An arm from its parameters in a configuration; the model itself where there are none.

    Args:
        target: The model.
        parameters: By name.
        key: Where they stand, for errors.

    Raises:
        ConfigurationError: A value is none that the parameter has, or the table says that the model does not take it.
    """
    if not parameters:
        return target
    for name, value in parameters.items():
        if name not in _READERS:
            raise UnknownKeyError(f"{key}.{name}", ("model", *_READERS))
        if fault := _READERS[name](value):
            raise ConfigurationError(f"{fault}, not {value!r}", key=f"{key}.{name}")
    known = find_capabilities(*target)
    refused = (
        []
        if known is None
        else [why for name, value in parameters.items() if (why := _lacks(target, known, name, value))]
    )
    if refused:
        raise ConfigurationError(f"{target} {'; '.join(refused)}", key=key)
    return Arm(*target, parameters)


def parse_arm(text: str, key: str = "") -> ModelRef:
    """The arm, or the model, of its text: ``openai/gpt-5.1+reasoning_effort=low``.

    Raises:
        ConfigurationError: It is no ``provider/model``, or the model does not take what follows.
    """
    name, *rest = text.split("+")
    while rest and rest[0].partition("=")[0] not in _READERS:  # a plus in the name of the model
        name = f"{name}+{rest.pop(0)}"
    provider, slash, model = name.partition("/")
    if not (slash and provider and model):
        raise ConfigurationError(f"{text!r} is not provider/model", key=key or None)
    pairs = (part.partition("=")[::2] for part in rest)
    stated = {each: int(value) if value.isdecimal() else value for each, value in pairs}
    return read_arm(ModelRef(provider, model), stated, key or text)


def arm_for(target: ModelRef, request: CallRequest) -> ModelRef:
    """What of an arm holds for a call: what the caller states himself is taken out of it."""
    if not target.parameters:
        return target
    settings, kept = request.settings, dict(target.parameters)
    if states_thinking(settings):
        kept.pop("reasoning_effort", None)
        kept.pop("thinking_budget", None)
    if states_verbosity(settings):
        kept.pop("verbosity", None)
    if len(kept) == len(target.parameters):
        return target
    return Arm(*target, kept) if kept else target.plain


@lru_cache(maxsize=256)
def output_factor(target: ModelRef) -> float:
    """How many times as long as the model's own the answers of an arm are assumed to be, until some are seen.

    An assumption and no measurement, so that arms are told apart before their first call: a level of effort about
    doubles what the one below it writes. The first answers of an arm at a site take its place.
    """
    stated, known = target.parameters, find_capabilities(*target)
    factor = _OF_VERBOSITY.get(stated.get("verbosity", "medium"), 1.0)
    if (effort := stated.get("reasoning_effort")) is not None:
        usual = known.default_effort if known is not None else None
        factor *= _OF_EFFORT[effort] / _OF_EFFORT[usual or "none"]
    budget: int = stated.get("thinking_budget", 0)
    return factor + budget / _TOKENS_OF_FACTOR


_OF_EFFORT = {"none": 1.0, "minimal": 1.25, "low": 2.0, "medium": 4.0, "high": 8.0, "xhigh": 12.0, "max": 16.0}
_OF_VERBOSITY = {"low": 0.6, "medium": 1.0, "high": 1.6}
_TOKENS_OF_FACTOR = 2_048  # of a budget, a quarter is used: as much as a usual answer of 512 for each


def arm_fields(arm: ModelRef, request: CallRequest, *, abroad: bool, rewritten: bool) -> dict[str, Any]:
    """The fields of a body that ask for the parameters of an arm.

    Args:
        arm: The arm, as ``arm_for`` has it.
        request: The call; the other parts of a field that it has stay in it.
        abroad: Its model is another provider's.
        rewritten: The host writes a body of its own from the settings of a call: of another provider's it takes the
            words of chat completions, which it translates, and ``verbosity`` under this name everywhere.
    """
    stated, settings = arm.parameters, request.settings
    fields: dict[str, Any] = {}
    endpoint = "chat.completions" if abroad and rewritten else request.endpoint
    if (effort := stated.get("reasoning_effort")) is not None:
        holder = {"responses": "reasoning", "messages": "output_config"}.get(endpoint)
        fields |= {"reasoning_effort": effort} if holder is None else _inside(settings, holder, "effort", effort)
    if (verbosity := stated.get("verbosity")) is not None:
        inside = endpoint == "responses" and not rewritten
        fields |= _inside(settings, "text", "verbosity", verbosity) if inside else {"verbosity": verbosity}
    if (budget := stated.get("thinking_budget")) is not None:
        fields["thinking"] = {"type": "enabled", "budget_tokens": budget} if budget else {"type": "disabled"}
    return fields


def _inside(settings: Mapping[str, Any], holder: str, name: str, value: str) -> dict[str, Any]:
    given = settings.get(holder)
    return {holder: {**(given if isinstance(given, Mapping) else {}), name: value}}


def _lacks(target: ModelRef, known: ModelCapabilities, name: str, value: Any) -> str:
    """Why a model does not take a parameter; empty where it does."""
    if name == "reasoning_effort" and value not in known.efforts:
        return (
            f"has the efforts {', '.join(known.efforts)}, not {value}" if known.efforts else "takes no reasoning_effort"
        )
    if name == "verbosity" and (not known.verbosity or maker_of(target.provider) == "anthropic"):
        return "takes no verbosity"
    if name == "thinking_budget":
        style = "enabled" if value else "disabled"
        if style not in known.thinking:
            return "takes no thinking_budget" if value else "cannot be told not to think"
    return ""


def _effort_fault(value: Any) -> str:
    return "" if isinstance(value, str) and value in LEVELS else f"must be one of {', '.join(LEVELS)}"


def _verbosity_fault(value: Any) -> str:
    return "" if isinstance(value, str) and value in VERBOSITIES else f"must be one of {', '.join(VERBOSITIES)}"


def _budget_fault(value: Any) -> str:
    fine = type(value) is int and (value == 0 or value >= LEAST_BUDGET)
    return "" if fine else f"must be 0, or {LEAST_BUDGET:,} tokens or more"


_READERS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {"reasoning_effort": _effort_fault, "thinking_budget": _budget_fault, "verbosity": _verbosity_fault}
)
"""The parameters of an arm, and what is wrong with a value."""
