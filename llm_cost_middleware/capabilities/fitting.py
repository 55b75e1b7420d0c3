"""A request's parameters for a model that its caller did not write them for: kept, translated, left out or refused.

A parameter is translated where its meaning carries over, left out where it is a hint (how to sample, spend or word),
and otherwise the model may not take the call. Pure: the tables of this package and the request decide.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from marshal import dumps
from types import MappingProxyType
from typing import Any, NamedTuple

from llm_cost_middleware.capabilities import ModelCapabilities, Parameter, find_capabilities, read_parameters
from llm_cost_middleware.capabilities.arms import arm_fields, arm_for
from llm_cost_middleware.capabilities.as_provider import as_provider
from llm_cost_middleware.capabilities.efforts import nearest_effort, stated_effort
from llm_cost_middleware.capabilities.rules import RULES, asks_for_something
from llm_cost_middleware.capabilities.thinking import begun_without_thoughts, thinking_faults
from llm_cost_middleware.request import EMPTY, CallRequest, ModelRef

_NATIVE: Mapping[str, str] = MappingProxyType(
    {"chat.completions": "openai", "responses": "openai", "messages": "anthropic"}
)
_LEFT_ABROAD = frozenset({"user", "metadata"})
"""Bookkeeping that hosts translate themselves."""


class Fit(NamedTuple):
    """How the parameters of a request fit a model."""

    refused: str = ""
    """Why the model may not take the call; empty where it may."""
    changes: Mapping[str, Any] = EMPTY
    """Fields of the body that are written otherwise for it; ``None`` leaves one out."""
    left_out: tuple[str, ...] = ()
    """Parameters with a meaning that the model does not take."""


UNCHANGED = Fit()


def fit(request: CallRequest, target: ModelRef, *, lenient: bool = False) -> Fit:
    """Fit the parameters of a request to a model.

    Args:
        request: The call.
        target: The model, or an arm: what the caller states himself wins over it.
        lenient: Leave out soft demands, too.

    Returns:
        ``changes`` also where it is refused: the fields that the model does take.
    """
    return Fits(request, lenient=lenient).at(target)


def fit_eligible(request: CallRequest, target: ModelRef, *, lenient: bool = False) -> Fit:
    """As ``fit``, of a model that may take the call: only ``changes`` and ``left_out`` are of use.

    Both come of parameters, of tools, and of what an arm asks for: without any of them there is nothing to work out.
    """
    if request.settings or request.tools or target.parameters:
        return Fits(request, lenient=lenient).at(target)
    return UNCHANGED


class Fits:
    """How one request fits models: worked out once for all requests of the same shape.

    Args:
        request: The call.
        lenient: Leave out soft demands, too.
    """

    __slots__ = ("_home", "_known", "_lenient", "_request")

    def __init__(self, request: CallRequest, *, lenient: bool = False) -> None:
        self._request, self._lenient = request, lenient
        self._home = request.provider, request.model
        shape = shape_of(request)
        if shape is None:
            self._known: dict[Hashable, Fit] = {}
            return
        key = shape, lenient
        known = _shapes.get(key)
        if known is None:
            if len(_shapes) >= _SHAPES:
                _shapes.clear()  # shapes that never repeat would otherwise grow it for ever
            known = _shapes[key] = {}
        self._known = known

    def at(self, target: ModelRef) -> Fit:
        """How it fits a model or an arm: as ``fit``."""
        if target == self._home:  # never true of an arm
            return UNCHANGED
        asked = self._request.endpoint_at
        key = target if asked is None else (target, asked(target.plain))
        found = self._known.get(key)
        if found is None:
            found = _fit(self._request, target, lenient=self._lenient)
            if len(self._known) < _TARGETS and _is_plain(found.changes):
                self._known[key] = found
        return found


_SHAPES, _TARGETS = 512, 64
_LONGEST_SHAPE = 2_048  # bytes of settings; longer ones carry a prompt's own data, and rarely come back
_shapes: dict[Hashable, dict[Hashable, Fit]] = {}


def shape_of(request: CallRequest) -> Hashable | None:
    """All that a fit depends on beside the target; ``None`` where it cannot be compared.

    The parameters are compared by their values, because a caller may change an object that it passed before.
    """
    settings, stated = request.settings, b""
    if settings:
        try:
            stated = dumps(dict(settings), 2)  # tells apart 1, 1.0 and True; refuses what is not plain data
        except ValueError:
            return None
        if len(stated) > _LONGEST_SHAPE:
            return None
    counts, tools = request.contents, request.tools
    return (
        stated, request.provider, request.model, request.endpoint, request.max_tokens, bool(tools), counts.defers_tools,
        counts.begins_answer, counts.speaks, counts.blanks_user, counts.instructs_inside, request.endpoint_at is None,
        bool(counts.odd_parts) and begun_without_thoughts(request.messages),
    )  # fmt: skip


def _is_plain(changes: Mapping[str, Any]) -> bool:
    """Whether changes can be kept: nothing of the caller's, and nothing that a host might write into."""
    return not changes or all(value is None or type(value) in (str, int) for value in changes.values())


