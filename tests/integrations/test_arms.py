"""Arms through every door: what a tier states is sent, the caller's own words win, the ledger has what is billed."""

from __future__ import annotations

import asyncio

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer

GPT, SONNET, HAIKU = "openai/gpt-5.1", "anthropic/claude-sonnet-4-6", "anthropic/claude-haiku-4-5-20251001"
HI = [{"role": "user", "content": "Which of them?"}]
GPT_LOW = {"model": GPT, "reasoning_effort": "low", "verbosity": "low"}
SONNET_LOW = {"model": SONNET, "reasoning_effort": "low"}
HAIKU_THINKS = {"model": HAIKU, "thinking_budget": 2048}


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")


@pytest.fixture
def make(sim):
    made = []

    def pipeline(*tiers, **more):
        tables = [{"name": f"tier{number}", "models": models} for number, models in enumerate(tiers)]
        config = CostConfig(
            tiers=tables,
            routing={"policy": "threshold", **more.pop("routing", {})},
            providers={"openai": {"base_url": sim.openai_url}, "anthropic": {"base_url": sim.anthropic_url}},
            budgets=[{"scope": "global", "limit": "100"}],
            **more,
        )
        made.append(CostPipeline(config))
        return made[-1]

    yield pipeline
    for each in made:
        assert each.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd
        assert each.ledger.balance("global").pending_nanousd == 0
        each.close()


def by_chat(pipeline, sim, clients, **own):
    answer = wrap_openai(clients["openai"], pipeline).chat.completions.create(model="smart", messages=HI, **own)
    list(answer) if own.get("stream") else None


def by_responses(pipeline, sim, clients, **own):
    answer = wrap_openai(clients["openai"], pipeline).responses.create(model="smart", input="Which?", **own)
    list(answer) if own.get("stream") else None


def by_messages(pipeline, sim, clients, **own):
    own = {"max_tokens": 4000, **own}
    answer = wrap_anthropic(clients["anthropic"], pipeline).messages.create(model="smart", messages=HI, **own)
    list(answer) if own.get("stream") else None


def by_chat_openai(pipeline, sim, clients, *, stream=False, call=(), **own):
    openai = pytest.importorskip("langchain_openai")
    from llm_cost_middleware.integrations.langchain import guard

    model = openai.ChatOpenAI(model="gpt-5-mini", base_url=sim.openai_url, api_key="k", max_retries=0, **own)
    guarded = guard(model, pipeline)
    list(guarded.stream("Which?", **dict(call))) if stream else guarded.invoke("Which?", **dict(call))


def by_chat_anthropic(pipeline, sim, clients, *, stream=False, call=(), **own):
    anthropic = pytest.importorskip("langchain_anthropic")
    from llm_cost_middleware.integrations.langchain import guard

    model = anthropic.ChatAnthropic(
        model="claude-sonnet-4-5", base_url=sim.anthropic_url, api_key="k", max_retries=0, **{"max_tokens": 4000, **own}
    )
    guarded = guard(model, pipeline)
    list(guarded.stream("Which?", **dict(call))) if stream else guarded.invoke("Which?", **dict(call))


def by_chat_openai_at_responses(pipeline, sim, clients, **own):
    by_chat_openai(pipeline, sim, clients, use_responses_api=True, **own)


def litellm_router(pipeline, sim):
    litellm = pytest.importorskip("litellm")
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    urls = {"anthropic": sim.anthropic_url, "openai": sim.openai_url}
    entries = [
        {
            "model_name": name.partition("/")[2],
            "litellm_params": {"model": name, "api_base": urls[name.partition("/")[0]], "api_key": "k"},
        }
        for name in (GPT, SONNET, HAIKU)
    ]
    return CostAwareRouter(litellm.Router(model_list=entries, num_retries=0), pipeline=pipeline)


def by_litellm(pipeline, sim, clients, **own):
    answer = litellm_router(pipeline, sim).completion("smart", messages=HI, **own)
    list(answer) if own.get("stream") else None


def by_litellm_responses(pipeline, sim, clients, **own):
    async def ask():
        answer = await litellm_router(pipeline, sim).aresponses(model="smart", input="Which?", **own)
        if own.get("stream"):
            async for _ in answer:
                pass

    asyncio.run(ask())


def by_litellm_messages(pipeline, sim, clients, **own):
    async def ask():
        answer = await litellm_router(pipeline, sim).aanthropic_messages(
            model="smart", messages=HI, **{"max_tokens": 4000, **own}
        )
        if own.get("stream"):
            async for _ in answer:
                pass

    asyncio.run(ask())


