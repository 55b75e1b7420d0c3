"""Who may take a request is found once for requests of a shape, and costs are written out only when looked at."""

import copy
import pickle
from itertools import product
from random import Random

import pytest

from llm_cost_middleware.errors import NoEligibleModelError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import CallContext, CallRequest, Message, ModelRef, Part, ServerTool, Tool
from llm_cost_middleware.routing.decision import EvaluatedCandidate, RoutingDecision
from llm_cost_middleware.routing.eligibility import Candidate, CandidateSet
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.router import RoutingContext, decide

ABLE = frozenset({"tools", "images", "documents", "schema"})
MODELS = (
    Candidate(ModelRef("openai", "gpt-5-mini"), 0, 250_000, 2_000_000, 400_000, 128_000, ABLE),
    Candidate(ModelRef("anthropic", "claude-haiku-4-5"), 0, 1_000_000, 5_000_000, 3_000, 64_000, ABLE),
    Candidate(ModelRef("openai", "gpt-4.1"), 1, 2_000_000, 8_000_000, None, 900, frozenset({"tools"})),
    Candidate(ModelRef("anthropic", "claude-opus-4-8"), 1, 5_000_000, 25_000_000, 200_000, None, ABLE, "no key"),
)
SMALL, LARGE = RoutingPolicy(), RoutingPolicy(text_threshold=3, floor=1)
TOOL = Tool("f", '{"name":"f"}')


def _requests():
    texts = {"short": "word", "long": "word " * 4_000}
    for (size, tools, cap, settings), provider in product(
        (
            ("short", (), None, {}),
            ("short", (TOOL,), None, {"tool_choice": "required"}),
            ("long", (), 1_000, {}),
            ("short", (), 100_000, {"temperature": 0.3}),
            ("short", (), 20, {"reasoning_effort": "none"}),
        ),
        ("openai", "anthropic"),
    ):
        model = {"openai": "gpt-5", "anthropic": "smart"}[provider]
        endpoint = {"openai": "chat.completions", "anthropic": "messages"}[provider]
        yield CallRequest(
            provider, model, (Message("user", (Part("text", texts[size]),)),), tools, endpoint, cap, settings=settings
        )
    yield CallRequest("openai", "smart", (), server_tools=(ServerTool("web_search"),))
    yield CallRequest("openai", "smart", (), has_server_side_context=True, choice_count=3)
    yield CallRequest("openai", "smart", (Message("user", (Part("image", ""),)),))


def _decided(candidates, policy, request, **context):
    """A decision as a value, or the reasons of a refusal."""
    try:
        return decide(
            policy, candidates, request, read_features(request), RoutingContext("c", 1.0, Random(1), **context)
        )
    except NoEligibleModelError as error:
        return str(error)


def test_what_was_found_before_is_what_would_be_found_now():
    kept, history = CandidateSet(MODELS), SiteHistory()
    history.observe("plain", MODELS[0].target, 777)
    affinity = {MODELS[1].target: 10**12}
    for _ in range(2):
        for request, policy in product(_requests(), (SMALL, LARGE)):
            for context in ({}, {"history": history}, {"affinity": affinity}, {"available": NanoUSD(600_000)}):
                assert _decided(kept, policy, request, **context) == _decided(MODELS, policy, request, **context)
    assert kept._found


def test_a_policy_or_a_set_of_models_of_its_own_is_asked_anew():
    request = next(_requests())
    kept = CandidateSet(MODELS)
    weak, strong = (_decided(kept, policy, request) for policy in (SMALL, LARGE))
    assert (weak.tier, strong.tier) == (0, 1)
    other = CandidateSet((MODELS[2],))
    assert _decided(other, SMALL, request).target == MODELS[2].target


def test_a_setting_changed_in_place_is_seen():
    request = next(_requests())._replace(model="smart", provider="anthropic", settings={"logit_bias": {"1": 2}})
    kept = CandidateSet(MODELS)
    first = _decided(kept, SMALL, request)
    request.settings["logit_bias"] = None
    assert first != _decided(kept, SMALL, request) == _decided(MODELS, SMALL, request)


def test_shapes_that_never_repeat_are_not_kept_for_ever():
    kept = CandidateSet(MODELS)
    for cap in range(1_200):
        _decided(kept, SMALL, CallRequest("openai", "smart", (), max_tokens=cap + 1))
    assert len(kept._found) <= 512


@pytest.fixture
def decision():
    request = CallRequest("openai", "smart", (Message("user", (Part("text", "word"),)),), context=CallContext())
    return _decided(CandidateSet(MODELS), SMALL, request, affinity={MODELS[0].target: 300})


def test_the_candidates_of_a_decision_are_as_good_as_a_tuple(decision):
    written = tuple(decision.candidates)
    assert decision.candidates == written
    assert written == decision.candidates
    assert hash(decision.candidates) == hash(written)
    assert repr(decision.candidates) == repr(written)
    assert decision.candidates[0] is written[0]
    assert decision.candidates[-2:] == written[-2:]
    assert (*decision.candidates, 1) == (*written, 1)
    assert copy.deepcopy(decision) == decision == pickle.loads(pickle.dumps(decision))  # noqa: S301 - our own bytes
    assert decision == RoutingDecision.from_json(decision.to_json())
    assert written[0] == EvaluatedCandidate(MODELS[0].target, 0, NanoUSD(1_023_950), "", NanoUSD(300))
    assert [each.rejected for each in written] == ["", "", "", "no key"]


def test_a_decision_keeps_its_figures_when_more_is_learned():
    history, request = SiteHistory(), next(_requests())
    history.observe("plain", MODELS[0].target, 10)
    kept = CandidateSet(MODELS)
    first = _decided(kept, SMALL, request, history=history)
    now = _decided(MODELS, SMALL, request, history=history)
    tuple(now.candidates)
    history.observe("plain", MODELS[0].target, 10_000)
    assert first.candidates == now.candidates
