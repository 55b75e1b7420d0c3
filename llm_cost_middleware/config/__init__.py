"""``CostConfig``: the frozen configuration of a pipeline, the same for every host.

Keys in a TOML file and keyword arguments are spelt the same. The environment overrides both:
``LLM_COST_LEDGER__URL=sqlite:///llm-cost.db`` sets ``url`` in ``[ledger]``.
"""

from __future__ import annotations

import copyreg
import logging
import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from llm_cost_middleware.alerts import AlertConfig, read_alerts
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.capabilities.arms import Arm
from llm_cost_middleware.config.budgets import UNSAID, Unsaid, check_once, read_budgets
from llm_cost_middleware.config.environment import has_overrides, named, overrides
from llm_cost_middleware.config.platforms import PlatformConfig, default_platforms, read_platforms
from llm_cost_middleware.config.sections import (
    DEFAULT_TIERS,
    LedgerConfig,
    MetricsConfig,
    OutputConfig,
    ProviderConfig,
    default_providers,
    read_section,
    read_tiers,
)
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.lifecycle.attribution import AttributionConfig
from llm_cost_middleware.money import DisplayCurrency
from llm_cost_middleware.natural_values import read_flag
from llm_cost_middleware.platform import PLATFORMS
from llm_cost_middleware.pricing.display_currency import read_display_currency
from llm_cost_middleware.pricing.overlay import configured as check_prices
from llm_cost_middleware.prompt_cache.planner import CachePolicy
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.retry.policy import RetryPolicy
from llm_cost_middleware.routing.policy import RoutingPolicy, Tier
from llm_cost_middleware.typed_fields import names_unknown_keys, read_choice

_log = logging.getLogger(__name__)
DEFAULT_FILE = "llm-cost.toml"


Mode = Literal["enforce", "observe"]
OnUnknownPrice = Literal["deny", "estimate"]
OnUngoverned = Literal["warn", "deny", "allow"]


_NOT_GIVEN = RoutingPolicy()