litellm_only = pytest.mark.litellm
CHAT_LOW = {"reasoning_effort": "low", "verbosity": "low"}
RESPONSES_LOW = {"reasoning": {"effort": "low"}, "text": {"verbosity": "low"}}
THINKS = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
DOORS = [
    pytest.param(by_chat, GPT_LOW, CHAT_LOW, id="chat"),
    pytest.param(by_responses, GPT_LOW, RESPONSES_LOW, id="responses"),
    pytest.param(by_messages, SONNET_LOW, {"output_config": {"effort": "low"}}, id="messages"),
    pytest.param(by_messages, HAIKU_THINKS, THINKS, id="messages, thinking"),
    pytest.param(by_chat_openai, GPT_LOW, CHAT_LOW, id="ChatOpenAI"),
    pytest.param(by_chat_openai_at_responses, GPT_LOW, RESPONSES_LOW, id="ChatOpenAI at responses"),
    pytest.param(by_chat_openai, HAIKU_THINKS, THINKS, id="ChatOpenAI to a thinking Claude"),
    pytest.param(by_chat_openai, SONNET_LOW, {"output_config": {"effort": "low"}}, id="ChatOpenAI to Claude"),
    pytest.param(
        by_chat_openai_at_responses, SONNET_LOW, {"output_config": {"effort": "low"}}, id="responses to Claude"
    ),
    pytest.param(by_chat_anthropic, SONNET_LOW, {"output_config": {"effort": "low"}}, id="ChatAnthropic"),
    pytest.param(by_chat_anthropic, HAIKU_THINKS, THINKS, id="ChatAnthropic, thinking"),
    pytest.param(by_chat_anthropic, GPT_LOW, CHAT_LOW, id="ChatAnthropic to GPT"),
    pytest.param(by_litellm, GPT_LOW, CHAT_LOW, id="LiteLLM", marks=litellm_only),
    pytest.param(by_litellm, HAIKU_THINKS, THINKS, id="LiteLLM to a thinking Claude", marks=litellm_only),
    pytest.param(
        by_litellm, SONNET_LOW, {"output_config": {"effort": "low"}}, id="LiteLLM to Claude", marks=litellm_only
    ),
    pytest.param(by_litellm_responses, GPT_LOW, RESPONSES_LOW, id="LiteLLM, responses", marks=litellm_only),
    pytest.param(by_litellm_messages, HAIKU_THINKS, THINKS, id="LiteLLM, messages, thinking", marks=litellm_only),
    pytest.param(
        by_litellm_messages,
        SONNET_LOW,
        {"output_config": {"effort": "low"}},
        id="LiteLLM, messages",
        marks=litellm_only,
    ),
    pytest.param(by_litellm_responses, HAIKU_THINKS, THINKS, id="LiteLLM, responses to Claude", marks=litellm_only),
]


def holds(body, wanted):
    """Whether a body says what is wanted, whatever else stands beside it."""
    return all(
        holds(body.get(name) or {}, value) if isinstance(value, dict) else body.get(name) == value
        for name, value in wanted.items()
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("door", "arm", "wanted"), DOORS)
def test_an_arm_is_sent_as_it_is_stated(make, sim, clients, door, arm, wanted, stream):
    pipeline = make([arm])
    sim.responder = lambda _: Answer(text="yes")
    door(pipeline, sim, clients, **({"stream": True} if stream else {}))
    (sent,) = sim.requests
    assert holds(sent.body, wanted), sent.body
    [decision] = pipeline.decisions()
    assert decision.target.parameters == {name: value for name, value in arm.items() if name != "model"}


OWN = [
    pytest.param(by_chat, {"reasoning_effort": "high"}, {"reasoning_effort": "high"}, id="chat"),
    pytest.param(
        by_chat, {"extra_body": {"reasoning_effort": "high"}}, {"reasoning_effort": "high"}, id="chat, extra_body"
    ),
    pytest.param(by_responses, {"reasoning": {"effort": "high"}}, {"reasoning": {"effort": "high"}}, id="responses"),
    pytest.param(by_chat_openai, {"reasoning_effort": "high"}, {"reasoning_effort": "high"}, id="ChatOpenAI, model"),
    pytest.param(
        by_chat_openai, {"call": {"reasoning_effort": "high"}}, {"reasoning_effort": "high"}, id="ChatOpenAI, call"
    ),
    pytest.param(
        by_chat_openai, {"reasoning": {"effort": "high"}}, {"reasoning": {"effort": "high"}}, id="ChatOpenAI, reasoning"
    ),
    pytest.param(
        by_chat_openai,
        {"model_kwargs": {"reasoning_effort": "high"}},
        {"reasoning_effort": "high"},
        id="ChatOpenAI, model_kwargs",
    ),
    pytest.param(
        by_chat_openai,
        {"extra_body": {"reasoning_effort": "high"}},
        {"reasoning_effort": "high"},
        id="ChatOpenAI, extra_body",
    ),
    pytest.param(
        by_litellm, {"reasoning_effort": "high"}, {"reasoning_effort": "high"}, id="LiteLLM", marks=litellm_only
    ),
    pytest.param(
        by_litellm_responses,
        {"reasoning": {"effort": "high"}},
        {"reasoning": {"effort": "high"}},
        id="LiteLLM, responses",
        marks=litellm_only,
    ),
]


