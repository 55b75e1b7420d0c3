"""A router's model groups as the pipeline sees them: which model a group calls, and at what price.

A group may hold several deployments; LiteLLM balances between them. The money set aside must cover whichever it picks,
so the deployments of one group must agree in what decides the price, or one of them must cost the most in everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import litellm

from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.integrations.litellm.arguments import TIMEOUTS, check_timeouts
from llm_cost_middleware.integrations.litellm.deployments import (
    Deployment,
    Platforms,
    Prices,
    check_named,
    deployment_of,
    own_prices,
    target_of,
)
from llm_cost_middleware.integrations.litellm.entry_points import (
    aliases,
    all_deployments,
    default_parameters,
    deployment_id,
)
from llm_cost_middleware.integrations.litellm.group import Group, PricedDeployment, ServedModels
from llm_cost_middleware.integrations.litellm.injection import places_marks
from llm_cost_middleware.integrations.litellm.mocks import asks_for_mock
from llm_cost_middleware.integrations.litellm.resolve import reach_key, reached
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import EMPTY, ModelRef

_DEFAULTS = (
    "max_tokens",
    "max_completion_tokens",
    "maxTokens",
    "n",
    "tools",
    "service_tier",
    "speed",
    "thinking",
    "reasoning_effort",
    "extra_body",
    "additional_drop_params",
)
"""Parameters of a deployment that LiteLLM adds to its calls, and that decide what a call can cost."""
_ADDS = frozenset({"n", "tools"})
"""Those that make a call cost more than its caller can know; a group with them is called by name only."""
_AT_ONCE = 32
"""Entries that are compared in one turn: a call may not wait for a thousand."""
_KEPT = 1_024
"""Names and price lists that are remembered, at most: a wildcard serves any number of names."""


class _Watch(NamedTuple):
    """Entries of a router on which something rests that was read off them."""

    live: Sequence[Any]
    """The router's own."""
    copies: Sequence[Any]
    """What they were: an entry can be edited in place."""
    turns: Iterator[int]

    def still_so(self) -> bool:
        """Whether they are what they were; of many, some in each turn.

        An edit by hand in a group of hundreds is so seen some calls later. What is changed through LiteLLM is another
        entry, which is seen at once.
        """
        count = len(self.live)
        if count <= _AT_ONCE:  # of values that stayed, the objects are the same, so this is quick
            return bool(self.copies == self.live)
        start = next(self.turns) * _AT_ONCE % count
        return bool(self.copies[start : start + _AT_ONCE] == self.live[start : start + _AT_ONCE])


class _Known(NamedTuple):
    """A name that was asked for before."""

    watch: _Watch
    group: Group | None


class _Lists(NamedTuple):
    """A router's lists as they were read."""

    watch: _Watch
    """All entries."""
    aliases: Mapping[str, Any]
    renamed: Mapping[str, Any]
    """LiteLLM's ``model_alias_map``, which it applies to the model of a deployment."""
    by_id: Mapping[Any, tuple[Any, Any]]
    """Each entry with its copy."""
    served: ServedModels
    serving: _Watch
    """The entries that calls can be routed to."""
    known: dict[Any, _Known]
    prices: str
    """The version of the prices by which the dearest of a group was found."""
    platforms: Platforms = EMPTY


_NO_ENTRIES = _Watch((), (), count())
_NOTHING_READ = _Lists(
    _NO_ENTRIES, {"": ""}, {}, {},
    ServedModels({}, frozenset(), None, frozenset(), places_marks=False, router_id=0), _NO_ENTRIES, {}, "",
)  # fmt: skip


