"""Every exception of the package. All carry their facts as fields; the message is made from them.

Each refusal also derives from a class of Python's that helpers such as LangGraph's ``RetryPolicy`` do not retry by
default, and at the door of a host from the host's own (``refusals``). A ledger that does not answer may be asked again.

LLMCostError
├── ConfigurationError (ValueError)        a configuration or an argument that cannot be used, with the right form
│   ├── UnknownKeyError                    a key that does not exist, with the nearest that does
│   ├── InvalidAmountError                 an amount that is not a usable number of dollars
│   └── InvalidScopeError                  a budget scope that is not `global` or `kind:name`
├── UnreadableUsageError (ValueError)      a response whose usage cannot be read
├── UnsupportedRequestError (ValueError)   a request that the package cannot govern, with advice
├── PriceNotFoundError (LookupError)       a model without a price, with the nearest that has one
├── NoModelFoundError (LookupError)        nothing to guard in a chain
├── NoEligibleModelError (LookupError)     no model may take the call, with each candidate's reason
├── BudgetExceededError (RuntimeError)     the money is not there
├── AttributionError (ValueError)          a call names nobody, or somebody who is not on the list
├── ScopePausedError (RuntimeError)        somebody has stopped the calls of a scope
├── CircuitOpenError (RuntimeError)        the breaker of a deployment is open
├── MissingExtraError (ImportError)        a dependency is not installed
└── LedgerError
    ├── LedgerUnavailableError             the storage does not answer, or cannot be written
    ├── LedgerVersionError                 the storage was written by a newer version
    ├── ReservationNotFoundError (LookupError)
    └── ReservationConflictError           the same id, other facts
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Self

from llm_cost_middleware.foresight import ForeseenRefusal

if TYPE_CHECKING:
    from datetime import datetime

    from llm_cost_middleware.money import DisplayCurrency


class LLMCostError(Exception):
    """The root of every error this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling (process pools): fields and message are restored, not computed again."""
        return restore, (type(self), self.args, self.__dict__)


class ConfigurationError(LLMCostError, ValueError):
    """A configuration or an argument that cannot be used. ``key`` is the dotted key at fault, where there is one."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        self.key, self._message = key, message
        super().__init__(f"{key}: {message}" if key else message)

    def within(self, section: str) -> Self:
        """This error, raised by a value of ``section`` that does not know where it stands, with the full key."""
        # Changed in place and not made anew: it stays of its class, with the fields of that class.
        ConfigurationError.__init__(self, self._message, key=f"{section}.{self.key}" if self.key else section)
        return self


class InvalidAmountError(ConfigurationError):
    """An amount that is not a usable number of US dollars."""

    def __init__(self, what: str, value: object, reason: str) -> None:
        self.what, self.value, self.reason = what, value, reason
        super().__init__(f"{value!r}: {reason}; write US dollars, such as 25 or '12.50'", key=what)


class InvalidScopeError(ConfigurationError):
    """A budget scope that is neither ``global`` nor ``kind:name``."""

    def __init__(self, scope: object, reason: str) -> None:
        self.scope, self.reason = scope, reason
        hint = "; did you mean 'global'?" if isinstance(scope, str) and _nearest(scope, ["global"]) else ""
        super().__init__(f"{scope!r}: {reason}{hint}", key="scope")


class UnknownKeyError(ConfigurationError):
    """A configuration key that does not exist; ``nearest`` is the key that was probably meant."""

    def __init__(self, key: str, known: Iterable[str]) -> None:
        names, name = tuple(known), key.rpartition(".")[2]
        meant = _OTHERS_WORDS.get(name)
        self.nearest = (meant,) if meant in names else _nearest(name, names)
        hint = f"; did you mean {self.nearest[0]!r}?" if self.nearest else ""
        super().__init__(f"unknown key{hint}", key=key)


_OTHERS_WORDS = {
    "max_retries": "max_attempts",
    "num_retries": "max_attempts",
    "retries": "max_attempts",
    "timeout": "timeout_s",
    "max_tokens": "default_max_tokens",
    "budget": "budgets",
    "max_budget": "limit",
    "amount": "limit",
    "period": "window",
    "duration": "window",
    "budget_duration": "window",
    "tz": "timezone",
    "path": "url",
}
"""What other tools call it: SDKs, LiteLLM, the classic pattern."""


