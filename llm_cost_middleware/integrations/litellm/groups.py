"""A router's model groups as the pipeline sees them: which model a group calls, and at what price.

A group may hold several deployments; LiteLLM balances between them. The money set aside must cover whichever it picks,
so the deployments of one group must agree in what decides the price, or one of them must cost the most in everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from threading import Lock
from typing import Any, NamedTuple

from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.integrations.litellm.arguments import TIMEOUTS
from llm_cost_middleware.integrations.litellm.entry_points import all_deployments, named_deployments
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import NAMES, get_provider
from llm_cost_middleware.request import ModelRef

_PRICES: Mapping[str, str] = {
    "input_cost_per_token": "input_mtok",
    "output_cost_per_token": "output_mtok",
    "cache_read_input_token_cost": "cache_read_mtok",
    "cache_creation_input_token_cost": "cache_write_mtok",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_mtok",
    "input_cost_per_audio_token": "input_audio_mtok",
    "output_cost_per_audio_token": "output_audio_mtok",
}
"""LiteLLM's names of a deployment's own prices, in USD a token, and the catalogue's, in USD a million tokens."""
_DEFAULTS = (
    "max_tokens",
    "max_completion_tokens",
    "n",
    "tools",
    "service_tier",
    "speed",
    "thinking",
    "reasoning_effort",
)
"""Parameters of a deployment that LiteLLM adds to its calls, and that decide what a call can cost."""
_ADDS = frozenset({"n", "tools"})
"""Those that make a call cost more than its caller can know; a group with them is called by name only."""
_MTOK = 10**6


class Group(NamedTuple):
    """A model group that can be governed."""

    target: ModelRef
    """The model it calls; where it mixes models, the one that costs the most."""
    alias: bool
    """Its price is its own: ``target`` names the group, and the model that an answer names does not decide it."""
    mixed: bool
    defaults: Mapping[str, Any]
    own_timeout: bool
    shadowed: bool
    """A deployment has a ``silent_model``: LiteLLM would send each chat there too, unless it is kept from it."""


class Deployment(NamedTuple):
    """What matters here of one entry of a ``model_list``."""

    group: str
    target: ModelRef | None
    """``None``: a platform with prices of its own, or a provider that is not known."""
    prices: tuple[tuple[str, str], ...]
    params: Mapping[str, Any]