@pytest.mark.parametrize(("door", "own", "wanted"), OWN)
def test_the_callers_own_effort_wins_at_every_door(make, sim, clients, door, own, wanted):
    pipeline = make([{"model": GPT, "reasoning_effort": "low"}])
    door(pipeline, sim, clients, **own)
    (sent,) = sim.requests
    assert holds(sent.body, wanted), sent.body
    assert pipeline.decisions()[0].target.parameters == {}


OWN_CLAUDE = [
    pytest.param(
        by_messages, {"output_config": {"effort": "high"}}, {"output_config": {"effort": "high"}}, id="messages"
    ),
    pytest.param(
        by_messages, {"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}, id="messages, thinking"
    ),
    pytest.param(by_chat_anthropic, {"effort": "high"}, {"output_config": {"effort": "high"}}, id="ChatAnthropic"),
    pytest.param(
        by_chat_anthropic, {"call": {"effort": "high"}}, {"output_config": {"effort": "high"}}, id="ChatAnthropic, call"
    ),
    pytest.param(
        by_chat_anthropic,
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "disabled"}},
        id="ChatAnthropic, thinking",
    ),
    pytest.param(
        by_litellm,
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "disabled"}},
        id="LiteLLM, thinking",
        marks=litellm_only,
    ),
    pytest.param(
        by_litellm_messages,
        {"output_config": {"effort": "high"}},
        {"output_config": {"effort": "high"}},
        id="LiteLLM, messages",
        marks=litellm_only,
    ),
]


@pytest.mark.parametrize(("door", "own", "wanted"), OWN_CLAUDE)
def test_the_callers_own_thinking_wins_at_every_door(make, sim, clients, door, own, wanted):
    pipeline = make([{"model": SONNET, "reasoning_effort": "low"}])
    door(pipeline, sim, clients, **own)
    (sent,) = sim.requests
    assert holds(sent.body, wanted), sent.body
    assert pipeline.decisions()[0].target.parameters == {}


def test_arms_that_the_caller_makes_one_are_asked_once(make, sim, clients):
    pipeline = make(
        [{"model": GPT, "reasoning_effort": "low"}], [{"model": GPT, "reasoning_effort": "high"}],
        routing={"policy": "cascade"},
    )  # fmt: skip
    sim.responder = lambda _: Answer(text="cut", stop="length")
    by_chat(pipeline, sim, clients)
    assert [sent.body["reasoning_effort"] for sent in sim.requests] == ["low", "high"]
    assert [str(record.model) for record in pipeline.records()] == ["gpt-5.1"] * 2
    by_chat(pipeline, sim, clients, reasoning_effort="medium")
    assert [sent.body["reasoning_effort"] for sent in sim.requests[2:]] == ["medium"]
    assert "by what the caller states himself" in pipeline.decisions()[-1].candidates[1].rejected


def test_the_cost_of_an_arm_is_expected_from_its_own_answers(make, sim, clients):
    arms = [{"model": GPT, "reasoning_effort": level} for level in ("high", "low")]
    pipeline = make(arms)
    sim.responder = lambda asked: Answer(text="yes " * (400 if asked.body["reasoning_effort"] == "low" else 1))
    by_chat(pipeline, sim, clients)
    first = pipeline.decisions()[-1]
    assert first.target.parameters == {"reasoning_effort": "low"}  # nothing is known: less effort is assumed to be less
    high = first.candidates[0]
    assert high.expected_nanousd > 2 * first.expected_nanousd
    for _ in range(5):  # as a cascade, a shadow call or exploration would
        pipeline._flow.stages.route._history.observe(first.site, high.target, 20)
    by_chat(pipeline, sim, clients)
    assert pipeline.decisions()[-1].target == high.target
    assert [sent.body["reasoning_effort"] for sent in sim.requests] == ["low", "high"]


