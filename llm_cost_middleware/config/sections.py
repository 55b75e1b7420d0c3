"""Sections of the configuration as frozen values, and the strict reader that fills them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from llm_cost_middleware.budget.backend import redacted
from llm_cost_middleware.budget.ledger.arguments import RENAMED, new_name
from llm_cost_middleware.budget.model import parse_scope
from llm_cost_middleware.capabilities.arms import parse_arm, read_arm
from llm_cost_middleware.config.addresses import check_base_url
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.money import USD, parse_usd
from llm_cost_middleware.natural_values import read_share
from llm_cost_middleware.platform import PLATFORMS
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.policy import Tier
from llm_cost_middleware.typed_fields import canonical_fields, hints_of, names_unknown_keys, read_field

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@names_unknown_keys("ledger")
@dataclass(frozen=True, slots=True)
class LedgerConfig:
    """``[ledger]``: storage of reservations and bookings."""

    url: str = "memory://"
    tenant: str = "default"
    durability: Literal["full", "normal"] = "full"
    hold_ttl_s: float = 900.0
    on_expiry: Literal["charge", "release"] = "charge"
    on_unavailable: Literal["deny", "allow"] = "deny"
    lease: Literal["off", "auto"] = "off"
    """``auto``: calls are admitted from blocks of the budgets that a process holds (``llm-cost help leases``)."""
    configuration: str = ""
    """Under what name the budgets of this configuration stand in the ledger: services with others take others. Without
    one it replaces the configuration of the same file, or one that it has a budget in common with."""
    budgets_version: int = 0
    """A configuration of a higher version is newer, whenever a process starts with it."""
    journal_days: float = 0
    """Lines of the journal (decisions, outcomes, refusals, cache traces) are removed after so many days; 0: never."""
    journal_lines: int = 1_000_000
    """The newest so many lines are kept; 0: all. On Redis so many of each kind, and 200,000 at most."""
    archive_after_days: float = 0
    """Rows of attempts that are over and exact are archived after so many days, their sums stay; 0: never."""
    rest_after_days: float = 7
    """Runs, slices, threads and agents without a budget of their own that are idle for so long keep one short line of
    what they spent in the place of their sums; used again, they go on from it. 0: never."""
    archive_to: str = ""
    """The folder of the archives. Empty: beside the file of a SQLite ledger; a server keeps the sums alone."""

    def __post_init__(self) -> None:
        canonical_fields(self, "ledger")
        if not 0 < self.hold_ttl_s < float("inf"):
            raise ConfigurationError(f"must be positive, not {self.hold_ttl_s!r}", key="ledger.hold_ttl_s")
        # A bill may come two days later, and quotes read a week.
        for name, least in (
            ("journal_days", 8),
            ("journal_lines", 1_000),
            ("archive_after_days", 1),
            ("rest_after_days", 1),
        ):
            value = getattr(self, name)
            if value and not least <= value < float("inf"):
                raise ConfigurationError(
                    f"must be 0 (never) or at least {least:,}, not {value!r}", key=f"ledger.{name}"
                )

    @property
    def on_lapse(self) -> Literal["charge", "release"]:
        """The former name of ``on_expiry``."""
        return self.on_expiry

    def __repr__(self) -> str:
        return _shown(self)


ServiceTier = Literal[
    "", "auto", "default", "standard", "standard_only", "flex", "priority", "scale", "reserved", "ultrafast"
]
"""Those that a provider or a platform, or the list of prices, knows."""


@names_unknown_keys("providers")
@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """``[providers.NAME]``: access to a provider. Keys are in the environment, never in the file."""

    base_url: str = ""
    api_key_env: str = ""
    timeout_s: float | None = None
    """Seconds that a request may take at most; ``None``: as long as the client's own timeout says."""
    service_tier: ServiceTier = ""
    """The tier that calls without one are served at (the project's own setting), and held at; ``auto``: the dearest it
    may be; empty: the standard one, until an answer shows another."""
    send_service_tier: bool = False
    """Send it with every call that names none, so that it is certain."""
    gateway: Literal["auto", "provider", "foreign"] = "auto"
    """What answers at an address that is not the provider's own: ``foreign`` is sent nothing that the caller did not
    write; ``provider`` what the provider is sent; ``auto``: foreign, but for ``base_url`` and this machine."""

    def __post_init__(self) -> None:
        canonical_fields(self, "providers")
        if self.send_service_tier and not self.service_tier:
            raise ConfigurationError("needs service_tier: the tier to send", key="send_service_tier")
        check_base_url(self.base_url)
        if self.timeout_s is not None and not self.timeout_s > 0:  # not ``<= 0``: NaN must be refused too
            raise ConfigurationError(f"must be positive, not {self.timeout_s!r}", key="timeout_s")

    def __repr__(self) -> str:
        return _shown(self)