class Groups:
    """The groups of a router, read when first asked for and again when its deployments have changed.

    Args:
        router: A ``litellm.Router``.
        catalogue: Prices. Deployments with prices of their own are added to it.
    """

    def __init__(self, router: Any, catalogue: Catalogue) -> None:
        self.router, self._catalogue = router, catalogue
        self._reading = Lock()
        self._seen: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []
        self._groups: dict[str, tuple[Sequence[Any], Group]] = {}
        """Each with the deployments that its name led to."""
        self.serving: dict[ModelRef, str] = {}
        """The models that can be routed to, each with the group that serves it; as last read."""
        self.reach: frozenset[str] = frozenset()
        """The same models, by provider and name."""

    def find(self, model: str) -> Group | None:
        """The group of a name as callers use it, as last read; ``None`` where it is not of a provider that is governed.

        Raises:
            UnsupportedRequestError: The group mixes deployments of which none costs the most in everything.
        """
        groups, entries = self._groups, named_deployments(self.router, model)
        known = groups.get(model)
        # a name leads elsewhere once an alias is set, which leaves the deployments as they are
        if known is not None and known[0] == entries:
            return known[1]
        group = self._group(model, [_deployment(entry) for entry in entries])
        if group is not None:
            groups[model] = entries, group
        return group

    def refresh(self) -> None:
        """Read the router's deployments again where it has changed."""
        if not self._is_read():
            with self._reading:
                if not self._is_read():
                    self._read()

    def _is_read(self) -> bool:
        # by value: a deployment can be edited in place; values that stayed are the same objects, so this is quick
        return bool(self._seen == all_deployments(self.router))

    def _read(self) -> None:
        self._entries = entries = [_copied(entry) for entry in all_deployments(self.router)]
        deployments = [_deployment(entry) for entry in entries]
        self._enter_prices(deployments)
        serving: dict[ModelRef, str] = {}
        for name in dict.fromkeys(deployment.group for deployment in deployments):
            group = self._group_or_none(name, [entry for entry in deployments if entry.group == name])
            if group is not None and not (
                group.alias or group.mixed or group.shadowed or _ADDS & group.defaults.keys()
            ):
                serving.setdefault(group.target, name)
        self.serving, self.reach = serving, frozenset(map(str, serving))
        self._groups = {}
        self._seen = entries  # last: a reader that finds it up to date finds the rest so

    def _group_or_none(self, name: str, entries: Sequence[Deployment]) -> Group | None:
        try:
            return self._group(name, entries)
        except UnsupportedRequestError:  # raised when it is called
            return None

    def _group(self, name: str, entries: Sequence[Deployment]) -> Group | None:
        kinds = {(entry.target, entry.prices) for entry in entries}
        if not kinds or any(target is None for target, _ in kinds):
            return None
        targets = sorted({self._priced(target, prices, name) for target, prices in kinds if target is not None})
        target = targets[0] if len(targets) == 1 else self._costliest(name, targets)
        defaults: dict[str, Any] = {}
        for key in _DEFAULTS:
            values = [entry.params.get(key) for entry in entries]
            if any(value != values[0] for value in values):
                raise UnsupportedRequestError(
                    f"model group {name!r}", f"its deployments differ in {key}: give each a group of its own"
                )
            if values[0] is not None:
                defaults[key] = values[0]
        timeout = any(entry.params.get(key) is not None for entry in entries for key in TIMEOUTS)
        shadowed = any(entry.params.get("silent_model") is not None for entry in entries)
        return Group(target, _is_alias(target), len(targets) > 1, defaults, timeout, shadowed)

    def _costliest(self, name: str, targets: Sequence[ModelRef]) -> ModelRef:
        cards = {target: self._card(target) for target in targets}
        for target, card in cards.items():
            if all(mine >= other for rival in cards.values() for mine, other in zip(card, rival, strict=True)):
                return target
        raise UnsupportedRequestError(
            f"model group {name!r}",
            f"it mixes {', '.join(map(str, targets))}, none of which costs the most in everything: give each a group "
            "of its own, or list them in a tier and call the routed name",
        )

    def _card(self, target: ModelRef) -> tuple[float, ...]:
        """What a byte of input and a token of output cost at most."""
        levels = self._catalogue.upper_bound_rates(target.provider, target.model).levels
        provider = get_provider(target.provider)
        most_per_input = max(
            max(level.uncached_input, level.cache_write_5m, level.cache_write_1h, level.cache_write_30m)
            for level in levels
        )
        return most_per_input * provider.tokens_per_byte, max(level.output for level in levels)

    def _priced(self, target: ModelRef, prices: tuple[tuple[str, str], ...], group: str) -> ModelRef:
        return ModelRef(target.provider, _alias(target.model, group)) if prices and self._varies(target) else target

    def _varies(self, target: ModelRef) -> bool:
        """Whether the deployments of a model differ in price, so that the model's name alone does not decide it."""
        deployments = (_deployment(entry) for entry in self._entries)
        return len({entry.prices for entry in deployments if entry.target == target}) > 1

    def _enter_prices(self, deployments: Sequence[Deployment]) -> None:
        overrides: dict[str, Any] = {}
        for entry in deployments:
            if entry.prices and entry.target is not None:
                target = self._priced(entry.target, entry.prices, entry.group)
                overrides[str(target)] = dict(entry.prices)
                if target != entry.target:
                    overrides[str(target)]["same_as"] = str(entry.target)
        if overrides:
            self._catalogue.add_fallback_prices(overrides)


def _copied(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What can be edited in place, apart from the router's own."""
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in entry.items()}


def _deployment(entry: Mapping[str, Any]) -> Deployment:
    params: Mapping[str, Any] = entry["litellm_params"]
    return Deployment(entry["model_name"], target_of(params), tuple(_own_prices(entry)), params)


def target_of(params: Mapping[str, Any]) -> ModelRef | None:
    """The model that parameters of LiteLLM name; ``None`` for platforms and providers that are not governed."""
    from litellm import get_llm_provider

    try:
        model, provider, _, _ = get_llm_provider(
            model=params["model"],
            custom_llm_provider=params.get("custom_llm_provider"),
            api_base=params.get("api_base"),
        )
    except Exception:  # noqa: BLE001 - whatever LiteLLM raises for a name it does not know: nothing we can govern
        return None
    # "responses/" and "chat_completions/" choose LiteLLM's way to the model; they are no part of its name
    model = model.removeprefix("responses/").removeprefix("chat_completions/")
    return ModelRef(provider, model) if provider in NAMES else None


def _own_prices(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for source in (entry["litellm_params"], entry.get("model_info") or {}):
        found = {name: source[key] for key, name in _PRICES.items() if source.get(key) is not None}
        if found:
            for name in sorted(found):
                # the decimal that was written, not the binary float nearest to it
                yield name, f"{Decimal(repr(found[name])) * _MTOK:f}"
            return


def _alias(model: str, group: str) -> str:
    return f"{model}@{group}"


def _is_alias(target: ModelRef) -> bool:
    return "@" in target.model