class UnreadableUsageError(LLMCostError, ValueError):
    """A response, or a part of one, that is not in any form the provider sends."""

    def __init__(self, provider: str, reason: str) -> None:
        self.provider, self.reason = provider, reason
        super().__init__(f"{provider}: {reason}")


class UnsupportedRequestError(LLMCostError, ValueError):
    """A request that the package cannot govern. The message advises what to do instead."""

    def __init__(self, what: str, advice: str) -> None:
        self.what, self.advice = what, advice
        super().__init__(f"{what}: {advice}")


class PriceNotFoundError(LLMCostError, LookupError):
    """A model without a known price. ``nearest`` names the closest known models. Never read as a price of zero."""

    def __init__(self, provider: str, model: str, known: Iterable[str] = (), instead: str = "") -> None:
        self.provider, self.model = provider, model
        self.nearest = _nearest(model, known)
        hint = (f"; the nearest known are {', '.join(self.nearest)}" if self.nearest else "") + instead
        super().__init__(
            f'no price for {provider}/{model}{hint}. Set one in the configuration: [prices."{provider}/{model}"]'
        )


class NoModelFoundError(LLMCostError, LookupError):
    """Nothing that can be guarded was found in a chain. The message lists where was searched, and advises."""


class NoEligibleModelError(LLMCostError, LookupError):
    """No model may take the call. ``reasons`` maps each candidate to why it was rejected."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        detail = "; ".join(f"{model}: {reason}" for model, reason in self.reasons.items()) or "no candidates configured"
        super().__init__(f"no eligible model ({detail})")


class BudgetExceededError(ForeseenRefusal, LLMCostError, RuntimeError):
    """The money is not there: raised before a call is sent, never instead of booking one that was.

    Args:
        total_cost: What the scope has spent, in US dollars.
        budget_limit: Its limit, in US dollars.
        scope: The first scope that refused, such as ``user:42``; ``None`` from the classic tracker.
        settled: What is booked, in US dollars.
        pending: What is reserved by calls in flight, in US dollars.
        requested: What this call would have reserved, in US dollars.
        resets_at: When the window ends; ``None`` where it never does.
        kept: What of the limit is kept for other scopes, in US dollars.
        max_tokens: The largest output cap with which this call would have fitted; ``None``: none would.
        pending_for_s: How long calls lately held their money, in seconds: what is pending may be back after that.
        advice: What else there is to say.
        window: The window of the budget, such as ``day``; ``None`` where it is no budget of a ledger.
        carried: What of the limit was carried over from the window before, in US dollars.
        by_template: The budget is that of the scope's kind, such as ``team:*``: the scope has none of its own.

    The message rounds amounts for people, against the call: what is left down, what is wanted up. The fields are exact.
    """

    is_retryable = False

    def __init__(
        self,
        total_cost: Decimal,
        budget_limit: Decimal,
        *,
        scope: str | None = None,
        settled: Decimal | None = None,
        pending: Decimal | None = None,
        requested: Decimal | None = None,
        resets_at: datetime | None = None,
        kept: Decimal | None = None,
        max_tokens: int | None = None,
        pending_for_s: float | None = None,
        advice: str = "",
        window: str | None = None,
        carried: Decimal | None = None,
        by_template: bool = False,
    ) -> None:
        self.total_cost, self.budget_limit, self.scope, self.window = total_cost, budget_limit, scope, window
        self.carried, self.by_template = carried, by_template
        self.currency: DisplayCurrency | None = None
        self.settled, self.pending, self.requested, self.resets_at = settled, pending, requested, resets_at
        self.kept, self.max_tokens, self.pending_for_s, self.advice = kept, max_tokens, pending_for_s, advice
        super().__init__(self._text())

    @property
    def available(self) -> Decimal:
        """How much would have fitted, in US dollars; negative after an overrun."""
        return self.budget_limit - self.total_cost - (self.pending or 0) - (self.kept or 0)

    def shown_in(self, currency: DisplayCurrency | None) -> Self:
        """This refusal, telling its amounts in a display currency too."""
        self.currency = currency
        self.args = (self._text(),)
        return self

    def advised(self, *, requested: Decimal, max_tokens: int | None, pending_for_s: float | None) -> Self:
        """This refusal, with what the caller can do about it."""
        self.requested, self.max_tokens, self.pending_for_s = requested, max_tokens, pending_for_s
        self.args = (self._text(),)  # in place: it keeps its traceback, and a host's own class
        return self

    def _text(self) -> str:
        whose = _OWN_LIMITS.get(self.scope or "", f"budget of {self.scope}" if self.scope else "budget")
        every = f" a {self.window}" if self.window in {"hour", "day", "week", "month"} else ""
        parts = [f"{whose}{every} exceeded: {readable(self.total_cost)} of {readable(self.budget_limit)} spent"]
        if self.carried:
            parts.append(f"{readable(self.carried)} of that limit carried over from the {self.window} before")
        if self.pending:
            back = "" if self.pending_for_s is None else f", which lately took {_duration(self.pending_for_s)}"
            parts.append(f"{readable(self.pending)} reserved by calls in flight{back}")
        if self.kept:
            parts.append(f"{readable(self.kept)} kept for other scopes")
        if self.requested is not None:
            parts.append(f"{readable(self.requested, up=True)} requested")
            cap = f" (max_tokens={self.max_tokens})" if self.max_tokens else ""
            parts.append(f"{readable(max(self.available, Decimal(0)))} would fit{cap}")
        if self.resets_at is not None:
            parts.append(f"resets at {self.resets_at.isoformat()}")
        return ", ".join(parts) + (f" ({self.advice})" if self.advice else "") + self._displayed() + self._ways_out()

    def _displayed(self) -> str:
        """The amounts in the display currency, beside the dollars that decide."""
        money = self.currency
        if money is None:
            return ""
        spent, limit = (readable(money.convert(usd), sign=money.sign) for usd in (self.total_cost, self.budget_limit))
        parts = [f"{spent} of {limit} spent"]
        if self.pending:
            parts.append(f"{readable(money.convert(self.pending), sign=money.sign)} reserved")
        if self.requested is not None:
            parts.append(f"{readable(money.convert(self.requested), up=True, sign=money.sign)} requested")
        return f"; at {money.rate:f} of {money.date}: {', '.join(parts)}"

    def _ways_out(self) -> str:
        """What a person can do: wait for what is pending, or raise the limit."""
        if self.window is None or self.scope is None or self.scope.startswith("slice:"):
            return ""
        wait = self.pending and self.requested is not None and self.available + self.pending >= self.requested
        waiting = "wait for the calls in flight (output.max_wait_for_budget_s), or " if wait else ""
        window = "" if self.window == "none" else f" --window {self.window}"
        verb = "set" if self.by_template else "raise"  # which keeps the shares and thresholds that it has
        return f"; to go on, {waiting}raise it: llm-cost budgets {verb} {self.scope} DOLLARS{window}"


_OWN_LIMITS = {"call": "max_cost of the call", "batch": "what is left for the batch"}  # no budgets of a ledger


class AttributionError(LLMCostError, ValueError):
    """A call does not say whose it is: raised before it is sent.

    Args:
        kind: What it must name, such as ``team``.
        name: What it named instead of one that is known; ``None``: nothing.
        nearest: The known names that are most like it.
        known: Some of the names that there are.
    """

    is_retryable = False

    def __init__(
        self, kind: str, name: str | None = None, nearest: tuple[str, ...] = (), known: tuple[str, ...] = ()
    ) -> None:
        self.kind, self.name, self.nearest, self.known = kind, name, nearest, known
        if name is None:
            text = f"the call names no {kind}, and [attribution] demands one: cost_context({kind}=…)"
        else:
            # a client's, of any length
            text = f"there is no {kind} {name if len(name) <= _LONGEST else name[:_LONGEST] + '…'!r}"
            text += f"; did you mean {nearest[0]!r}?" if nearest else ""
        super().__init__(text + (f"; known are {', '.join(known)}" if known and not nearest else ""))


class ScopePausedError(LLMCostError, RuntimeError):
    """The calls of a scope are stopped: raised before one is sent.

    Args:
        scope: The scope of the call that is paused, such as ``team:search``.
        reason: Why, in the words of whoever paused it; may be empty.
        until: When the pause ends; ``None`` where somebody has to end it.
        paused: The scope as it was paused, such as ``team:*``; ``scope`` itself, if empty.
    """

    is_retryable = False

    def __init__(self, scope: str, reason: str = "", until: datetime | None = None, *, paused: str = "") -> None:
        self.scope, self.reason, self.until, self.paused = scope, reason, until, paused or scope
        named = f"'{self.paused}'" if "*" in self.paused else self.paused  # a shell would look for files
        end = f" until {until.isoformat(timespec='seconds')}" if until is not None else ""
        why = f": {reason}" if reason else ""
        super().__init__(f"{scope} is paused{end}{why}; `llm-cost resume {named}` lets its calls go on")


class CircuitOpenError(LLMCostError, RuntimeError):
    """The breaker of a deployment is open; ``retry_after`` is the seconds until it lets one call through."""

    def __init__(self, deployment: str, retry_after: float) -> None:
        self.deployment, self.retry_after = deployment, retry_after
        super().__init__(f"{deployment} is failing; its circuit is open for another {retry_after:.1f} s")


class MissingExtraError(LLMCostError, ImportError):
    """A dependency is not installed. The message holds the command that installs it.

    Args:
        feature: What needs it.
        extra: The extra that brings it; ``None`` where a plain installation has it.
        package, requirement: What was looked for, as it is imported; what to install instead of the extra.
    """

    def __init__(self, feature: str, extra: str | None, package: str = "", requirement: str = "") -> None:
        self.feature, self.extra, self.package = feature, extra, package
        wanted = requirement or "llm-cost-middleware" + (f"[{extra}]" if extra else "")
        lacking = f"the package {package}" if package else "an extra"
        super().__init__(f"{feature} needs {lacking}: pip install '{wanted}'")


class LedgerError(LLMCostError):
    """The root of the ledger's own errors."""