def test_a_retry_and_a_fallback_keep_their_arms(make, sim, clients):
    from llm_cost_middleware.simulator import Fault

    pipeline = make(
        [{"model": GPT, "reasoning_effort": "low"}, {"model": GPT, "reasoning_effort": "high"}],
        [{"model": "openai/gpt-5.5", "reasoning_effort": "low"}],
        retry={"max_attempts": 3, "base_s": 0.001},
    )  # fmt: skip
    sim.script(Fault.status(503), times=2, match=lambda exchange: exchange.body["model"] == "gpt-5.1")
    by_chat(pipeline, sim, clients)
    asked = [(sent.body["model"], sent.body["reasoning_effort"]) for sent in sim.requests]
    assert asked[0] == ("gpt-5.1", "low")
    assert ("gpt-5.1", "high") not in asked  # the model failed, whatever is asked of it
    assert asked[-1] == ("gpt-5.5", "low")
    assert ("gpt-5.1", "low") in asked[1:]  # once more, as it was


def test_where_money_is_short_a_cheaper_arm_is_a_step_down(make, sim, clients, tmp_path):
    pipeline = make([{"model": HAIKU, "thinking_budget": 4096}, HAIKU], output={"on_insufficient": ["downgrade"]})
    route = pipeline._flow.stages.route
    route._history.observe("x", pipeline.config.tiers[0].models[1], 900)
    route._history.observe("x", pipeline.config.tiers[0].models[0], 10)
    client = wrap_anthropic(clients["anthropic"], pipeline)
    client.messages.create(model="smart", messages=HI, max_tokens=6000)
    assert sim.requests[-1].body["max_tokens"] == 6000


def test_shadows_compare_arms_of_one_model(make, sim, clients, tmp_path):
    from llm_cost_middleware.routing.decision_log import DecisionLog

    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    low, high = ({"model": GPT, "reasoning_effort": level} for level in ("low", "high"))
    pipeline = make([low], [high], routing={"shadow": 1.0}, ledger={"url": url})
    sim.responder = lambda _: Answer(text="same")
    by_chat(pipeline, sim, clients)
    assert [sent.body["reasoning_effort"] for sent in sim.requests] == ["low", "high"]
    [logged] = DecisionLog(pipeline.ledger.journal).read()
    other, agreed = logged.shadow
    assert (str(other.target), agreed) == (f"{GPT}+reasoning_effort=high", 1.0)
    assert str(logged.settlement.target) == f"{GPT}+reasoning_effort=low"
    again = type(logged).from_json(logged.to_json())
    assert again == logged
    assert again.decision.target.parameters == {"reasoning_effort": "low"}


def test_a_report_tells_arms_apart(make, sim, clients, tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    low, high = ({"model": GPT, "reasoning_effort": level} for level in ("low", "high"))
    pipeline = make([low], [high], routing={"policy": "cascade"}, ledger={"url": url})
    sim.responder = lambda _: Answer(text="cut", stop="length")
    by_chat(pipeline, sim, clients)
    by_chat(pipeline, sim, clients, reasoning_effort="none")
    rows = {row.keys: (row.sums.calls, row.sums.cost_nanousd) for row in pipeline.report("arm").rows}
    paid = [line.cost_nanousd for line in sim.bill.lines]
    assert rows == {
        ("gpt-5.1+reasoning_effort=low",): (1, paid[0]),
        ("gpt-5.1+reasoning_effort=high",): (1, paid[1]),
        ("gpt-5.1",): (1, paid[2]),
    }
    assert [row.keys for row in pipeline.report("model").rows] == [("gpt-5.1",)]


@pytest.mark.litellm
def test_an_arm_that_a_host_would_leave_behind_takes_no_call(make, sim, clients):
    pipeline = make([{"model": GPT, "reasoning_effort": "low"}, HAIKU])
    by_litellm_messages(pipeline, sim, clients)
    assert [sent.body["model"] for sent in sim.requests] == ["claude-haiku-4-5-20251001"]
    assert "is told no reasoning_effort through messages" in pipeline.decisions()[-1].candidates[0].rejected


def test_an_arm_can_be_forced_by_its_whole_name(make, sim, clients):
    from llm_cost_middleware import cost_context

    pipeline = make([{"model": GPT, "reasoning_effort": "low"}], [{"model": GPT, "reasoning_effort": "high"}])
    for forced, effort in ((f"{GPT}+reasoning_effort=high", "high"), ("gpt-5.1", None), (GPT, None)):
        with cost_context(force_model=forced):
            by_chat(pipeline, sim, clients)
        assert sim.requests[-1].body.get("reasoning_effort") == effort
