"""Sections of the configuration as frozen values, and the strict reader that fills them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from llm_cost_middleware.budget.backend import redacted
from llm_cost_middleware.budget.ledger.arguments import RENAMED, new_name
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.money import USD, parse_usd
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.policy import Tier

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LedgerConfig:
    """``[ledger]``: storage of reservations and bookings."""

    url: str = "memory://"
    tenant: str = "default"
    durability: Literal["full", "normal"] = "full"
    hold_ttl_s: float = 900.0
    on_expiry: Literal["charge", "release"] = "charge"
    on_unavailable: Literal["deny", "allow"] = "deny"

    @property
    def on_lapse(self) -> Literal["charge", "release"]:
        """The former name of ``on_expiry``."""
        return self.on_expiry

    def __repr__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """``[providers.NAME]``: access to a provider. Keys are in the environment, never in the file."""

    base_url: str = ""
    api_key_env: str = ""
    timeout_s: float | None = None
    """Seconds that a request may take at most; ``None``: as long as the client's own timeout says."""
    service_tier: str = ""
    """The tier that calls without one are served at (the project's own setting), and held at; ``auto``: the dearest it
    may be; empty: the standard one, until an answer shows another."""
    send_service_tier: bool = False
    """Send it with every call that names none, so that it is certain."""
    gateway: Literal["auto", "provider", "foreign"] = "auto"
    """What answers at an address that is not the provider's own: ``foreign`` is sent nothing that the caller did not
    write; ``provider`` what the provider is sent; ``auto``: foreign, but for ``base_url`` and this machine."""

    def __post_init__(self) -> None:
        if self.send_service_tier and not self.service_tier:
            raise ConfigurationError("needs service_tier: the tier to send", key="send_service_tier")
        if self.timeout_s is not None and not self.timeout_s > 0:  # not ``<= 0``: NaN must be refused too
            raise ConfigurationError(f"must be positive, not {self.timeout_s!r}", key="timeout_s")

    def __repr__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class AttributionConfig:
    """``[attribution]``: whose word counts when a call is booked under a scope.

    Args:
        trust_end_user: Book what a client of the LiteLLM proxy says of its end user (``user`` in the body, the header
            ``x-litellm-end-user-id``, ``metadata.user_id``, ``safety_identifier``) under ``end_user:NAME``. Any client
            can write any name there.
    """

    trust_end_user: bool = False


def _shown(section: DataclassInstance) -> str:
    """Return the text of a section without the passwords of its URLs: configurations end up in logs."""
    values = ((item.name, getattr(section, item.name)) for item in fields(section))
    return f"{type(section).__name__}({', '.join(f'{name}={_repr(value)}' for name, value in values)})"


