"""A reason is formatted when it is read, says what was true when it was decided, and keeps nothing large alive."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, replace
from random import Random
from types import MappingProxyType

import pytest
from held_sentences import holds_little, templates, written_templates
from msgspec import structs

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.capabilities.arms import Arm
from llm_cost_middleware.events import Routed
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.prompt_cache.plan import CachePlan
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import (
    CallContext,
    CallRequest,
    CallResult,
    Message,
    ModelRef,
    Part,
    ServerTool,
    Tool,
)
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.evaluated import Evaluated
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.routing.lanes import ASSUMED, Delay, LaneOffer, choose_lane
from llm_cost_middleware.routing.learned import LearnedPolicy
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.router import Candidate, RoutingContext, decide
from llm_cost_middleware.routing.rules import parse_rules
from llm_cost_middleware.sentences import text, unread
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

ALL = frozenset({"tools", "images", "documents", "audio", "schema"})
HAIKU = ModelRef("anthropic", "claude-haiku-4-5-20251001")
MINI = ModelRef("openai", "gpt-5-mini")
SONNET = ModelRef("anthropic", "claude-sonnet-4-6")
GPT = ModelRef("openai", "gpt-5.1")
PRICES = {HAIKU: (1, 5), MINI: (0.25, 2), SONNET: (3, 15), GPT: (1.25, 10)}  # USD a million tokens
LEARNED = LearnedPolicy(
    version="learned:1", weak=MINI, strong=GPT, threshold=0.25, intercept=0.5, sites=MappingProxyType({}),
    stat_weights=(), weights=MappingProxyType({}),
)  # fmt: skip


def candidate(target, tier, **changes):
    price_in, price_out = (int(dollars * 1_000_000) for dollars in PRICES[target])
    return replace(Candidate(target, tier, price_in, price_out, 200_000, 64_000, ALL), **changes)


FLEET = (candidate(HAIKU, 0), candidate(MINI, 0), candidate(SONNET, 1), candidate(GPT, 1))


def ask(said="Hello", *, provider="openai", model="smart", messages=1, tools=(), **fields):
    said_of_it = ("forced_model", "call_site", "item_count")
    context = CallContext(**{name: fields.pop(name) for name in said_of_it if name in fields})
    turns = tuple(Message(("user", "assistant")[at % 2], (Part("text", said),)) for at in range(messages))
    return CallRequest(
        provider, model, turns, tools=tools, endpoint="chat.completions", context=context, **fields
    )  # fmt: skip


def route(request, policy=None, fleet=FLEET, **facts):
    policy = RoutingPolicy(tiers=("small", "large"), **policy or {})
    context = RoutingContext("call-1", 1.0, Random(0), **facts)
    return decide(policy, fleet, request, read_features(request), context)


def seen(*, accepted):
    """A history of one site."""
    history = SiteHistory()
    for _ in range(40):
        history.observe("plain", MINI, 100, accepted=accepted)
    return history


LARGE, TOOL = "x" * 12_345, (Tool("t", "{}"),)
CHEAP_FIRST = {"kind": "cascade", "accept": "check"}
BY_FAILURES = {"kind": "cascade", "accept": "no_failure"}
BY_RULES = {"kind": "rules", "rules": parse_rules([{"tier": 1, "when": {"text_length": ">= 3", "site": "pl*"}}], ())}
BY_LABELS = {"kind": "learned", "learned": LEARNED}
LOW = Arm("openai", "gpt-5.1", {"reasoning_effort": "low"})
BLIND = replace(FLEET[0], capabilities=frozenset())
SMALL = "5 characters < 10,000 and 1 item < 30"
DECISIONS = {
    SMALL: lambda: route(ask()),
    "9,000 characters < 10,000 and 29 items < 30": lambda: route(ask("x" * 9_000, item_count=29)),
    "12,345 characters ≥ 10,000": lambda: route(ask(LARGE)),
    "1,200 items ≥ 30": lambda: route(ask(item_count=1_200)),
    "12,345 characters ≥ 10,000; the ceiling makes it small": lambda: route(ask(LARGE), {"ceiling": 0}),
    f"{SMALL}; stronger if the answer visibly fails": lambda: route(ask(), BY_FAILURES, FLEET[:2]),
    "cheap first, stronger if the answer is not accepted: expected to save $0.00077875 a call": lambda: route(
        ask(call_site="plain"), CHEAP_FIRST, history=seen(accepted=True)
    ),
    "asking a cheap model first does not pay at plain: 0% of 40 accepted, -$0.00011125 a call": lambda: route(
        ask(call_site="plain"), CHEAP_FIRST, history=seen(accepted=False)
    ),
    "the learned policy has fallen back to the stronger model: it drifted": lambda: route(
        ask(), BY_LABELS, fallen_back={"learned:1": "it drifted"}
    ),
    "expected gain of the stronger model +0.500 ≥ +0.250 at plain": lambda: route(ask(call_site="plain"), BY_LABELS),
    "rule text_length >= 3 and site is pl*": lambda: route(ask(call_site="plain"), BY_RULES),
    f"explored, instead of: {SMALL}": lambda: route(ask(), {"explore": 1.0}),
    f"{SMALL}; no model of small may take it, so large": lambda: route(ask(), fleet=FLEET[2:]),
    "stays with the model that it names: no other takes it (does not take logit_bias)": lambda: route(
        ask(model="gpt-5.1", settings={"logit_bias": {"1": 2}}), fleet=FLEET[:3]
    ),
    "openai/gpt-5.1 was forced for this call": lambda: route(ask(forced_model="openai/gpt-5.1")),
    f"{SMALL}; {HAIKU} of this conversation may not take it": lambda: route(
        ask(tools=TOOL), fleet=(BLIND, *FLEET[1:]), sticky=HAIKU
    ),
    f"12,345 characters ≥ 10,000; leaves {MINI} of this conversation for it, and a warm cache worth $0.001": lambda: (
        route(ask(LARGE), sticky=MINI, affinity={MINI: 10**6})
    ),
    f"{SMALL}; stays with {HAIKU} in this conversation: a switch to {MINI} saves $0.00000075 and loses a warm cache "
    "worth $0.001": lambda: route(ask(), sticky=HAIKU, affinity={HAIKU: 10**6}),
    f"{SMALL}; stays with {MINI} in this conversation: a switch to {HAIKU} saves nothing and loses a warm cache "
    "worth -$0.002561": lambda: route(ask(), sticky=MINI, affinity={HAIKU: 10**7}),
    f"400,000 characters < 1,000,000 and 1 item < 30; leaves {HAIKU}: the switch saves $0.075 and loses a warm cache "
    "worth $0.00": lambda: route(ask("x" * 400_000), {"text_threshold": 10**6}, sticky=HAIKU),
    f"{SMALL}; without temperature, top_p, which {MINI} does not take": lambda: route(
        ask(settings={"temperature": 0, "top_p": 0.5}), fleet=FLEET[1:2]
    ),
}
"""Every kind of reason, with a call that has it."""
AGAINST = {
    "cannot take tools": lambda: route(ask(tools=TOOL), fleet=(BLIND, *FLEET[1:])),
    "the request refers to context stored at openai": lambda: route(ask(has_server_side_context=True)),
    "the request uses server tools of openai": lambda: route(ask(server_tools=(ServerTool("web_search", 3),))),
    "gives at most 4,000 output tokens, 5,000 asked for": lambda: route(
        ask(max_tokens=5_000), fleet=(replace(FLEET[0], max_output=4_000), *FLEET[1:])
    ),
    "about 3,086 tokens do not fit its window of 3,000": lambda: route(
        ask(LARGE), fleet=(replace(FLEET[0], context_window=3_000), *FLEET[1:])
    ),
    "differs from openai/gpt-5.1 by what the caller states himself": lambda: route(
        ask(settings={"reasoning_effort": "low"}), fleet=(FLEET[3], replace(FLEET[3], target=LOW))
    ),
}
"""Every kind of reason against a model."""
STANDARD = LaneOffer("standard", NanoUSD(1_000_000), ASSUMED["standard"])
FLEX = LaneOffer("flex", NanoUSD(500_000), ASSUMED["flex"])
LANES = {
    "flex lane: can wait 10 m, expected at 50 % of standard": lambda: choose_lane((STANDARD, FLEX), 600),
    "standard lane: nothing costs less": lambda: choose_lane((STANDARD, STANDARD), 600),
    "standard lane: 60.5 s leaves no time for flex and a way back, which take 90 s": lambda: choose_lane(
        (STANDARD, FLEX), 60.5
    ),
    "standard lane: flex takes 1 h for half of its answers": lambda: choose_lane(
        (STANDARD, FLEX._replace(delay=Delay(3_600, 7_200))), 86_400
    ),
}


def held(value):
    """What each field of a value holds that is told when read."""
    if isinstance(value, RoutingDecision):
        yield unread(value, "reason")
        if isinstance(value.candidates, Evaluated):
            yield from value.candidates.eligibility.reasons
    else:
        yield value.told
        yield from (unread(each, "rejected") for each in value.candidates)


CASES = {**DECISIONS, **AGAINST, **LANES}


@pytest.mark.parametrize("said", CASES)
def test_every_kind_of_reason_is_told_as_ever_and_only_when_it_is_read(said):
    first, again = CASES[said](), CASES[said]()
    assert any(type(one) is tuple for one in held(first))
    texts = {first.reason, *(each.rejected for each in first.candidates)}
    assert said in texts
    assert {text(one) for one in held(again)} <= texts | {""}


@pytest.mark.parametrize("said", CASES)
def test_what_a_reason_holds_is_small_and_never_changes(said):
    for told in held(CASES[said]()):
        holds_little(told)


def test_no_kind_of_reason_is_missing_above():
    found = [one for make in CASES.values() for told in held(make()) for one in templates(told)]
    assert set(found) == written_templates("routing")


def views(decision):
    """All ways to look at a decision, each of a copy that nobody has read."""
    return {
        "reason": lambda one: one.reason,
        "explain": lambda one: one.explain(),
        "line": lambda one: one.to_json(),
        "repr": repr,
        "hash": hash,
        "pickle": pickle.dumps,
        "equal": lambda one: (one == decision, decision == one, one != decision),
        "rich": lambda one: list(one.__rich_repr__()),
        "deep": lambda one: structs.astuple(copy.deepcopy(one)),
        "shallow": lambda one: copy.copy(one).reason,
        "changed": lambda one: one._replace(lane="flex").reason,
        "line again": lambda one: RoutingDecision.from_json(one.to_json()) == one,
    }


@pytest.mark.parametrize("said", DECISIONS)
def test_however_a_decision_is_looked_at_its_reason_is_the_text(said):
    told = DECISIONS[said]()
    plain = told._replace(reason=told.reason, candidates=tuple(told.candidates))
    assert unread(plain, "reason") == said
    for name, view in views(plain).items():
        fresh = DECISIONS[said]()
        fresh = fresh._replace(candidates=tuple(fresh.candidates))
        assert type(unread(fresh, "reason")) is tuple
        assert view(fresh) == view(plain), name
        assert fresh == plain == DECISIONS[said]()
        assert fresh._replace(reason="other") != fresh


ANSWER = CallResult(
    "said", UsageReport(items=(BilledItem(TokenUsage(uncached_input=9, output=3)),), complete=True, error=None)
)
BODY = {"model": "smart", "messages": [{"role": "user", "content": "Hello"}]}


def call(pipeline, **said):
    request = get_provider("openai").read_request(BODY, "chat.completions")
    request = request._replace(context=request.context._replace(**said))
    return pipeline.call(request, lambda _: ANSWER, providers=frozenset({"openai"})).decision


@pytest.mark.parametrize("said", [{}, {"patience_s": 600.0}])
def test_no_reason_is_formatted_in_a_call_whose_decision_nobody_reads(said):
    with CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "9"}])) as pipeline:
        decision = call(pipeline, **said)
        lanes = decision.lanes
        assert all(
            type(unread(*one)) is tuple for one in ((decision, "reason"), *((each, "rejected") for each in lanes[:1]))
        )
        (logged,) = pipeline.decisions()
        assert logged == decision
        assert logged.reason == decision.reason
        assert ("flex lane: can wait 10 m" in decision.reason) == bool(said)


def test_who_hears_of_a_call_but_not_of_its_reason_formats_none():
    events = []
    with CostPipeline(CostConfig(), observers=[events.append]) as pipeline:
        decision = call(pipeline)
    (routed,) = [event for event in events if isinstance(event, Routed)]
    assert type(unread(routed, "reason")) is type(unread(decision, "reason")) is tuple
    assert routed.reason == decision.reason == SMALL


@pytest.mark.parametrize("written", [None, 5, ["a", "b"], [], {}])
def test_what_another_wrote_for_a_reason_is_read_as_it_stands(written):
    line = json.loads(route(ask()).to_json()) | {"reason": written}
    read = RoutingDecision.from_json(json.dumps(line))
    assert read.reason == written
    assert read == RoutingDecision.from_json(read.to_json())
    assert pickle.loads(pickle.dumps(read)) == read  # noqa: S301 - made here


def test_a_shared_log_is_written_the_text(tmp_path):
    with CostPipeline(CostConfig(ledger={"url": f"sqlite:///{tmp_path}/costs.db"})) as pipeline:
        assert call(pipeline).reason == pipeline.decisions()[0].reason == SMALL


FIELDS = {
    "2 marks": lambda: CachePlan(reason=("{} marks".format, 2)),
    "no money for the writes of 2 marks": lambda: CachePlan(reason=("{} marks".format, 2)).without_marks(),
    SMALL: lambda: Routed("call-1", 1.0, "m", "smart", "small", "threshold", unread(route(ask()), "reason")),
}


@pytest.mark.parametrize("said", FIELDS)
def test_a_dataclass_tells_the_text_to_whoever_looks(said):
    make = FIELDS[said]
    read = make()
    assert read.reason == said
    for name, view in {
        "repr": repr,
        "dictionary": asdict,
        "copied": copy.deepcopy,
        "copied flatly": copy.copy,
        "pickled": lambda one: pickle.loads(pickle.dumps(one)),  # noqa: S301 - made here
        "changed": replace,
        "itself": lambda one: one,
    }.items():
        fresh = make()
        assert type(unread(fresh, "reason")) is tuple
        assert view(fresh) == view(read), name
    assert make() == read
    assert make() != replace(read, reason="other")
