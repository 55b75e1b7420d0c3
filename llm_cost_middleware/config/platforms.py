"""``[platforms.NAME]``: access to a platform, and which model stands behind each of its deployments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from llm_cost_middleware.config.addresses import check_base_url
from llm_cost_middleware.config.sections import ServiceTier, read_section
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.platform import PLATFORMS, PROVISIONED, REGIONAL, at_place, find_platform, served_model
from llm_cost_middleware.pricing.overlay import read_price
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.typed_fields import canonical_fields, names_unknown_keys

_PRICES = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
_KEYS = ("model", "place", "region", "type", *_PRICES)


@names_unknown_keys("platforms")
@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """``[platforms.NAME]``. Keys are in the environment, never in the file."""

    base_url: str = ""
    """Its address: what listens there is taken for the platform."""
    api_key_env: str = ""
    """The variable that shows that it can be reached; empty: those of its SDK."""
    timeout_s: float | None = None
    service_tier: ServiceTier = ""
    send_service_tier: bool = False
    gateway: Literal["auto", "provider", "foreign"] = "auto"
    place: str = ""
    """Where deployments are served that say nothing else: ``global``, a zone (``eu``) or a region. Empty: not known,
    so that they are held and booked at the dearest place, as an estimate."""
    deployments: Mapping[str, Any] = field(default_factory=dict)
    """By the name that is called: the model, or a table with ``model``, ``place`` (or ``region``, ``type``) and, of a
    ``provisioned`` one, what a million tokens cost: ``input_mtok``, ``output_mtok``; "0" where the hour is paid."""
    name: str = field(init=False, default="", compare=False)
    _targets: Mapping[str, ModelRef] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        canonical_fields(self, "platforms", leave=("deployments",))
        check_base_url(self.base_url)
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise ConfigurationError(f"must be positive, not {self.timeout_s!r}", key="timeout_s")

    def named(self, name: str) -> PlatformConfig:
        """This section as that of a platform: its places and models are read.

        Raises:
            ConfigurationError: A place or a model that the platform does not have.
        """
        put, key = object.__setattr__, f"platforms.{name}"
        put(self, "name", name)
        if self.place:
            put(self, "place", _place(name, self.place, f"{key}.place"))
        given: object = self.deployments
        if not isinstance(given, Mapping):
            form = 'must be a table such as { my-deployment = "gpt-5-mini" }'
            raise ConfigurationError(f"{form}, not {given!r}", key=f"{key}.deployments")
        read = {wire: _target(self, entry, f"{key}.deployments.{wire}") for wire, entry in self.deployments.items()}
        put(self, "deployments", MappingProxyType(dict(self.deployments)))
        put(self, "_targets", MappingProxyType(read))
        _check_prices(self, key)
        return self

    def target(self, wire: str) -> ModelRef:
        """What a name that is sent stands for: a configured deployment, or a model by its own name."""
        found = self._targets.get(wire)
        if found is not None:
            return found
        return self.placed(ModelRef(self.name, wire))

    def sent_from(self, place: str, name: str) -> ModelRef:
        """What a name stands for that a client sends which is bound to a place; empty: to none."""
        target, platform = self.target(name), find_platform(self.name)
        if not place or platform is None or platform.parse(target.model) is None:
            return target
        said, meant = (served_model(self.name, one).place for one in (name, target.model))
        if said == REGIONAL and meant != PROVISIONED:  # it is served where its client sends it, whatever is configured
            return ModelRef(self.name, at_place(target.model.rpartition("/")[2], place))
        if platform.geography(place) == _GOVERNMENT != platform.geography(meant) and meant not in ("", PROVISIONED):
            # a cloud of its own, which reaches nothing outside it: what is configured is of another client
            return ModelRef(self.name, at_place(target.model.removeprefix(f"{meant}/"), place))
        if meant in ("", REGIONAL):
            return ModelRef(self.name, at_place(target.model, place))
        if name in self.deployments or said:
            return target
        return ModelRef(self.name, at_place(name, place))

    def placed(self, target: ModelRef) -> ModelRef:
        """A target with the configured place, where it names none."""
        platform = find_platform(self.name)
        served = platform.parse(target.model) if platform is not None and self.place else None
        if served is None or served.place not in ("", REGIONAL):
            return target
        return ModelRef(self.name, at_place(target.model, self.place))

    def wire(self, target: ModelRef) -> str | None:
        """The name to send for a target; ``None`` where deployments are configured, and none of them is of it."""
        for wire, known in self._targets.items():
            if known == target.plain:
                return wire
        platform = find_platform(self.name)
        served = platform.parse(target.model) if platform is not None else None
        if served is None or (self._targets and platform is not None and platform.deploys):
            return None
        bare = target.model.removeprefix(f"{served.place}/") if served.place else target.model
        return bare if platform is None else platform.sent_as(bare)

    def makes_batches(self, wire: str) -> bool:
        """Whether the deployment of a name is said to answer batches."""
        entry, platform = self.deployments.get(wire), find_platform(self.name)
        kind = entry.get("type", "") if isinstance(entry, Mapping) else ""
        return platform is not None and platform.batches and platform.is_batch_type(str(kind))

    def prices(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The prices that deployments state, by target."""
        for wire, entry in self.deployments.items():
            stated = {name: entry[name] for name in _PRICES if name in entry} if isinstance(entry, Mapping) else {}
            if stated:
                yield str(self._targets[wire]), stated