def _fit(request: CallRequest, target: ModelRef, *, lenient: bool) -> Fit:
    request, target = as_provider(request, target)
    if target.parameters and (target := arm_for(target, request)).parameters:
        return _fit_arm(request, target, lenient=lenient)
    if target.model == request.model and target.provider == request.provider:
        return UNCHANGED
    if request.endpoint == "embeddings":
        return Fit("would make other vectors than the model that the caller named")
    known = find_capabilities(*target)
    abroad = target.provider != _NATIVE.get(request.endpoint)
    if known is None:  # nothing is stated of it: what its owner configured is sent as it was written
        return UNCHANGED
    return Fitting(request, target, known, abroad=abroad, lenient=lenient).run()


def _fit_arm(request: CallRequest, arm: ModelRef, *, lenient: bool) -> Fit:
    """Fit a request to an arm, whose parameters are sent as they are stated or not at all."""
    target, known = arm.plain, find_capabilities(*arm.plain)
    abroad = target.provider != _NATIVE.get(request.endpoint)
    translated = request.endpoint_at is not None and request.endpoint_at(target) is not None
    fields = arm_fields(arm, request, abroad=abroad, rewritten=translated)
    if known is None:  # its owner configured it so
        return Fit(changes=MappingProxyType(fields))
    # an effort goes the way of one that the caller states; what hosts do not translate is looked at here
    effort = {name: value for name, value in fields.items() if name not in ("thinking", "verbosity")}
    asked = request._replace(settings={**request.settings, **effort})
    fitting = Fitting(asked, target, known, abroad=abroad, lenient=lenient)
    fitting.arm_thinks = bool(arm.parameters.get("thinking_budget"))
    found = fitting.run()
    refused = [found.refused] if found.refused else []
    taken, level = stated_effort({**effort, **found.changes}), arm.parameters.get("reasoning_effort")
    if effort and taken != level:
        refused.append(f"takes {f'reasoning_effort = {taken}' if taken else 'no effort'} for this call, not {level}")
    if abroad and not translated and request.endpoint == "messages":
        # LiteLLM, the one host that makes another provider's request of it, leaves both behind (1.102.0 to 1.110.2)
        refused += [f"is told no {name} through messages" for name in arm.parameters]
    if budget := arm.parameters.get("thinking_budget"):
        refused += thinking_faults(request, budget)
    return Fit("; ".join(dict.fromkeys(refused)), MappingProxyType({**fields, **found.changes}), found.left_out)


