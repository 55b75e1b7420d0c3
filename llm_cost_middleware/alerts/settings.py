"""``[[alerts]]``: what is watched for, and whom it is told to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal
from urllib.parse import urlsplit

from llm_cost_middleware.budget.model import parse_scope, scope_matches
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.money import USD, ceil_nanousd
from llm_cost_middleware.natural_values import read_share
from llm_cost_middleware.typed_fields import canonical_fields, names_unknown_keys

When = Literal["threshold", "forecast", "rate", "refusal", "drift", "unconfirmed", "unpriced", "old_prices"]
Per = Literal["hour", "day"]
LOG = "log"
KINDS = {
    "scope": ("threshold", "forecast", "rate", "refusal", "unconfirmed"),
    "at": ("threshold", "forecast"),
    "times": ("rate",),
    "above": ("rate", "unconfirmed"),
    "count": ("refusal",),
    "per": ("rate", "refusal", "unconfirmed", "unpriced"),
    "older_than_s": ("old_prices",),
}
"""The kinds of alerts that have each key. ``when`` and ``to`` belong to all."""
_SCHEME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*\Z")


@names_unknown_keys("alerts")
@dataclass(frozen=True, slots=True)
class AlertConfig:
    """One ``[[alerts]]``.

    Args:
        when: ``threshold`` (a share of a budget is spent), ``forecast`` (at the present pace it will be, before its
            window ends), ``rate`` (far more is spent than usually), ``refusal`` (calls were refused for want of money),
            ``drift`` (a learned policy fell back), ``unconfirmed`` (money whose booking nobody has confirmed),
            ``unpriced`` (calls of a model without a price), ``old_prices`` (the price list was not renewed for long).
        to: ``log``, a URL that takes a POST of JSON (Slack's incoming webhooks and what is compatible with them), or
            any URL of ``apprise`` (``slack://``, ``mailto://`` …), which the extra ``alerts`` brings.
        scope: ``global``, ``team:search``, ``team:*``; of every budget, or of all spending together, if empty.
        at: Shares of the limit: those at which the budget warns (``warn_at``) for ``threshold`` if empty, the whole for
            ``forecast``.
        times: ``rate``: so many times what is usual.
        above: US dollars that must have been spent (``rate``) or be unconfirmed before it is told.
        count: ``refusal``: so many in ``per``.
        per: The stretch of time that ``rate`` compares, and for which what has no window is told once: an hour or a
            day, in UTC.
        older_than_s: ``old_prices``: ``"30d"``.

    Raises:
        ConfigurationError: A value that cannot be used. No message shows a URL: it may hold a secret.
    """

    when: When
    to: tuple[str, ...] = (LOG,)
    scope: str = ""
    at: tuple[float, ...] = ()
    times: float = 3.0
    above: USD = "0"
    count: int = 1
    per: Per = "day"
    older_than_s: float = 30 * 86_400.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        to: object = self.to  # as the caller gave them: several, or one
        at: object = self.at
        if isinstance(to, str):
            put(self, "to", (to,))
        shares = at if isinstance(at, list | tuple | set | frozenset) else (at,)
        put(self, "at", tuple(sorted({read_share(one, "alerts.at") for one in shares})))
        canonical_fields(self, "alerts", leave=("at",))
        for number, target in enumerate(self.to):
            _check_target(target, f"alerts.to[{number}]")
        if not self.to:
            raise ConfigurationError('needs somebody to tell, such as "log"', key="alerts.to")
        if self.scope:
            put(self, "scope", parse_scope(self.scope, template=True))
        if not self.times > 1:
            raise ConfigurationError(f"must be above 1, not {self.times!r}", key="alerts.times")
        if self.count < 1:
            raise ConfigurationError(f"must be 1 or more, not {self.count!r}", key="alerts.count")
        if not 0 < self.older_than_s < float("inf"):
            form = 'must be a length of time such as "30d"'
            raise ConfigurationError(f"{form}, not {self.older_than_s!r}", key="alerts.older_than_s")
        ceil_nanousd(self.above, what="alerts.above")
        for item in fields(self):
            if self.when not in KINDS.get(item.name, (self.when,)) and getattr(self, item.name) != item.default:
                raise _not_of(self.when, item.name, f"alerts.{item.name}")

    def __repr__(self) -> str:
        told = ", ".join(f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.name != "to")
        return f"AlertConfig({told}, to={tuple(map(shown_target, self.to))!r})"

    def watches(self, scope: str) -> bool:
        """Whether it is about this scope."""
        return not self.scope or scope_matches(self.scope, scope)


def read_alerts(value: object) -> tuple[AlertConfig, ...]:
    """Read ``[[alerts]]``: a list of tables. Raises ``ConfigurationError``."""
    if value is None:
        return ()
    if isinstance(value, AlertConfig):
        return (value,)
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        form = "must be a list of tables, such as [{'when': 'threshold', 'to': ['log']}]"
        raise ConfigurationError(f"{form}, not {type(value).__name__}", key="alerts")
    return tuple(_read_alert(item, f"alerts[{number}]") for number, item in enumerate(value))


def _read_alert(value: Any, key: str) -> AlertConfig:
    if isinstance(value, AlertConfig):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"must be a table such as {{'when': 'threshold'}}, not {type(value).__name__}", key=key
        )
    known = [item.name for item in fields(AlertConfig)]
    for name in value:
        if name not in known:
            raise UnknownKeyError(f"{key}.{name}", known)
    if "when" not in value:
        raise ConfigurationError("needs when", key=key)
    try:
        return AlertConfig(**value)
    except ConfigurationError as error:  # which of several it is
        error.key = (error.key or "").removeprefix("alerts").removeprefix(".")
        raise error.within(key) from None


def _not_of(when: str, name: str, key: str) -> ConfigurationError:
    """What a key is told that would change nothing."""
    return ConfigurationError(f"belongs to {', '.join(KINDS[name])}; it changes nothing of {when!r}", key=key)


def _check_target(target: str, key: str) -> None:
    if target == LOG:
        return
    scheme, found, rest = target.partition("://")
    if not found or not _SCHEME.match(scheme) or not rest:
        form = '"log", "https://…" or a URL of apprise such as "mailto://…"'
        raise ConfigurationError(f"must be {form}", key=key)
    near = get_close_matches(scheme.lower(), ("https", "http"), n=1, cutoff=0.8)
    if near and scheme.lower() not in {*near, "httpsms"}:  # that one is a service of apprise
        raise ConfigurationError(f"{scheme}:// is no service; did you mean {near[0]}://?", key=key)
    if is_webhook(target):
        try:
            host = urlsplit(target).hostname
        except ValueError:
            host = None
        if not host:
            raise ConfigurationError("is no URL: it names no host", key=key)


def is_webhook(target: str) -> bool:
    """Whether alerts are posted to it as JSON."""
    return target.lower().startswith(("http://", "https://"))


def shown_target(target: str) -> str:
    """A target without what may be a secret: for a URL its scheme, for a webhook its host as well."""
    if target == LOG:
        return target
    scheme = target.partition("://")[0]
    return f"{scheme}://{urlsplit(target).hostname}/…" if is_webhook(target) else f"{scheme}://…"