def default_platforms() -> dict[str, PlatformConfig]:
    """The access to every platform."""
    return {name: PlatformConfig().named(name) for name in PLATFORMS}


def read_platforms(value: object) -> Mapping[str, PlatformConfig]:
    """Read ``[platforms]``.

    Raises:
        ConfigurationError: It is no table, or a section that cannot be used.
    """
    if not isinstance(value, Mapping):
        form = "must be a table such as {'azure': {'deployments': {'my-deployment': 'gpt-5-mini'}}}"
        raise ConfigurationError(f"{form}, not {value!r}", key="platforms")
    for name in value:
        if name not in PLATFORMS:
            raise UnknownKeyError(f"platforms.{name}", PLATFORMS)
    sections = {name: read_section(PlatformConfig, value.get(name, {}), f"platforms.{name}") for name in PLATFORMS}
    return MappingProxyType({name: section.named(name) for name, section in sections.items()})


def _place(name: str, text: object, key: str) -> str:
    platform = find_platform(name)
    served = platform.parse(f"{text}/{_ANY_MODEL[platform.provider]}") if platform is not None else None
    if served is None or not served.place:
        raise ConfigurationError(f"{text!r} is no place of {name}: global, a zone such as eu, or a region", key=key)
    return served.place


_GOVERNMENT = "us-gov"
_ANY_MODEL = {"openai": "gpt-5", "anthropic": "claude-sonnet-4-5"}


def _target(section: PlatformConfig, entry: Any, key: str) -> ModelRef:
    stated = {"model": entry} if isinstance(entry, str) else entry
    if not isinstance(stated, Mapping) or not isinstance(stated.get("model"), str):
        raise ConfigurationError(f'must be a model, or a table such as {{ model = "…" }}, not {entry!r}', key=key)
    for name in stated:
        if name not in _KEYS:
            raise UnknownKeyError(f"{key}.{name}", _KEYS)
        if name in _PRICES:  # here, where it is known under which key it stands
            read_price(stated[name], f"{key}.{name}")
    model = stated["model"].removeprefix(f"{section.name}/")
    platform = find_platform(section.name)
    served = platform.parse(model) if platform is not None else None
    if served is None:
        raise ConfigurationError(f"{model!r} is no model that {section.name} serves", key=f"{key}.model")
    found = {
        name: _place(section.name, stated[name], f"{key}.{name}")
        for name in ("type", "region", "place")
        if name in stated and not (name == "type" and platform is not None and platform.deployed_at is not None)
    }
    if platform is not None and platform.deployed_at is not None:
        at = found.get("place", served.place)
        place = platform.deployed_at(str(stated.get("type", "")), found.get("region", ""), at, section.place, key)
    else:  # the first is the type: of a provisioned deployment the price, wherever it stands
        places = [*found.values()]
        place = PROVISIONED if PROVISIONED in places else places[-1] if places else served.place or section.place
    bare = model.removeprefix(f"{served.place}/") if served.place else model
    known = platform.parse(bare) if platform is not None else None
    carried = known is not None and known.place == place  # some names say where they are served
    return ModelRef(section.name, bare if carried else at_place(bare, place))


def _check_prices(section: PlatformConfig, key: str) -> None:
    """One target has one price: it is what the ledger and every report know it by.

    Any other place than ``provisioned`` is shared with all deployments of the model there, which would cost the same.
    """
    seen: dict[str, dict[str, Any]] = {}
    for target, stated in section.prices():
        if served_model(section.name, target).place != PROVISIONED:
            advice = f'add type = "{PROVISIONED}", or write [prices."{target}"] for all deployments of it'
            raise ConfigurationError(f"states a price of {target}: {advice}", key=f"{key}.deployments")
        if seen.setdefault(target, stated) != stated:
            raise ConfigurationError(f"states two prices for {target}", key=f"{key}.deployments")
    for wire in section.deployments:
        if (of := str(section.target(wire))) in seen and not any(name in section.deployments[wire] for name in _PRICES):
            raise ConfigurationError(
                f"is served as {of}, which has a price: state its own", key=f"{key}.deployments.{wire}"
            )