@names_unknown_keys()
@dataclass(frozen=True, slots=True)
class CostConfig:
    """Configuration of a pipeline. Sections may be given as mappings; they are read strictly.

    Args:
        mode: ``enforce``, or ``observe``: book everything, refuse and change nothing, report what would have happened.
        on_unknown_price: ``deny`` a model without a price, or ``estimate`` it at the highest price of the configured
            models of its provider.
        on_ungoverned: Action for calls that cannot be governed: ``warn``, ``deny`` or ``allow``.
        update_prices: Fetch newer prices over the network when the pipeline starts.
        watch: Take up budgets and prices of its file within two seconds of a change; the rest is for
            ``CostPipeline.reload``.
        ledger: ``[ledger]``.
        budgets: ``[[budgets]]``: limits by scope and window. Those that a ledger has from an earlier configuration and
            that are not among them are retired. Without any nothing is said of budgets; only a file ends those that it
            had, and an empty list says that there are none.
        tiers: ``[[tiers]]``: models from cheap to strong. Without them and without a ``[routing]`` of one's own only
            calls that ask for it by a routed name (``smart``) or by the classic functions are routed.
        providers: ``[providers.NAME]``.
        platforms: ``[platforms.NAME]``: Azure, with the model behind each of its deployments.
        routing: ``[routing]``.
        output: ``[output]``.
        retry: ``[retry]``.
        cache: ``[cache]``.
        attribution: ``[attribution]``.
        alerts: ``[[alerts]]``: what is watched for, and whom it is told to; none by default.
        metrics: ``[metrics]``.
        prices: ``[prices."provider/model"]``: dated prices that override the catalogue; discounts; the currency that
            amounts are shown in.

    Raises:
        ConfigurationError: Invalid value. ``UnknownKeyError`` names the nearest key that exists.
        InvalidAmountError: A limit or a price that is not a valid number of dollars.
    """

    mode: Mode = "enforce"
    on_unknown_price: OnUnknownPrice = "deny"
    on_ungoverned: OnUngoverned = "warn"
    update_prices: bool = False
    watch: bool = True
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    budgets: tuple[Budget, ...] = UNSAID
    tiers: tuple[Tier, ...] = DEFAULT_TIERS
    providers: Mapping[str, ProviderConfig] = field(default_factory=lambda: MappingProxyType(default_providers()))
    platforms: Mapping[str, PlatformConfig] = field(default_factory=lambda: MappingProxyType(default_platforms()))
    routing: RoutingPolicy = _NOT_GIVEN
    output: OutputConfig = field(default_factory=OutputConfig)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    cache: CachePolicy = field(default_factory=CachePolicy)
    attribution: AttributionConfig = field(default_factory=AttributionConfig)
    alerts: tuple[AlertConfig, ...] = ()
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    prices: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    routes: bool = field(init=False, default=False, compare=False)
    """Whether a call that names its own model may go to another: where tiers or a routing policy are configured."""
    file: Path | None = field(init=False, default=None, compare=False, repr=False)
    """The file that it was read from."""
    written_at: float | None = field(init=False, default=None, compare=False, repr=False)
    """When that was changed, seconds since the Unix epoch."""

    def __post_init__(self) -> None:
        for name, kind in (("mode", Mode), ("on_unknown_price", OnUnknownPrice), ("on_ungoverned", OnUngoverned)):
            read_choice(kind, getattr(self, name), name)
        put = object.__setattr__  # frozen for callers; sections given as mappings are replaced by their values here
        put(self, "update_prices", read_flag(self.update_prices, "update_prices"))
        put(self, "watch", read_flag(self.watch, "watch"))
        put(self, "ledger", read_section(LedgerConfig, self.ledger, "ledger"))
        put(self, "budgets", read_budgets(self.budgets))
        own_tiers = self.tiers is not DEFAULT_TIERS
        if own_tiers:
            put(self, "tiers", read_tiers(self.tiers))
        put(self, "providers", _read_providers(self.providers))
        put(self, "platforms", read_platforms(self.platforms))
        if own_tiers:  # a target is written as it is called: a deployment, or a model without its place
            put(self, "tiers", tuple(map(self._placed, self.tiers)))
        put(self, "routing", self._read_routing(own_tiers=own_tiers))
        asked = own_tiers or self.routing != RoutingPolicy(tiers=self.routing.tiers)
        put(self, "routes", asked and self.routing.kind != "off")
        put(self, "output", read_section(OutputConfig, self.output, "output"))
        put(self, "retry", read_section(RetryPolicy, self.retry, "retry"))
        put(self, "cache", read_section(CachePolicy, self.cache, "cache"))
        put(self, "attribution", read_section(AttributionConfig, self.attribution, "attribution"))
        if not isinstance(self.budgets, Unsaid):
            put(self, "budgets", check_once(tuple(map(self.attribution.budget, self.budgets))))
        put(self, "alerts", read_alerts(self.alerts))
        put(self, "metrics", read_section(MetricsConfig, self.metrics, "metrics"))
        put(self, "prices", MappingProxyType(_read_prices(self.prices, self.platforms)))

    def access(self, name: str) -> ProviderConfig | PlatformConfig:
        """The access to a provider or a platform."""
        return self.platforms[name] if name in self.platforms else self.providers[name]

    def _placed(self, tier: Tier) -> Tier:
        return tier._replace(models=tuple(self._as_target(target) for target in tier.models))

    def _as_target(self, target: ModelRef) -> ModelRef:
        section = self.platforms.get(target.provider)
        if section is None:
            return target
        placed = section.target(target.model)
        return Arm(*placed, target.parameters) if target.parameters else placed

    @property
    def display_currency(self) -> DisplayCurrency | None:
        """What people are shown amounts in: ``prices.currency`` by its dated rate; ``None``: US dollars."""
        return read_display_currency(self.prices)

    def _read_routing(self, *, own_tiers: bool) -> RoutingPolicy:
        routing: object = self.routing  # as the caller gave it: a policy, a table, or the word for one
        if routing is None or routing is _NOT_GIVEN:
            routing = {}
        if routing is False:
            routing = {"policy": "off"}
        if isinstance(routing, str):
            routing = {"policy": routing}
        if isinstance(routing, RoutingPolicy):
            return replace(routing, tiers=tuple(tier.name for tier in self.tiers))
        if not isinstance(routing, Mapping):
            raise ConfigurationError(f"must be a table such as {{'policy': 'cascade'}}, not {routing!r}", key="routing")
        if not own_tiers or "policy" in routing:
            return RoutingPolicy.from_mapping(routing, self.tiers, read_file=_read_text)
        policy = RoutingPolicy.from_mapping({"policy": "cascade", **routing}, self.tiers, read_file=_read_text)
        return replace(policy, by_default=True)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> CostConfig:
        """Read a mapping of the shape of the TOML file. Raises as the class does."""
        if "privacy" in mapping:
            # Templates of earlier versions contain it; a clear message beats "unknown key".
            raise ConfigurationError(
                "was removed: store_text was never read, no text was ever stored. Delete the section", key="privacy"
            )
        for key in mapping:
            if not isinstance(key, str):  # Python would refuse it as a keyword before we could name it
                raise UnknownKeyError(repr(key), ())
        return cls(**mapping)

    @classmethod
    def read(cls, source: ConfigSource) -> CostConfig:
        """Return a configuration as it is, from a mapping, or from the TOML file at a path.

        Raises:
            ConfigurationError: It is none of these, or cannot be read.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, Mapping):
            return cls.from_mapping(source)
        if isinstance(source, str) and "://" in source:  # not repeated: it may hold a password
            raise ConfigurationError('a URL is no file; a ledger is CostConfig(ledger={"url": …})', key="config")
        if isinstance(source, str | os.PathLike):
            return cls.from_toml(source)
        raise ConfigurationError(
            f"expected a CostConfig, a mapping such as {{'budgets': []}} or the path of a TOML file such as "
            f"'{DEFAULT_FILE}', not {source!r}", key="config",
        )  # fmt: skip

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], *, env: Mapping[str, str] | None = None) -> CostConfig:
        """Read a TOML file, overridden by the environment.

        Args:
            path: The file.
            env: The environment; ``os.environ`` by default, ``{}`` for none.

        Raises:
            ConfigurationError: Unreadable file, or an invalid value.
        """
        try:
            watched = env is None or env is os.environ  # any other is gone when the file is read again
            written_at = _written_at(path)  # before it is read: a change in between is found later
            mapping = tomllib.loads(_read_text(path))
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path} is not TOML: {error}") from None
        # a file without budgets says that there are none: it is the whole of what is configured
        given = os.environ if env is None else env
        try:
            config = cls.from_mapping({"budgets": ()} | overrides(mapping, given, cls))
        except ConfigurationError as error:
            raise named(error, given) from None
        object.__setattr__(config, "file", Path(path) if watched else None)
        object.__setattr__(config, "written_at", written_at)
        return config

    @classmethod
    def find(cls, *, env: Mapping[str, str] | None = None) -> CostConfig:
        """Read the file in ``LLM_COST_CONFIG``, else ``./llm-cost.toml``, else what the environment says by itself.

        Raises:
            ConfigurationError: There is none of them; the message names the command that writes one.
        """
        environment = os.environ if env is None else env
        path, told = default_path(environment), environment.get("LLM_COST_CONFIG")
        if path.exists():
            return cls.from_toml(path, env=environment)
        if told or not has_overrides(environment, CostConfig):
            write = f"llm-cost init {path}" if told else "llm-cost init"
            raise ConfigurationError(
                f"no configuration: {path} does not exist. Write one with `{write}`, "
                "name one in LLM_COST_CONFIG, or give one: --config FILE, in Python a CostConfig."
            )
        try:
            return cls.from_mapping(overrides({}, environment, cls))
        except ConfigurationError as error:
            raise named(error, environment) from None


def says_anything(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``CostConfig.find()`` has anything to read, right or wrong."""
    return bool(environment.get("LLM_COST_CONFIG")) or default_path().exists() or has_overrides(environment, CostConfig)


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where a configuration is looked for that nobody names; there may be none."""
    return Path(environment.get("LLM_COST_CONFIG") or DEFAULT_FILE)


def tell_of_unused_file() -> None:
    """Log a warning, once a process, where there is a configuration that nobody named and nobody reads."""
    path = default_path()
    if path.exists():
        _tell_unused(str(path))


@cache
def _tell_unused(path: str) -> None:
    _log.warning("%s is not used: CostPipeline() takes the defaults; CostPipeline(CostConfig.find()) reads it", path)


ConfigSource = CostConfig | Mapping[str, Any] | str | os.PathLike[str]
"""Configuration, or where to read one: a mapping of the shape of the TOML file, or its path."""


def _frozen(mapping: dict[object, object]) -> MappingProxyType[object, object]:
    return MappingProxyType(mapping)


# A configuration must reach worker processes, and the standard library cannot pickle a mapping proxy.
copyreg.pickle(MappingProxyType, lambda proxy: (_frozen, (dict(proxy),)))


def _read_text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeError as error:
        raise ConfigurationError(f"cannot read {path}: it is not UTF-8: {error}") from None
    except ValueError:
        raise ConfigurationError(f"cannot read {path!r}: this is no path") from None
    except OSError as error:
        # Looked at afterwards: Windows reports a folder as a lack of permission.
        reason = "it is a folder; name the file in it" if Path(path).is_dir() else error
        raise ConfigurationError(f"cannot read {path}: {reason}") from None


def _written_at(path: str | os.PathLike[str]) -> float | None:
    with suppress(OSError):  # told when it is read
        return Path(path).stat().st_mtime
    return None


def _read_prices(value: object, platforms: Mapping[str, PlatformConfig]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        form = "must be a table such as {'openai/my-model': {'input_mtok': 1.1, 'output_mtok': 4.4}}"
        raise ConfigurationError(f"{form}, not {value!r}", key="prices")
    check_prices(value)
    for name in value.get("discounts") or ():  # of a provider that there is not it would be of nothing, in silence
        if (provider := f"{name}".partition("/")[0]) not in {*NAMES, *PLATFORMS}:
            raise UnknownKeyError(f"prices.discounts.{provider}", NAMES)
    stated = {name: dict(price) for section in platforms.values() for name, price in section.prices()}
    check_prices(stated)
    return {**stated, **value}


def _read_providers(value: object) -> Mapping[str, ProviderConfig]:
    if not isinstance(value, Mapping):
        form = "must be a table such as {'openai': {'base_url': 'https://…'}}"
        raise ConfigurationError(f"{form}, not {type(value).__name__}", key="providers")
    for name in value:
        if name not in NAMES:
            raise UnknownKeyError(f"providers.{name}", NAMES)
    return MappingProxyType(
        {
            name: read_section(ProviderConfig, value.get(name, {}), f"providers.{name}", defaults=default)
            for name, default in default_providers().items()
        }
    )