class LedgerUnavailableError(LedgerError):
    """The storage does not answer or cannot be written. Nothing was half-written."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"ledger {url}: {reason}")


class LedgerVersionError(LedgerError):
    """The storage was written by a newer version of the package."""

    def __init__(self, url: str, found: int, supported: int) -> None:
        self.url, self.found, self.supported = url, found, supported
        super().__init__(
            f"ledger {url} was written by a newer version of the package: it has schema {found}, and this one reads up "
            f"to {supported}. Upgrade, or restore the copy that was made before it was brought forward"
        )


class ReservationNotFoundError(LedgerError, LookupError):
    """No reservation has this id."""

    def __init__(self, reservation_id: str) -> None:
        self.reservation_id = reservation_id
        super().__init__(f"no reservation {reservation_id!r}")


class ReservationConflictError(LedgerError):
    """An id that was used before, with other facts: another amount, other scopes, or another resolution."""

    def __init__(self, reservation_id: str, reason: str) -> None:
        self.reservation_id, self.reason = reservation_id, reason
        super().__init__(f"reservation {reservation_id!r}: {reason}")


def readable(amount: Decimal, *, up: bool = False, sign: str = "$") -> str:
    """Write an amount for people: cents, and below ten four digits that count. Rounds down, or ``up``."""
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    size = abs(amount)
    places = max(3 - size.adjusted(), 2) if size else 2
    shown = amount.quantize(Decimal(1).scaleb(-places), context=Context(prec=60, rounding=rounding))
    text = f"{abs(shown):,f}"
    whole, _, fraction = text.partition(".")
    return f"{'-' if shown < 0 else ''}{sign}{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - a minute


_LONGEST = 256


def _nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    # a name may be a client's, of any length, and comparing takes its length times its length
    return tuple(get_close_matches(name, tuple(known), n=3, cutoff=0.6)) if len(name) <= _LONGEST else ()


def restore(kind: type[LLMCostError], args: tuple[Any, ...], state: dict[str, Any]) -> LLMCostError:
    """An error of ``kind`` with the given arguments and fields, its message as it was."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