class Fitting:
    """One request on its way to one model."""

    __slots__ = (
        "abroad", "arm_thinks", "bridged", "changes", "endpoint", "known", "left_out", "lenient", "refused", "request",
        "settings", "target",
    )  # fmt: skip

    def __init__(
        self, request: CallRequest, target: ModelRef, known: ModelCapabilities, *, abroad: bool, lenient: bool
    ) -> None:
        self.request, self.target = request, target
        self.known: ModelCapabilities = known
        self.abroad: bool = abroad
        self.lenient: bool = lenient
        self.arm_thinks: bool = False
        """An arm has it think, which has rules of its own."""
        self.settings = request.settings
        served = request.endpoint_at(target) if request.endpoint_at is not None else request.endpoint
        self.bridged = served is None
        self.endpoint = served or request.endpoint
        self.changes: dict[str, Any] = {}
        self.left_out: list[str] = []
        self.refused: list[str] = []

    def run(self) -> Fit:
        """What becomes of every parameter."""
        known, native = self.known, _NATIVE.get(self.endpoint) == self.target.provider and not self.bridged
        if native and known.endpoints and self.endpoint not in known.endpoints:
            self.refused.append(f"is not served at {self.endpoint}")
        if self.settings:
            tables = read_parameters()
            names, others = tables[self.request.endpoint], tables.values()
            for name, value in self.settings.items():
                if value is not None:
                    # hosts that translate take a parameter by its name at another endpoint, too
                    known_as = names.get(name) or next((table[name] for table in others if name in table), None)
                    self._parameter(name, value, known_as)
        self._conversation()
        if self.request.tools:
            self._tools()
        # LiteLLM sends such a chat to responses where the request states an effort
        bridges = self.bridged and self.stated_effort is not None
        in_chat = self.target.provider == "openai" and self.endpoint == "chat.completions" and not bridges
        if in_chat and self.request.tools:
            self._chat_tools()
        return Fit(
            "; ".join(dict.fromkeys(self.refused)),
            MappingProxyType(self.changes) if self.changes else EMPTY,
            tuple(dict.fromkeys(self.left_out)),
        )

    # --- one parameter ---------------------------------------------------------------------------------------------

    def _parameter(self, name: str, value: Any, parameter: Parameter | None) -> None:
        if parameter is None or parameter.fate == "home":
            self._refuse(name, f"is not known to take {name}")
            return
        fate, concept = parameter.fate, parameter.concept
        if fate == "cap":
            self._cap(name, value)
            return
        if fate == "content":
            return
        if self.abroad and self._stays_behind(name, parameter):
            return
        if self.endpoint == "responses" != self.request.endpoint and not self._has_name_at_responses(name, parameter):
            return
        rule = RULES.get(concept)
        if rule is None:
            return
        takes = rule(self, name, value)
        if takes:
            return
        if fate == "hint":
            self._leave_out(name)
        else:
            self._refuse(name, f"does not take {name}", soft=parameter.soft)

    def _stays_behind(self, name: str, parameter: Parameter) -> bool:
        """Whether a parameter is dealt with because the model is another provider's."""
        if parameter.fate == "bookkeeping":
            if name not in _LEFT_ABROAD:
                self.changes[name] = None
            return True
        if parameter.fate == "provider":
            self._refuse(name, f"does not take {name}, which is {self.request.provider}'s")
            return True
        if parameter.concept == "thinking":  # configured in words of its own at each provider, which hosts translate
            if not self.known.efforts:
                self._refuse(name, "does not think")
            return True
        if not parameter.crosses and parameter.concept not in _CARRIED:
            if parameter.fate == "hint":
                self._leave_out(name)
            elif asks_for_something(parameter.concept, self.settings[name]):
                self._refuse(name, f"does not take {name}", soft=parameter.soft)
            else:
                self.changes[name] = None
            return True
        return False

    def _has_name_at_responses(self, name: str, parameter: Parameter) -> bool:
        """Whether a chat's parameter can be sent where the host calls this model: at responses."""
        if parameter.concept in _CARRIED or any(
            other.concept == parameter.concept and other.fate == parameter.fate
            for other in read_parameters()["responses"].values()
        ):
            return True
        if parameter.fate in ("hint", "bookkeeping"):
            self._leave_out(name)
        elif asks_for_something(parameter.concept, self.settings[name]):
            self._refuse(name, f"does not take {name} at {self.endpoint}", soft=parameter.soft)
        else:
            self.changes[name] = None
        return False

    def _leave_out(self, name: str) -> None:
        self.changes[name] = None
        self.left_out.append(name)

    def _refuse(self, name: str, why: str, *, soft: bool = False) -> None:
        self.changes[name] = None
        if soft and self.lenient:
            self.left_out.append(name)
        else:
            self.refused.append(why)

    def _cap(self, name: str, value: Any) -> None:
        renames = self.request.endpoint == "chat.completions" and self.known.chat_cap == "max_completion_tokens"
        if renames and not self.abroad and name == "max_tokens":
            self.changes["max_tokens"] = None
            self.changes.setdefault("max_completion_tokens", self.settings.get("max_completion_tokens") or value)

    # --- what is read off the whole request ------------------------------------------------------------------------

    def _conversation(self) -> None:
        request, known, counts = self.request, self.known, self.request.contents
        if counts.begins_answer:
            foreign = self.target.provider == "openai" and request.endpoint == "messages"
            if foreign or not known.prefill:
                self.refused.append("does not continue an answer that the caller has begun")
        if self.abroad and self.target.provider == "anthropic":
            if not counts.speaks:
                self.refused.append("takes no instructions without a message of the user")
            elif counts.blanks_user:
                self.refused.append("takes no empty message")
        if self.endpoint == "messages" and not known.mid_system and counts.instructs_inside:
            self.refused.append("takes no system message inside the conversation")

    def _tools(self) -> None:
        """What the tools of a request ask for beside themselves."""
        known = self.known
        choice = self.settings.get("tool_choice")
        forced = is_forced(choice)
        alone = isinstance(choice, Mapping) and choice.get("disable_parallel_tool_use") is not None
        if alone and self.abroad and not known.parallel_tools:  # hosts say it by the parameter
            self._leave_out("parallel_tool_calls")
        if forced and (not known.forced_tools or self.thinks):
            self.refused.append("takes no tool_choice that forces a tool")
        if not known.deferred_tools and self.request.contents.defers_tools:
            self.refused.append("takes no tools with defer_loading")

    def _chat_tools(self) -> None:
        """Function tools of a chat, which some models take only while they do not reason."""
        known, name = self.known, "reasoning_effort"
        if known.chat_tools != "unreasoned" or self.effort == "none":
            return
        if known.default_effort == "none":
            self._leave_out(name)
        elif "none" in known.efforts:
            self._refuse(name, _TOOLS_WITHOUT_EFFORT, soft=True)
            self.changes[name] = "none"
        else:
            self.refused.append("takes no tools in a chat")

    @property
    def thinks(self) -> bool:
        """Whether it thinks by an arm, or as a host makes thinking of an effort that is stated: that has own rules."""
        if self.arm_thinks:
            return True
        if not (self.bridged and self.abroad and self.target.provider == "anthropic"):
            return False
        return self.settings.get("reasoning_effort") not in (None, "none") or bool(self.settings.get("reasoning"))

    @property
    def stated_effort(self) -> str | None:
        """The effort that the request states, as this model has it; ``None`` where it states none that it takes."""
        stated = stated_effort(self.settings)
        return None if stated is None else nearest_effort(stated, self.levels)

    @property
    def effort(self) -> str | None:
        """The effort that the request ends up with."""
        return self.stated_effort or self.known.default_effort

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of effort that the model takes at this endpoint: chats take no ``max``."""
        levels = self.known.efforts
        return tuple(each for each in levels if each != "max") if self.endpoint == "chat.completions" else levels


_TOOLS_WITHOUT_EFFORT = "takes tools in a chat only with reasoning_effort = none"
_CARRIED = frozenset({"effort", "reasoning", "output_config", "text", "schema", "verbosity", "parallel_tools"})
"""What hosts translate between endpoints and providers although the names differ."""


def is_forced(choice: Any) -> bool:
    """Whether a ``tool_choice``, of any endpoint, forces a tool."""
    if isinstance(choice, Mapping):
        return choice.get("type") in ("any", "tool", "function", "custom")
    return choice in ("required", "any")