def _repr(value: object) -> str:
    return repr(redacted(value) if isinstance(value, str) else value)


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """``[output]``: output caps, and the actions for a call that does not fit its budget."""

    default_max_tokens: int | Literal["auto"] = "auto"
    on_insufficient: tuple[Literal["downgrade", "cap_output", "raise"], ...] = ("downgrade", "cap_output", "raise")
    estimate: Literal["bound", "calibrated"] = "bound"
    server_tool_allowance: USD = "0.05"
    max_wait_for_budget_s: float = 0.0
    """Seconds that a call waits where only money that calls in flight hold stands in its way; 0: none."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_wait_for_budget_s < float("inf"):
            raise ConfigurationError(
                f"must be a number of seconds from 0 on, not {self.max_wait_for_budget_s!r}",
                key="output.max_wait_for_budget_s",
            )
        if self.default_max_tokens != "auto" and (
            type(self.default_max_tokens) is not int or self.default_max_tokens < 1
        ):
            raise ConfigurationError("must be 'auto' or a positive whole number", key="output.default_max_tokens")
        parse_usd(self.server_tool_allowance, what="output.server_tool_allowance")


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
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"must be a table, not {_repr(value)}", key=key)
    assert is_dataclass(kind)  # noqa: S101 - the sections are all defined in this package
    known = {field.name: field for field in fields(kind) if field.init}
    if kind is LedgerConfig:
        value = _renamed(value, key)
    hints = get_type_hints(kind)
    for name in value:
        if name not in known:
            raise UnknownKeyError(f"{key}.{name}", known)
    read = {name: _typed(hints[name], item, f"{key}.{name}") for name, item in value.items()}
    missing = [name for name, field in known.items() if name not in read and _required(field)]
    if missing and defaults is None:
        raise ConfigurationError(f"needs {', '.join(missing)}", key=key)
    if defaults is not None:
        read = {name: getattr(defaults, name) for name in known} | read
    try:
        return kind(**read)
    except ConfigurationError as error:
        raise error if error.key and "." in error.key else error.within(key) from None


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
    """Read ``provider/model``. Raises ``ConfigurationError``."""
    if isinstance(value, ModelRef):
        return value
    provider, slash, model = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not slash or not model or provider not in NAMES:
        raise ConfigurationError(f"{value!r} must be PROVIDER/MODEL with a provider of {', '.join(NAMES)}", key=key)
    return ModelRef(provider, model)


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
    return Tier(name, tuple(read_target(model, f"{key}.models") for model in models))


# Behind the readers, because it uses them: the defaults are checked on the same path as a file.
DEFAULT_TIERS = read_tiers(
    [
        {"name": "small", "models": ["anthropic/claude-haiku-4-5-20251001", "openai/gpt-5-mini"]},
        {"name": "large", "models": ["anthropic/claude-sonnet-4-6", "openai/gpt-5.1"]},
    ]
)


def _required(field: Field[object]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _typed(hint: object, value: object, key: str) -> object:
    """Return the value as its type hint requires. Raises a ``ConfigurationError`` that names the key.

    Supports only the hints that sections use: scalars, literals, and tuples and sets of them.
    """
    choices = _choices(hint)
    if get_origin(hint) is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise ConfigurationError(f"must be a list, not {value!r}", key=key)
        return tuple(_typed(get_args(hint)[0], item, key) for item in value)
    if get_origin(hint) is frozenset or any(get_origin(part) is frozenset for part in _members(hint)):
        return _typed_set(hint, value, key)
    # ``True == 1`` in Python: a bool must not pass for a choice that is a number.
    if choices and not isinstance(value, list | dict) and value in choices and not isinstance(value, bool):
        return value
    kinds = _kinds(hint)
    if choices and not kinds:
        raise ConfigurationError(f"{value!r} is not one of {', '.join(map(repr, choices))}", key=key)
    if kinds and not _matches(value, kinds):
        expected = " or ".join(sorted({kind.__name__ for kind in kinds} | set(map(repr, choices))))
        raise ConfigurationError(f"must be {expected}, not {value!r}", key=key)
    return float(value) if kinds == {float} and isinstance(value, int | float) else value


def _typed_set(hint: object, value: object, key: str) -> object:
    """Return a list of names as the set of an enumeration; ``None`` if the hint allows it."""
    if value is None and type(None) in _members(hint):
        return None
    wanted = hint if get_origin(hint) is frozenset else next(p for p in _members(hint) if get_origin(p) is frozenset)
    kind = get_args(wanted)[0]
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ConfigurationError(f"must be a list, not {value!r}", key=key)
    try:
        return frozenset(kind(item) for item in value)
    except ValueError as error:
        raise ConfigurationError(f"{error}; known are {', '.join(item.value for item in kind)}", key=key) from None


def _members(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) is not None and get_origin(hint) is not Literal else (hint,)


def _choices(hint: object) -> tuple[object, ...]:
    return tuple(choice for part in _members(hint) if get_origin(part) is Literal for choice in get_args(part))


def _kinds(hint: object) -> set[type]:
    return {part for part in _members(hint) if isinstance(part, type)}


def _matches(value: object, kinds: set[type]) -> bool:
    # bool is a subclass of int, and ``max_attempts = true`` is a mistake, not a 1.
    if isinstance(value, bool):
        return bool in kinds
    if float in kinds and isinstance(value, int):
        return True
    return isinstance(value, tuple(kinds))
