"""What an owner can set of retries and fallbacks: where, and to what; what goes wrong; what differs on purpose.

A cell is one setting at one place with one value, one fault, one way of calling. In every cell the router of this
package sends what a plain ``litellm.Router`` sends, waits where it waits and ends as it ends, but for ``DIFFERENCES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llm_cost_middleware.simulator import Fault

CONTEXT = {
    "openai": {"error": {"message": "This model's maximum context length is 8192 tokens.", "param": "messages",
                         "type": "invalid_request_error", "code": "context_length_exceeded"}},
    "anthropic": {"type": "error", "error": {"type": "invalid_request_error",
                                             "message": "prompt is too long: 210000 tokens > 200000 maximum"}},
}  # fmt: skip
POLICY = {
    "openai": {"error": {"message": "Invalid prompt: it was flagged as potentially violating our usage policy.",
                         "param": None, "type": "invalid_request_error", "code": "invalid_prompt"}},
    "anthropic": {"type": "error", "error": {"type": "invalid_request_error",
                                             "message": "Output blocked by content filtering policy"}},
}  # fmt: skip


class Failing(NamedTuple):
    """A fault of the deployments whose key begins so; ``times``: of how many requests."""

    keys: tuple[str, ...]
    fault: Callable[[str], Fault]
    """By the provider that answers."""
    times: int = 99


def _always(fault: Fault, *keys: str) -> Failing:
    return Failing(keys or ("a",), lambda provider: fault)


FAULTS: Mapping[str, tuple[Failing, ...]] = {
    "500": (_always(Fault.status(500)),),
    "500 once": (Failing(("a",), lambda provider: Fault.status(500), 1),),
    "500 everywhere": (_always(Fault.status(500), "a", "b", "c"),),
    "500, then 400": (_always(Fault.status(500)), _always(Fault.status(400), "b")),
    "503": (_always(Fault.status(503)),),
    "429": (_always(Fault.status(429)),),
    "429, wait 7 s": (_always(Fault.status(429, retry_after=7)),),
    "429, wait 90 s": (_always(Fault.status(429, retry_after=90)),),
    "no money": (_always(Fault.insufficient_quota()),),
    "408": (_always(Fault.status(408)),),
    "401": (_always(Fault.status(401)),),
    "403": (_always(Fault.status(403)),),
    "404": (_always(Fault.status(404)),),
    "400": (_always(Fault.status(400)),),
    "400 everywhere": (_always(Fault.status(400), "a", "b", "c"),),
    "too long": (Failing(("a",), lambda provider: Fault.status(400, body=CONTEXT[provider])),),
    "forbidden text": (Failing(("a",), lambda provider: Fault.status(400, body=POLICY[provider])),),
    "nothing": (),
}
ORDINARY = ("500", "500 once", "429", "400")


@dataclass(frozen=True)
class Setting:
    """One setting: its values, the places where an owner can write it, and what shows it."""

    name: str
    values: tuple[Any, ...]
    places: tuple[str, ...] = ("constructor", "update_settings", "assigned", "request")
    faults: tuple[str, ...] = ORDINARY
    deployments: int = 1
    """How many the first group has. One of two is preferred, so that the order is the same each time."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What the constructor is told as well."""
    calls: int = 1
    """How many calls are made: cooldowns show in the next one."""