def _shown(section: DataclassInstance) -> str:
    """Return the text of a section without the passwords of its URLs: configurations end up in logs."""
    values = ((item.name, getattr(section, item.name)) for item in fields(section))
    return f"{type(section).__name__}({', '.join(f'{name}={_repr(value)}' for name, value in values)})"


def _repr(value: object) -> str:
    return repr(redacted(value) if isinstance(value, str) else value)


_LEAST_RISK, _MOST_RISK = 0.001, 0.2  # below, it takes more answers than are remembered; above, too many are cut


@names_unknown_keys("output")
@dataclass(frozen=True, slots=True)
class OutputConfig:
    """``[output]``: output caps, and the actions for a call that does not fit its budget."""

    default_max_tokens: int | Literal["auto"] = "auto"
    on_insufficient: tuple[Literal["downgrade", "cap_output", "raise"], ...] = ("downgrade", "cap_output", "raise")
    estimate: Literal["bound", "calibrated"] = "bound"
    server_tool_allowance: USD = "0.05"
    max_wait_for_budget_s: float = 0.0
    """Seconds that a call waits where only money that calls in flight hold stands in its way; 0: none."""
    learned_caps: float | str = 0.0
    """Share of a call site's answers that may end at an output cap learned from earlier ones, and are asked for once
    more (``0.01``, ``"1%"``); 0: none is learned. Only where the caller set no cap."""

    def __post_init__(self) -> None:
        canonical_fields(self, "output")
        object.__setattr__(self, "learned_caps", _read_risk(self.learned_caps))
        if "raise" in self.on_insufficient[:-1]:
            raise ConfigurationError("nothing can follow 'raise', which ends the call", key="output.on_insufficient")
        if not 0 <= self.max_wait_for_budget_s < float("inf"):
            raise ConfigurationError(
                f"must be a number of seconds from 0 on, not {self.max_wait_for_budget_s!r}",
                key="output.max_wait_for_budget_s",
            )
        if self.default_max_tokens != "auto" and self.default_max_tokens < 1:
            raise ConfigurationError("must be 'auto' or a positive whole number", key="output.default_max_tokens")
        parse_usd(self.server_tool_allowance, what="output.server_tool_allowance")


def _read_risk(value: object) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float | str) and value in {0, "0", "0%", "off"}:
        return 0.0
    key = "output.learned_caps"
    risk = read_share(value, key)
    if not _LEAST_RISK <= risk <= _MOST_RISK:
        form = f"must be 0 (none is learned), or a share from {_LEAST_RISK} to {_MOST_RISK}"
        raise ConfigurationError(f"{form}, not {value!r}", key=key)
    return risk


@names_unknown_keys("metrics")
@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """``[metrics]``: where figures go beside the ledger. Off by default; needs the extra ``otel``."""

    prometheus_port: int | None = None
    """Serve this process' metrics here; the next free port, where another process has it; 0: any."""
    prometheus_ports: int = 16
    """So many ports are tried, one after the other."""
    prometheus_host: str = "127.0.0.1"
    opentelemetry: bool = False
    """Send spans and metrics to the providers that the application has set in OpenTelemetry."""
    dimensions: tuple[str, ...] = ("team",)
    """Kinds of scopes that metrics tell apart."""
    most_values: int = 100
    """Values of each that they tell apart; the rest is ``other``."""

    def __post_init__(self) -> None:
        canonical_fields(self, "metrics")
        last = (self.prometheus_port or 0) + self.prometheus_ports - 1
        if not 0 <= (self.prometheus_port or 0) <= last <= _LAST_PORT:
            given = f"{self.prometheus_port!r} and {self.prometheus_ports!r} of them"
            raise ConfigurationError(f"must be ports up to {_LAST_PORT}, not {given}", key="metrics.prometheus_port")
        for kind in self.dimensions:
            if ":" in kind:  # its scopes would be of another kind, and the metric would never tell one apart
                form = "must be kinds of scopes, such as 'team', without a name"
                raise ConfigurationError(f"{form}, not {kind!r}", key="metrics.dimensions")
            parse_scope(f"{kind}:*", template=True)
        if self.most_values < 1:
            raise ConfigurationError(f"must be 1 or more, not {self.most_values!r}", key="metrics.most_values")


_LAST_PORT = 65_535


def default_providers() -> dict[str, ProviderConfig]:
    """The access to every provider, registered ones included."""
    return {name: ProviderConfig(api_key_env=f"{name.upper()}_API_KEY") for name in NAMES}


