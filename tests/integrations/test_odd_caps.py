"""An output cap that is no count, in every host: sent as the plain host sends it, held at the most the model gives.

The provider says what is wrong with it, in its own words, for nothing. A server that takes it all the same spends what
was set aside.
"""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest
from odd_counts import ASK, HAIKU, MINI, Asker

from llm_cost_middleware import BudgetExceededError
from llm_cost_middleware.integrations.langchain import guard

pytestmark = [pytest.mark.litellm, pytest.mark.filterwarnings("ignore")]
CAPS = {"text": "12", "boolean": True, "with a point": 12.0, "fraction": 12.5, "negative": -5, "list": [12]}


def claude(client, cap):
    return client.messages.create(model=HAIKU, max_tokens=cap, messages=ASK)


def chat(client, cap):
    return client.chat.completions.create(model=MINI, max_completion_tokens=cap, messages=ASK)


def responses(client, cap):
    return client.responses.create(model=MINI, max_output_tokens=cap, input="Count.")


def plain_claude(asker):
    return anthropic.Anthropic(base_url=asker.sim.anthropic_url, api_key="k", max_retries=0)


def plain_gpt(asker):
    return openai.OpenAI(base_url=asker.sim.openai_url, api_key="k", max_retries=0)


def plain_router(asker):
    import litellm

    return litellm.Router(asker.router().model_list, num_retries=0)


def messages_of(router, cap):
    return asyncio.run(router.anthropic_messages(model=HAIKU, messages=ASK, max_tokens=cap))


HOSTS = {
    "messages": (plain_claude, lambda asker: asker.wrapped("anthropic"), claude),
    "chat": (plain_gpt, lambda asker: asker.wrapped("openai"), chat),
    "responses": (plain_gpt, lambda asker: asker.wrapped("openai"), responses),
    "guard claude": (
        lambda asker: asker.claude(), lambda asker: guard(asker.claude(), asker.pipeline, pinned=True),
        lambda model, cap: model.invoke("hi", max_tokens=cap),
    ),
    "guard gpt": (
        lambda asker: asker.gpt(), lambda asker: guard(asker.gpt(), asker.pipeline, pinned=True),
        lambda model, cap: model.invoke("hi", max_completion_tokens=cap),
    ),
    "guard gpt routed": (
        lambda asker: asker.gpt(), lambda asker: guard(asker.gpt(), asker.pipeline),
        lambda model, cap: model.invoke("hi", max_completion_tokens=cap),
    ),
    "router gpt": (
        plain_router, lambda asker: asker.router(), lambda router, cap: router.completion(MINI, ASK, max_tokens=cap),
    ),
    "router claude": (
        plain_router, lambda asker: asker.router(), lambda router, cap: router.completion(HAIKU, ASK, max_tokens=cap),
    ),
    "router messages": (plain_router, lambda asker: asker.router(), messages_of),
}  # fmt: skip


@pytest.fixture
def make_asker(sim, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    made = []

    def make(limit="5"):
        made.append(Asker(sim, limit))
        return made[-1]

    yield make
    for asker in made:
        asker.pipeline.close()


def outcome(sim, call, thing, cap):
    """What was sent of the cap, and the error that came."""
    before = len(sim.requests)
    try:
        call(thing, cap)
    except Exception as error:  # noqa: BLE001 - of three SDKs and two hosts
        error_kind = "local" if isinstance(error, TypeError) else getattr(error, "status_code", type(error).__name__)
    else:
        error_kind = None
    bodies = [each.body for each in sim.requests[before:] if "count_tokens" not in each.path]
    return [{name: value for name, value in body.items() if "max" in name} for body in bodies], error_kind


@pytest.mark.parametrize("host", HOSTS)
def test_an_odd_cap_is_sent_as_the_plain_host_sends_it_and_costs_nothing_where_it_is_refused(host, make_asker, sim):
    plain, governed, call = HOSTS[host]
    asker = make_asker()
    plain, governed = plain(asker), governed(asker)
    for what, cap in CAPS.items():
        alone, ours = outcome(sim, call, plain, cap), outcome(sim, call, governed, cap)
        values = [[*sent.values()] for sent in alone[0]], [[*sent.values()] for sent in ours[0]]
        assert (values[0], alone[1]) == (values[1], ours[1]), what
    balance = asker.pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd == sum(record.cost_nanousd for record in asker.pipeline.records())
    assert {record.status for record in asker.pipeline.records()} <= {"exact"}, "LiteLLM makes a cap of some"


@pytest.mark.parametrize("host", HOSTS)
def test_an_odd_cap_passes_no_budget(host, make_asker, sim):
    """The most that the model gives is held, and no cap of ours takes the place of the caller's."""
    asker = make_asker("0.01")
    _, governed, call = HOSTS[host]
    with pytest.raises(BudgetExceededError):
        call(governed(asker), -5)
    assert [each for each in sim.requests if "count_tokens" not in each.path] == []


@pytest.mark.parametrize("provider", ["claude", "gpt"])
def test_an_odd_cap_of_a_model_itself_passes_no_budget(provider, make_asker, sim):
    asker = make_asker("0.01")
    model = getattr(asker, provider)()
    model.max_tokens = -5
    with pytest.raises(BudgetExceededError):
        guard(model, asker.pipeline, pinned=True).invoke("hi")
    assert [each for each in sim.requests if "count_tokens" not in each.path] == []


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("provider", ["claude", "gpt"])
def test_an_odd_cap_of_a_model_itself_is_sent_as_the_plain_model_sends_it(provider, pinned, make_asker, sim):
    asker = make_asker("1000")
    model = getattr(asker, provider)()
    model.max_tokens = -5
    governed = guard(model, asker.pipeline, pinned=pinned)
    alone, ours = (outcome(sim, lambda thing, _: thing.invoke("hi"), each, None) for each in (model, governed))
    assert alone == ours
    assert alone[1] == 400
    assert asker.pipeline.ledger.balance("global").settled_nanousd == 0