class Groups:
    """What the names of a router reach, asked for once and again when its lists have changed.

    Args:
        router: A ``litellm.Router``.
        catalogue: Prices. It stays as it is: a deployment's own prices are laid over it for its calls alone.
        platforms: Says ``[platforms]``, which stays what it is until it is reloaded: what stands behind the names of
            deployments.
    """

    _reading = ForkSafeLock()

    def __init__(self, router: Any, catalogue: Catalogue, platforms: Callable[[], Platforms] = lambda: EMPTY) -> None:
        self.router, self._catalogue, self._platforms = router, catalogue, platforms
        self._lists = _NOTHING_READ
        self._price_lists: dict[Any, Catalogue] = {}
        self._told: set[ModelRef] = set()

    @property
    def served(self) -> ServedModels:
        """The models that calls can be routed to, as last read."""
        return self._lists.served

    def find(self, model: Any, request: Mapping[str, Any]) -> Group | None:
        """What a request's name reaches; ``None`` where not all of it is known, or of a provider that is governed.

        Args:
            model: The name as callers use it.
            request: The keyword arguments of the call.

        Raises:
            UnsupportedRequestError: It reaches deployments of which none costs the most in everything.
            litellm.BadRequestError: LiteLLM does not know the name.
        """
        lists = self._current()
        key = reach_key(model, request)
        known = lists.known.get(key) if isinstance(model, str) else None
        if known is not None and known.watch.still_so():
            return known.group
        if known is not None:
            lists = self._read(lists)
        entries, lasting = reached(self.router, model, request)
        group = self._group(str(model), [deployment_of(entry, lists.platforms) for entry in entries])
        if lasting:
            if len(lists.known) >= _KEPT:
                lists.known.clear()
            lists.known[key] = _Known(_resting_on(model, entries, lists), group)
        return group

    def deployed(self, sent: Mapping[str, Any]) -> Group | None:
        """The deployment that LiteLLM has picked, from the arguments it is about to send; ``None`` as of ``find``."""
        lists = self._current()
        info = sent.get("model_info")
        _, known = lists.by_id.get(info.get("id") if isinstance(info, Mapping) else None, (None, None))
        # its prices are those of the list: among the arguments they may be a client's
        prices = () if known is None else tuple(own_prices(known))
        name, target = str(sent.get("model")), target_of({**sent, "model": str(sent.get("model"))}, lists.platforms)
        return self._group(name, [Deployment(name, target, prices, {} if known is None else known["litellm_params"])])

    def refresh(self) -> ServedModels:
        """The models that calls can be routed to, read again where the router has changed."""
        lists = self._current()
        return (lists if lists.serving.still_so() else self._read(lists)).served

    def _current(self) -> _Lists:
        """The lists; an entry of them may have been edited in place."""
        lists = self._lists
        same = (
            lists.watch.live == all_deployments(self.router)  # of the same objects, which is quick to see
            and lists.aliases == aliases(self.router)
            and lists.renamed == litellm.model_alias_map
            and lists.prices == self._catalogue.version
            and lists.platforms is self._platforms()
        )
        return lists if same else self._read(lists)

    def _read(self, seen: _Lists) -> _Lists:
        with self._reading:
            if self._lists is not seen:  # another thread has read them meanwhile
                return self._lists
            # before they are asked for: a change meanwhile is found by the next call
            prices, platforms = self._catalogue.version, self._platforms()
            live = list(all_deployments(self.router))
            copies = [_copied(entry) for entry in live]
            served = self._served([deployment_of(entry, platforms) for entry in copies])
            names = set(served.groups.values())
            pairs = [pair for pair in zip(live, copies, strict=True) if pair[1]["model_name"] in names]
            self._lists = _Lists(
                _Watch(live, copies, count()),
                _copied(aliases(self.router)),
                dict(litellm.model_alias_map),
                {deployment_id(copy): (entry, copy) for entry, copy in zip(live, copies, strict=True)},
                served,
                _Watch([entry for entry, _ in pairs], [copy for _, copy in pairs], count()),
                {},
                prices,
                platforms,
            )
            return self._lists

    def _served(self, deployments: Sequence[Deployment]) -> ServedModels:
        groups: dict[ModelRef, str] = {}
        own: dict[ModelRef, Prices] = {}
        hidden: dict[ModelRef, str] = {}
        members: dict[str, list[Deployment]] = {}
        for entry in deployments:
            members.setdefault(entry.group, []).append(entry)
        # where a model is served at its listed price, too, that is the one that is routed to
        for name in sorted(members, key=lambda name: any(entry.prices for entry in members[name])):
            group, why = self._routable(name, members[name])
            if group is None:
                hidden.update((entry.target, why) for entry in members[name] if entry.target is not None)
                continue
            if groups.setdefault(group.target, name) == name and group.prices is not None:
                own[group.target] = self._dearest(name, members[name])[1]
        return ServedModels(
            groups, frozenset(map(str, groups)), self._priced(own.items()), frozenset(own), self._mark(deployments),
            id(self.router), access={target: members[name][0].params for target, name in groups.items()},
            addresses=tuple(
                (target, str(base)) for target, name in groups.items() for entry in members[name]
                if (base := entry.params.get("api_base"))
            ), found=[], hidden={target: why for target, why in hidden.items() if target not in groups},
            told=self._told,
        )  # fmt: skip

    def _mocked(self, entries: Sequence[Mapping[str, Any]]) -> frozenset[Any]:
        every = asks_for_mock(default_parameters(self.router))
        return frozenset(deployment_id(entry) for entry in entries if every or asks_for_mock(entry["litellm_params"]))

    def _routable(self, name: str, entries: Sequence[Deployment]) -> tuple[Group | None, str]:
        """The group if calls can be routed to it, else why not."""
        try:
            group = self._group(name, entries)
        except UnsupportedRequestError as error:  # raised when it is called
            return None, str(error)
        why = ""
        if group is None:
            why = "has a deployment whose model is not known"
        elif group.alternatives:
            why = "mixes models"
        elif group.shadowed:
            why = "has a silent_model"
        elif added := _ADDS & group.defaults.keys():
            why = f"adds {' and '.join(sorted(added))} to its calls"
        return (None, f"model group {name!r} {why}") if why else (group, "")

    def _group(self, name: str, entries: Sequence[Deployment]) -> Group | None:
        if unknown := [entry for entry in entries if entry.target is None]:
            for entry in unknown:
                check_named(entry.params, self._platforms())
        if unknown or not entries:
            return None
        target, _ = self._dearest(name, entries)
        by_model = {entry.target: [rival for rival in entries if rival.target == entry.target] for entry in entries}
        own = [kind for rivals in by_model.values() if (kind := self._dearest(name, rivals))[1]]
        if any(entry.params.get("fallbacks") for entry in entries):
            # LiteLLM's own function, below the router, would follow them under the hold of the first
            raise UnsupportedRequestError(
                f"model group {name!r}", "its litellm_params have fallbacks: give them to the router, or to the call"
            )
        defaults: dict[str, Any] = {}
        for key in _DEFAULTS:
            values = [entry.params.get(key) for entry in entries]
            if any(value != values[0] for value in values):
                raise UnsupportedRequestError(
                    f"model group {name!r}", f"its deployments differ in {key}: give each a group of its own"
                )
            if values[0] is not None:
                defaults[key] = values[0]
        for entry in entries:
            check_timeouts(f"model group {name!r}", entry.params)
        timeout = any(entry.params.get(key) is not None for entry in entries for key in TIMEOUTS)
        shadowed = any(entry.params.get("silent_model") is not None for entry in entries)
        mixed = tuple(sorted(model for model in by_model if model is not None)) if len(by_model) > 1 else ()
        access = None if mixed else entries[0].params
        addresses = tuple(str(base) for entry in entries if (base := entry.params.get("api_base")))
        return Group(
            target, self._priced(own), mixed, defaults, timeout, shadowed, self._mark(entries), access, addresses,
            self._apart(by_model.values()),
        )  # fmt: skip

    def _apart(self, by_model: Iterable[Sequence[Deployment]]) -> Mapping[Any, PricedDeployment]:
        """The prices of each deployment, where they differ within a model."""
        if not any(len({entry.prices for entry in rivals}) > 1 for rivals in by_model):
            return EMPTY
        return {
            entry.id: PricedDeployment(self._priced([(target, entry.prices)]) or self._catalogue, bool(entry.prices))
            for rivals in by_model
            for entry in rivals
            if (target := entry.target) is not None
        }

    def _mark(self, entries: Sequence[Deployment]) -> bool:
        return places_marks([default_parameters(self.router), *(entry.params for entry in entries)])

    def _dearest(self, name: str, entries: Sequence[Deployment]) -> tuple[ModelRef, Prices]:
        """The model and the prices of the deployment that costs the most in everything."""
        kinds = sorted({(entry.target, entry.prices) for entry in entries if entry.target is not None})
        if len(kinds) == 1:
            return kinds[0]
        cards = {kind: self._card(*kind) for kind in kinds}
        for kind, card in cards.items():
            if all(mine >= other for rival in cards.values() for mine, other in zip(card, rival, strict=True)):
                return kind
        raise UnsupportedRequestError(
            f"model group {name!r}",
            f"it mixes {', '.join(str(target) for target, _ in kinds)}, none of which costs the most in everything: "
            "give each a group of its own, or list them in a tier and call the routed name",
        )

    def _card(self, target: ModelRef, prices: Prices) -> tuple[float, ...]:
        """What a byte of input and a token of output cost at most."""
        catalogue = self._priced([(target, prices)]) or self._catalogue
        levels = catalogue.upper_bound_rates(target.provider, target.model).levels
        provider = get_provider(target.provider)
        most_per_input = max(
            max(level.uncached_input, level.cache_write_5m, level.cache_write_1h, level.cache_write_30m)
            for level in levels
        )
        return most_per_input * provider.tokens_per_byte, max(level.output for level in levels)

    def _priced(self, own: Iterable[tuple[ModelRef, Prices]]) -> Catalogue | None:
        """The catalogue with deployments' own prices over it; ``None`` where they have none."""
        key = tuple(sorted((str(target), prices) for target, prices in own if prices))
        if not key:
            return None
        found = self._price_lists.get(key)
        if found is None:
            if len(self._price_lists) >= _KEPT:
                self._price_lists.clear()
            found = self._catalogue.with_prices({target: dict(prices) for target, prices in key})
            self._price_lists[key] = found
        return found


def _resting_on(model: str, entries: Sequence[Mapping[str, Any]], lists: _Lists) -> _Watch:
    """The router's own entries on which it rests what a name reaches."""
    pairs = [lists.by_id.get(deployment_id(entry)) for entry in entries]
    # LiteLLM fills in the model of a wildcard; and what is one deployment's model may become another one's, too
    by_group = all(
        pair is not None
        and pair[0]["litellm_params"] is entry["litellm_params"]
        and model in (entry["model_name"], deployment_id(entry))
        for pair, entry in zip(pairs, entries, strict=True)
    )
    if not by_group:
        return lists.watch
    found = [pair for pair in pairs if pair is not None]
    return _Watch([live for live, _ in found], [copy for _, copy in found], count())


def _copied(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What can be edited in place, apart from the router's own."""
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in entry.items()}
