"""Who must be named before a call is sent, by which names, and how names are compared.

One rule for every host: a call is attributed when it is routed, a batch when it is reserved, a booking when it is made.
Budgets of the configuration are written by the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import unquote

from llm_cost_middleware.budget.model import Budget, make_scope, parse_scope
from llm_cost_middleware.budget.rules.names import Normalise, write_budget, write_name, write_scope
from llm_cost_middleware.errors import AttributionError, ConfigurationError
from llm_cost_middleware.lifecycle.provider_fields import END_USER, check_path, end_user_in
from llm_cost_middleware.platform import PLATFORMS
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.request import CallContext
from llm_cost_middleware.typed_fields import canonical_fields, names_unknown_keys

UNASSIGNED = "unassigned"
"""The name under which money is booked that nobody claims, where it was let through."""
_OWN_KINDS = frozenset({"global", "model", "provider"})  # set here, of every call
_REMEMBERED = 10_000
_LISTED = 5


class Gap(NamedTuple):
    """What is wrong with the attribution of a call."""

    kind: str
    name: str | None
    """A name that is not on the list; ``None``: none was given."""
    stands_for: str
    """The scope that takes its place where it is let through."""


class Attributed(NamedTuple):
    """Scopes of a call by the rule, and what they lack."""

    scopes: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()


@names_unknown_keys("attribution")
@dataclass(frozen=True, slots=True)
class AttributionConfig:
    """``[attribution]``: who must be named, and whose word counts when a call is booked under a scope.

    Args:
        trust_end_user: Book what a client of the LiteLLM proxy says of its end user (``user`` in the body, the header
            ``x-litellm-end-user-id``, ``metadata.user_id``, ``safety_identifier``) under ``end_user:NAME``. Any client
            can write any name there.
        require: Kinds that every call must name, such as ``["team"]``.
        names: The names that there are, by kind, such as ``{"team": ["search", "svc-*"]}``; ``*`` and ``?`` stand for
            any text. A kind without a list takes every name.
        on_missing: What becomes of a call that names none: ``deny``, ``warn`` (it is sent, and booked under
            ``KIND:unassigned``), or the scope to book it under, such as ``team:unassigned`` (a list for several kinds).
            A name that is not on the list is refused, but for ``warn``.
        normalise: How names of the kinds above are written, in budgets and calls alike: ``unicode`` (NFKC: two
            encodings of one text are one name), ``case`` (case folded as well), or ``none``.
        end_user_from: Fields of a request whose value becomes its ``end_user:`` scope, where it has none; the first
            that is there counts: ``user``, ``safety_identifier``, ``metadata.KEY``. Whoever writes requests can write
            any name there.
        send: The kind of scope whose name fills a field of the provider that the request leaves empty, such as
            ``{"safety_identifier": "end_user", "metadata.team": "team"}``: its dashboard then shows it. The provider
            gets to know these names.
    """

    trust_end_user: bool = False
    require: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    on_missing: str | tuple[str, ...] = "deny"
    normalise: Normalise = "unicode"
    end_user_from: tuple[str, ...] = ()
    send: Mapping[str, str] = field(default_factory=dict)
    asks_nothing: bool = field(init=False, repr=False, compare=False, default=True)
    """Whether calls keep their scopes as they are."""
    _known: dict[tuple[str, ...], Attributed] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        names, missing = self.names, self.on_missing
        put(self, "names", {})
        put(self, "on_missing", "deny")
        canonical_fields(self, "attribution", leave=("names", "on_missing", "send"))
        put(self, "send", _read_send(self.send))
        for path in self.end_user_from:
            check_path(path, "attribution.end_user_from")
        if not isinstance(names, Mapping):
            raise ConfigurationError(
                f"must be a table of lists, such as {{'team': ['search', 'ads']}}, not {names!r}",
                key="attribution.names",
            )
        for kind in (*self.require, *names):
            if parse_scope(f"{kind}:*", template=True) and kind in _OWN_KINDS:
                raise ConfigurationError(f"{kind} is set by the middleware itself", key="attribution.require")
        put(self, "names", {kind: self._read_names(kind, listed) for kind, listed in names.items()})
        put(self, "on_missing", self._read_missing(missing))
        put(self, "asks_nothing", not (self.require or self.names or self.end_user_from))

    def _read_names(self, kind: str, listed: Any) -> tuple[str, ...]:
        if isinstance(listed, str) or not isinstance(listed, Iterable):
            raise ConfigurationError(
                f"must be a list such as ['search', 'svc-*'], not {listed!r}", key=f"attribution.names.{kind}"
            )
        return tuple(dict.fromkeys(write_name(str(one), self.normalise) for one in listed))

    def _read_missing(self, value: Any) -> str | tuple[str, ...]:
        if value in {"deny", "warn"}:
            return str(value)
        found = (value,) if isinstance(value, str) else tuple(value)
        if not all(isinstance(one, str) and ":" in one for one in found):
            raise ConfigurationError(
                f"must be 'deny', 'warn' or a scope such as 'team:{UNASSIGNED}', not {value!r}",
                key="attribution.on_missing",
            )
        scopes = tuple(map(self.scope, found))
        kinds = {scope.partition(":")[0] for scope in scopes}
        if left := [kind for kind in self.require if kind not in kinds]:
            raise ConfigurationError(
                f"names no scope for {', '.join(left)}; write a list, a scope for each", key="attribution.on_missing"
            )
        return scopes

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that the rule is about."""
        return frozenset((*self.require, *self.names))

    def end_user_of(self, scopes: tuple[str, ...], settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the scopes of a request, with the end user that its own fields name."""
        if not self.end_user_from or any(scope.startswith(f"{END_USER}:") for scope in scopes):
            return scopes
        found = end_user_in(settings, self.end_user_from)
        return scopes if found is None else (*scopes, found)

    @property
    def spelling(self) -> dict[str, Normalise]:
        """How names of each of these kinds are written."""
        return dict.fromkeys(sorted(self.kinds), self.normalise)

    def scope(self, scope: str) -> str:
        """Write a scope, or the template of a budget, by the rule, and a model without its provider."""
        scope = parse_scope(scope, template=True)
        kind, _, name = scope.partition(":")
        provider, slash, model = name.partition("/")
        if (
            kind == "model" and slash and model and provider in {*NAMES, *PLATFORMS}
        ):  # calls go by it, whoever names the provider too
            scope = f"{kind}:{model}"
        return write_scope(scope, self.spelling)

    def callable_scope(self, scope: str, *, key: str) -> str:
        """Write a scope, or a template, by the rule; ``key`` names the section at fault.

        Raises:
            ConfigurationError: No call can have it: the name is not on the list.
        """
        scope = self.scope(scope)
        for gap in self.attributed((scope,)).gaps if not scope.endswith(":*") else ():
            if gap.name is not None and scope not in self.stand_ins:
                raise ConfigurationError(f"no call may be for it: {self.error(gap)}", key=f"{key}.{scope}")
        return scope

    def budget(self, budget: Budget) -> Budget:
        """Write the scopes of a budget by the rule.

        Raises:
            ConfigurationError: No call can have its scope: the name is not on the list.
        """
        scope = self.callable_scope(budget.scope, key="budgets")
        return write_budget(budget if scope == budget.scope else replace(budget, scope=scope), self.spelling)

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """The scopes under which money is booked that nobody claims."""
        if isinstance(self.on_missing, tuple):
            return self.on_missing
        return tuple(make_scope(kind, UNASSIGNED) for kind in sorted(self.kinds))

    def attributed(self, scopes: tuple[str, ...]) -> Attributed:
        """Write the scopes of a call by the rule, and say what they lack."""
        if not self.require and not self.names:
            return Attributed(scopes)
        found = self._known.get(scopes)
        if found is None:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            found = self._known[scopes] = self._attributed(scopes)
        return found

    def _attributed(self, scopes: tuple[str, ...]) -> Attributed:
        stands_for = {scope.partition(":")[0]: scope for scope in self.stand_ins}
        written = tuple(dict.fromkeys(map(self.scope, scopes)))
        gaps, named = [], set()
        for scope in written:
            kind, _, name = scope.partition(":")
            named.add(kind)
            listed = self.names.get(kind)
            if scope == stands_for.get(kind):
                if self.on_missing == "deny":  # nobody names himself nobody
                    gaps.append(Gap(kind, None, scope))
                continue
            if listed is None:
                continue
            raw = unquote(name)
            if not any(fnmatchcase(raw, pattern) for pattern in listed):
                gaps.append(Gap(kind, raw, stands_for.get(kind, make_scope(kind, UNASSIGNED))))
        gaps += [Gap(kind, None, stands_for[kind]) for kind in self.require if kind not in named]
        return Attributed(written, tuple(gaps))

    def refuses(self, gap: Gap) -> bool:
        """Whether a call with this gap is refused."""
        return self.on_missing == "deny" or (gap.name is not None and self.on_missing != "warn")

    def filled(self, found: Attributed) -> tuple[str, ...]:
        """The scopes of a call that is let through, or was made already: what it lacks is booked as unassigned."""
        unknown = {make_scope(gap.kind, gap.name) for gap in found.gaps if gap.name is not None}
        kept = (scope for scope in found.scopes if scope not in unknown)
        return tuple(dict.fromkeys((*kept, *(gap.stands_for for gap in found.gaps))))

    def error(self, gap: Gap) -> AttributionError:
        """The refusal, with the nearest name that there is."""
        listed = self.names.get(gap.kind, ())
        plain = {one.casefold(): one for one in listed if not set(one) & {"*", "?", "["}}
        near = get_close_matches((gap.name or "").casefold(), plain, n=3, cutoff=0.6) if gap.name else []
        return AttributionError(gap.kind, gap.name, tuple(plain[one] for one in near), listed[:_LISTED])


def _read_send(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        form = "a table such as {'safety_identifier': 'end_user'}"
        raise ConfigurationError(f"must be {form}, not {value!r}", key="attribution.send")
    for path, kind in value.items():
        check_path(path, "attribution.send")
        if not isinstance(kind, str) or not parse_scope(f"{kind}:*", template=True):
            raise ConfigurationError(f"must be a kind of scope, such as 'team', not {kind!r}", key="attribution.send")
    return dict(value)


def with_scopes(context: CallContext, scopes: tuple[str, ...]) -> CallContext:
    """The context of a call under other scopes."""
    return context if scopes == context.scopes else context._replace(scopes=scopes)