def read_section(kind: type[_T], value: object, key: str, *, defaults: _T | None = None) -> _T:
    """Fill a section from a table.

    Args:
        kind: A frozen dataclass whose fields are the keys.
        value: An instance of it, or a mapping.
        key: Dotted name of the table, for errors.
        defaults: Values of missing keys, instead of the dataclass' own defaults.

    Raises:
        ConfigurationError: A value of the wrong type; ``UnknownKeyError`` for an unknown key.
    """
    if isinstance(value, kind):
        return value
    value = _as_table(value, key)
    assert is_dataclass(kind)  # noqa: S101 - the sections are all defined in this package
    known = {field.name: field for field in fields(kind) if field.init}
    if kind is LedgerConfig:
        value = _renamed(value, key)
    hints = hints_of(kind)
    for name in value:
        if name not in known:
            raise UnknownKeyError(f"{key}.{name}", known)
    read = {name: read_field(hints[name], item, f"{key}.{name}") for name, item in value.items()}
    missing = [name for name, field in known.items() if name not in read and _required(field)]
    if missing and defaults is None:
        raise ConfigurationError(f"needs {', '.join(missing)}", key=key)
    if defaults is not None:
        read = {name: getattr(defaults, name) for name in known} | read
    try:
        return kind(**read)
    except ConfigurationError as error:
        raise error if error.key and "." in error.key else error.within(key) from None


def _as_table(value: object, key: str) -> Mapping[str, Any]:
    """Return the table that a section's value means: ``None`` is an empty one, one word may stand for its main key."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    if key == "ledger" and isinstance(value, str | os.PathLike):
        return {"url": value}
    if key == "cache" and isinstance(value, bool | str):
        return {"mode": ("auto" if value else "off") if isinstance(value, bool) else value}
    raise ConfigurationError(
        f"must be a table, {_EXAMPLES.get(key, 'a mapping of its keys')}, not {_repr(value)}", key=key
    )


_EXAMPLES = {
    "ledger": "such as {'url': 'sqlite:///llm-cost.db'} (a Ledger itself goes to CostPipeline(config, ledger=…))",
    "retry": "such as {'max_attempts': 3}, the first request included",
    "cache": "such as {'mode': 'auto'}, or 'off'",
    "output": "such as {'default_max_tokens': 1000}",
    "metrics": "such as {'prometheus_port': 9464}",
    "attribution": "such as {'require': ['team']}",
}


def _renamed(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a table with the present names of its keys; log former ones: a writer of TOML sees no warnings."""
    found = dict(table)
    for old in RENAMED.keys() & found.keys():
        new = new_name(old, found, section=f"{key}.", stacklevel=7)
        _log.warning("%s.%s is now called %s", key, old, new)
        found[new] = found.pop(old)
    return found


def read_tiers(value: object) -> tuple[Tier, ...]:
    """Read ``[[tiers]]``: name and models, cheap to strong. Raises ``ConfigurationError``."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise ConfigurationError("must be a list of tables", key="tiers")
    tiers = tuple(_read_tier(item, f"tiers[{index}]") for index, item in enumerate(value))
    if not tiers:
        raise ConfigurationError("needs at least one tier", key="tiers")
    if len({tier.name for tier in tiers}) < len(tiers):
        raise ConfigurationError("tier names must differ", key="tiers")
    return tiers


def read_target(value: object, key: str) -> ModelRef:
    """Read ``provider/model``, or an arm: a table with ``model`` and parameters. Raises ``ConfigurationError``."""
    if isinstance(value, ModelRef):
        return value
    if isinstance(value, Mapping):
        stated = dict(value)
        if "model" not in stated:
            raise ConfigurationError("needs a model", key=key)
        named = read_target(stated.pop("model"), f"{key}.model")
        return read_arm(named.plain, {**named.parameters, **stated}, key)
    provider, slash, model = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not slash or not model or provider not in {*NAMES, *PLATFORMS}:
        known = ", ".join((*NAMES, *PLATFORMS))
        raise ConfigurationError(f"{value!r} must be PROVIDER/MODEL with a provider of {known}", key=key)
    return parse_arm(str(value), key)


def _read_tier(value: object, key: str) -> Tier:
    if isinstance(value, Tier):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError("must be a table with name and models", key=key)
    for name in value:
        if name not in Tier._fields:
            raise UnknownKeyError(f"{key}.{name}", Tier._fields)
    name, models = value.get("name"), value.get("models")
    if not isinstance(name, str) or not name:
        raise ConfigurationError("needs a name", key=key)
    if not isinstance(models, list | tuple) or not models:
        raise ConfigurationError("needs a list of models", key=f"{key}.models")
    found = tuple(read_target(model, f"{key}.models") for model in models)
    if twice := [str(target) for target in found if target.parameters and found.count(target) > 1]:
        raise ConfigurationError(f"has {twice[0]} twice", key=f"{key}.models")
    return Tier(name, found)


# Behind the readers, because it uses them: the defaults are checked on the same path as a file.
DEFAULT_TIERS = read_tiers(
    [
        {"name": "small", "models": ["anthropic/claude-haiku-4-5-20251001", "openai/gpt-5-mini"]},
        {"name": "large", "models": ["anthropic/claude-sonnet-4-6", "openai/gpt-5.1"]},
    ]
)


def _required(field: Field[object]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
