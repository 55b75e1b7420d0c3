"""What the providers refuse of the parameters, by model: rules as data, each with its source."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

_ABSENT = object()
_PAIR = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """One message of a provider, and the requests that it refuses."""

    endpoints: tuple[str, ...]
    parameter: tuple[str, ...]
    message: str
    source: str
    models: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    takes: tuple[Any, ...] = ()
    at_least: float | None = None
    when: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    code: str | None = None
    names: str | None = None
    """The parameter that the error names, where it is not the one that is looked at."""

    def refusal(self, body: Mapping[str, Any], model: str, effort: str | None) -> tuple[str, str] | None:
        """The parameter and the message for a request of a model that the rule is about; ``None`` where it passes."""
        for path in self.parameter:
            value = find(body, path, effort)
            if value is _ABSENT or value is None or any(_same(value, taken) for taken in self.takes):
                continue
            if self.at_least is not None and isinstance(value, int | float) and value >= self.at_least:
                continue
            if all(_holds(find(body, where, effort), wanted) for where, wanted in self.when.items()):
                taken = ", ".join(repr(each) for each in self.takes)
                shown = self.message.format(parameter=path, value=value, model=model, takes=taken)
                return self.names or path, shown
        return None


class BrokenRule(NamedTuple):
    """A rule, and what a request did wrong."""

    rule: Rule
    parameter: str
    message: str


@dataclass(frozen=True, slots=True)
class RuleBook:
    """The rules of one provider."""

    rules: tuple[Rule, ...]
    efforts: tuple[tuple[str, str], ...]
    """Beginnings of names with the effort of a request that states none, the longest first."""

    def check(
        self, body: Mapping[str, Any], model: str, endpoint: str, *, called: str | None = None
    ) -> BrokenRule | None:
        """The first rule that a request breaks; ``None`` for a valid one.

        Args:
            body: The request.
            model: The model that serves it.
            endpoint: Where it was sent.
            called: The model's name in the request, for the message.
        """
        effort = next((effort for name, effort in self.efforts if begins(model, name)), None)
        for rule in self.about(model, endpoint):
            refused = rule.refusal(body, called or model, effort)
            if refused is not None:
                return BrokenRule(rule, *refused)
        return None

    def about(self, model: str, endpoint: str) -> Iterator[Rule]:
        """The rules on a model at an endpoint."""
        for rule in self.rules:
            if endpoint not in rule.endpoints or any(begins(model, name) for name in rule.excluded):
                continue
            if not rule.models or any(begins(model, name) for name in rule.models):
                yield rule


@lru_cache(maxsize=4)
def rule_book(provider: str) -> RuleBook:
    """The rules of a provider."""
    table = tomllib.loads(files(__package__).joinpath(f"{provider}.toml").read_text("utf-8"))
    groups: Mapping[str, list[str]] = table["groups"]

    def names(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
        given = row.get(key, ())
        return tuple(name for each in given for name in (groups[each[1:]] if each.startswith("@") else (each,)))

    rules = [
        Rule(
            endpoints=tuple(row["endpoints"]),
            parameter=tuple(row["parameter"]),
            message=row["message"],
            source=row["source"],
            models=names(row, "models"),
            excluded=names(row, "except"),
            takes=tuple(row.get("takes", ())),
            at_least=row.get("at_least"),
            when=row.get("when", {}),
            code=row.get("code"),
            names=row.get("names"),
        )
        for row in table["rule"]
    ]
    rules += _effort_rules(table.get("efforts", ()), names)
    defaults = [
        (name, row["effort"], names(row, "except"))
        for row in table.get("default_effort", ())
        for name in names(row, "models")
    ]
    # what is taken out of a default falls to the next one that is stated for a shorter or an equal name
    flat = [(name, effort) for name, effort, _ in defaults]
    flat += [(name, "medium") for _, _, excluded in defaults for name in excluded]
    longest = sorted(flat, key=lambda entry: (-len(entry[0]), entry[1] != "none"))
    return RuleBook(tuple(rules), tuple(longest))


def _effort_rules(rows: Sequence[Mapping[str, Any]], names: Any) -> Iterator[Rule]:
    """The levels of effort that each model takes. A longer name overrides a shorter one."""
    stated = [(name, tuple(row["takes"]), row["source"]) for row in rows for name in names(row, "models")]
    for name, takes, source in stated:
        longer = tuple(other for other, *_ in stated if other != name and begins(other, name))
        levels: list[str] = [repr(level) for level in takes]
        listed = levels[-1]
        if levels[1:]:
            listed = f"{', '.join(levels[:-1])}{',' if len(levels) > _PAIR else ''} and {listed}"
        message = "Unsupported value: '{value}' is not supported with the '{model}' model. Supported values are: "
        for path, endpoint in (("reasoning_effort", "chat/completions"), ("reasoning.effort", "responses")):
            yield Rule(
                endpoints=(endpoint,), parameter=(path,), message=f"{message}{listed}.", source=source,
                models=(name,), excluded=longer, takes=takes, code="unsupported_value",
            )  # fmt: skip


def begins(model: str, name: str) -> bool:
    """Whether a model is one of a name: ``gpt-5-mini`` of ``gpt-5``, which ``gpt-5.1`` is not."""
    return model == name or model.startswith((f"{name}-", f"{name}@"))


def find(body: Mapping[str, Any], path: str, effort: str | None) -> Any:
    """The value at a path; a name with ``@`` is read off the whole request."""
    if path.startswith("@"):
        return _derived(body, path, effort)
    value: Any = body
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _derived(body: Mapping[str, Any], what: str, effort: str | None) -> Any:
    if what == "@effort":
        reasoning = body.get("reasoning")
        stated = reasoning.get("effort") if isinstance(reasoning, Mapping) else body.get("reasoning_effort")
        return stated or effort
    if what == "@function_tools":
        return any(isinstance(tool, Mapping) and tool.get("type") == "function" for tool in body.get("tools") or ())
    if what == "@thinks":
        thinking = body.get("thinking")
        return isinstance(thinking, Mapping) and thinking.get("type") in {"enabled", "adaptive"}
    if what == "@forced_tool":
        choice = body.get("tool_choice")
        return (isinstance(choice, Mapping) and choice.get("type") in {"any", "tool"}) or None
    if what == "@prefill":
        messages = list(body.get("messages") or ())
        return (bool(messages) and messages[-1].get("role") == "assistant") or None
    raise ValueError(what)


def _holds(value: Any, wanted: Sequence[Any]) -> bool:
    if wanted[0] == "@set":
        return value is not _ABSENT and value is not None
    if wanted[0] == "@other":
        return value not in wanted[1:]
    return any(_same(value, each) for each in wanted)


def _same(value: Any, other: Any) -> bool:
    # ``True == 1`` in Python, and no provider takes one for the other
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)