TO_B, CHAIN = [{"a": ["b"]}], [{"a": ["b"]}, {"b": ["c"]}]
LIVE = ("constructor", "update_settings", "assigned")
SETTINGS = (
    Setting("nothing", (None,), ("constructor",), ("500", "429", "408", "401", "404", "400", "503", "too long")),
    Setting("nothing", (None,), ("constructor",), ("500", "429", "401", "no money", "403", "503"), deployments=2),
    Setting("num_retries", (0, 1, 3), (*LIVE, "deployment", "request")),
    Setting("num_retries", (0, 1), ("constructor", "request"), ("500", "429", "401"), deployments=2),
    Setting("max_retries", (0, 4), ("deployment", "request"), ("500",)),
    Setting(
        "retry_policy",
        ({"InternalServerErrorRetries": 0}, {"RateLimitErrorRetries": 1}, {"BadRequestErrorRetries": 2},
         {"DefaultRetries": 0, "TimeoutErrorRetries": 1}, {"AuthenticationErrorRetries": 1}),
        ("constructor", "update_settings", "request"),
        ("500", "429", "400", "408", "401", "503"),
    ),
    Setting("retry_policy", ({"DefaultRetries": 1},), ("constructor",), ("500", "400"), beside={"num_retries": 0}),
    Setting("model_group_retry_policy", ({"a": {"InternalServerErrorRetries": 3}}, {"b": {"DefaultRetries": 3}}),
            ("constructor", "update_settings", "request"), ("500", "429")),
    Setting("retry_after", (3,), LIVE, ("500", "429, wait 7 s")),
    Setting("fallbacks", (TO_B, CHAIN, [{"*": ["c"]}], [{"a": ["b", "c"]}], [], [{"b": ["c"]}]),
            (*LIVE, "request"), (*ORDINARY, "500, then 400", "400 everywhere", "too long"), beside={"num_retries": 1}),
    Setting("fallbacks", (["b"], ["b", "c"], [{"model": "b"}], [{"model": "c", "temperature": 1}], None), ("request",),
            (*ORDINARY, "500, then 400"), beside={"num_retries": 0, "fallbacks": [{"a": ["c"]}]}),
    Setting("fallbacks", (TO_B,), ("constructor", "request"), ("429", "401", "500"), deployments=2),
    Setting("default_fallbacks", (["b"], ["b", "c"]), ("constructor",), (*ORDINARY, "500, then 400")),
    Setting("context_window_fallbacks", ([{"a": ["c"]}], [], [{"b": ["c"]}]), (*LIVE, "request"),
            ("too long", "400", "500"), beside={"fallbacks": TO_B, "num_retries": 1}),
    Setting("content_policy_fallbacks", ([{"a": ["c"]}], []), ("constructor", "assigned", "request"),
            ("forbidden text", "400"), beside={"fallbacks": TO_B, "num_retries": 1}),
    Setting("max_fallbacks", (0, 1, 5), ("constructor", "assigned", "request"), ("400 everywhere", "500, then 400"),
            beside={"fallbacks": CHAIN, "num_retries": 0}),
    Setting("disable_fallbacks", (True, False), ("request",), ("500", "400"), beside={"fallbacks": TO_B}),
    Setting("allowed_fails", (0, 2), LIVE, ("500", "408"), deployments=2, calls=3),
    Setting("allowed_fails_policy", ({"InternalServerErrorAllowedFails": 0}, {"TimeoutErrorAllowedFails": 0}),
            ("constructor",), ("500", "408"), deployments=2, calls=3),
    Setting("cooldown_time", (0, 60), LIVE, ("429", "401"), deployments=2, calls=2),
    Setting("cooldown_time", (60,), ("deployment",), ("429",), deployments=2, calls=2),
    Setting("disable_cooldowns", (True,), ("constructor",), ("429", "401"), deployments=2, calls=2),
    Setting("mock_testing_fallbacks", (True,), ("request",), ("nothing",), beside={"fallbacks": TO_B}),
    Setting("mock_testing_context_fallbacks", (True,), ("request",), ("nothing",),
            beside={"context_window_fallbacks": [{"a": ["c"]}]}),
    Setting("mock_testing_content_policy_fallbacks", (True,), ("request",), ("nothing",),
            beside={"content_policy_fallbacks": [{"a": ["c"]}]}),
    Setting("timeout", (7, 11.5), (*LIVE, "deployment", "request"), ("nothing", "500 once")),
    Setting("stream_timeout", (7,), ("constructor", "deployment", "request"), ("nothing",)),
    Setting("request_timeout", (7,), ("deployment", "request"), ("nothing",)),
)  # fmt: skip
DOORS = ("acompletion", "completion", "acompletion stream", "completion stream", "aresponses", "aresponses stream",
         "responses", "messages")  # fmt: skip


class Cell(NamedTuple):
    """One cell of the product."""

    setting: Setting
    place: str
    value: Any
    fault: str
    door: str


def product() -> Iterator[Cell]:
    """All of them."""
    for setting in SETTINGS:
        for place in setting.places:
            for value in setting.values:
                for fault in setting.faults:
                    for door in DOORS:
                        yield Cell(setting, place, value, fault, door)


def sample() -> Iterator[Cell]:
    """Every value at every place, with a fault and a way of calling that change from one to the next."""
    turn = 0
    for setting in SETTINGS:
        faults = len(setting.faults) if setting.name == "nothing" else 1
        for value in setting.values:
            for place in setting.places:
                for _ in range(faults):
                    fault = setting.faults[turn % len(setting.faults)]
                    yield Cell(setting, place, value, fault, DOORS[(turn + turn // len(DOORS)) % len(DOORS)])
                    turn += 1


class Difference(NamedTuple):
    """Where the router differs on purpose."""

    applies: Callable[[Cell], bool]
    like: Callable[[Cell], Cell]
    """The cell in which a plain router does what this one does here."""
    why: str


def _counted(cell: Cell) -> bool:
    return cell.setting.deployments == 1 and cell.setting.name != "retry_policy"


def _as(**changes: Any) -> Callable[[Cell], Cell]:
    return lambda cell: cell._replace(**changes)


DIFFERENCES = (
    Difference(
        lambda cell: cell.place == "deployment" and cell.setting.name == "num_retries" and "responses" in cell.door,
        _as(door="acompletion"),
        "responses with num_retries of a deployment: LiteLLM repeats some below its router, a refused request too",
    ),
    Difference(
        lambda cell: cell.door == "responses", _as(door="aresponses"),
        "synchronous responses: LiteLLM neither retries nor falls back; here they are as the asynchronous ones",
    ),
    Difference(
        lambda cell: cell.fault in {"no money", "429, wait 90 s"} and _counted(cell), _as(fault="400"),
        "an empty account, or a wait longer than retry.max_retry_after_s: the same deployment is not asked again",
    ),
)  # fmt: skip
