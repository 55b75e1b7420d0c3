"""Outcomes that nobody has to report: seen by real clients' calls, kept in the log, shown, and learned from."""

from __future__ import annotations

import gc
import json
import warnings

import pytest
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from llm_cost_middleware import CostConfig, CostPipeline, CostTracker, process
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.context import cost_context
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, Fault, ToolCall
from llm_cost_middleware.testing import FakeClock

pytestmark = pytest.mark.litellm

QUESTION = "Where should I go in May, if I like the sea?"
HI = [{"role": "user", "content": QUESTION}]
ARGUMENTS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLAUDE_TOOLS = [{"name": "book", "description": "Book it.", "input_schema": ARGUMENTS}]
CHAT_TOOLS = [{"type": "function", "function": {"name": "book", "parameters": ARGUMENTS}}]
LEARNING = {"explore": 1e-9}
"""As good as never explored, but decisions carry what can be learned from."""


class City(BaseModel):
    """A city."""

    name: str
    country: str


@pytest.fixture
def make_pipeline(sim, tmp_path, monkeypatch):
    """Make a pipeline over a ledger on disk; ``seen(pipeline)`` is what the log says of each call, oldest first."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    made = []

    def make(**sections):
        sections.setdefault("routing", LEARNING)
        config = CostConfig(
            ledger={"url": f"sqlite:///{tmp_path / 'ledger.db'}"},
            providers={"anthropic": {"base_url": sim.anthropic_url}, "openai": {"base_url": sim.openai_url}},
            retry={"base_s": 0.01, "throttle_base_s": 0.01},
            **sections,
        )
        made.append(CostPipeline(config))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def llm_cost(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.chdir(tmp_path)

    def run(*words, code=0):
        result = CliRunner().invoke(app, [*words, "--ledger", f"sqlite:///{tmp_path / 'ledger.db'}"])
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    return run


@pytest.fixture
def seen(llm_cost):
    def read():
        lines = map(json.loads, llm_cost("decisions", "--jsonl").splitlines())
        return [[name for name, _, _ in line["outcomes"]] for line in lines]

    return read


@pytest.fixture
def wrapped(clients):
    wrap = {"anthropic": wrap_anthropic, "openai": wrap_openai}
    return lambda pipeline: {name: wrap[name](client, pipeline) for name, client in clients.items()}


def ask_all(apis, *, tools=False, max_tokens=200, **more):
    """One question through each endpoint."""
    apis["anthropic"].messages.create(
        model="smart", max_tokens=max_tokens, messages=HI, **({"tools": CLAUDE_TOOLS} if tools else {}), **more
    )
    apis["openai"].chat.completions.create(
        model="smart", max_completion_tokens=max_tokens, messages=HI, **({"tools": CHAT_TOOLS} if tools else {}), **more
    )
    flat = [{"type": "function", "name": "book", "parameters": ARGUMENTS, "strict": False}]
    apis["openai"].responses.create(
        model="smart", max_output_tokens=max_tokens, input=QUESTION, **({"tools": flat} if tools else {}), **more
    )


# --- truncated


def test_an_answer_that_was_cut_off_is_noticed_without_learning(make_pipeline, wrapped, sim, seen):
    sim.responder = lambda _: Answer(text="All work and no play makes a dull answer. " * 50)
    ask_all(wrapped(make_pipeline(routing={})), max_tokens=20)
    assert seen() == [["truncated"]] * 3


def test_a_stream_that_was_cut_off_is_noticed(make_pipeline, wrapped, sim, seen):
    sim.responder = lambda _: Answer(text="All work and no play makes a dull answer. " * 50)
    apis = wrapped(make_pipeline())
    for _ in apis["openai"].chat.completions.create(model="smart", messages=HI, max_completion_tokens=20, stream=True):
        pass
    with apis["anthropic"].messages.stream(model="smart", max_tokens=20, messages=HI) as stream:
        stream.until_done()
    assert seen() == [["truncated"]] * 2


def test_a_whole_answer_shows_nothing(make_pipeline, wrapped, seen):
    ask_all(wrapped(make_pipeline()))
    assert seen() == [[]] * 3


def test_what_counts_is_the_last_answer(make_pipeline, clients, sim, seen):
    sim.responder = lambda request: Answer(text="word " * 400 if "haiku" in request.model else "42", stop=None)
    process("?", make_pipeline(output={"default_max_tokens": 50}), CostTracker(None), client=clients["anthropic"],
            accept=lambda text: text.isdigit())  # fmt: skip
    assert seen() == [["escalated"]]


# --- tool calls that do not fit


def test_a_tool_call_that_does_not_fit_its_schema_is_noticed(make_pipeline, wrapped, sim, seen):
    sim.responder = lambda _: Answer(tool_calls=(ToolCall("book", {"town": "Rome"}),))
    ask_all(wrapped(make_pipeline()), tools=True)
    assert seen() == [["schema_violated"]] * 3


def test_a_tool_call_that_fits_gives_no_signal_and_without_learning_none_is_read(make_pipeline, wrapped, sim, seen):
    sim.responder = lambda _: Answer(tool_calls=(ToolCall("book", {"city": "Rome"}),))
    ask_all(wrapped(make_pipeline()), tools=True)
    sim.responder = lambda _: Answer(tool_calls=(ToolCall("book", {"town": "Rome"}),))
    ask_all(wrapped(make_pipeline(routing={})), tools=True)
    assert seen() == [[]] * 6


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_langchain_and_litellm_report_it_too(make_pipeline, sim, seen, llm_cost):
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    pipeline = make_pipeline()
    sim.responder = lambda _: Answer(tool_calls=(ToolCall("book", {"town": "Rome"}),))
    for model in (
        ChatAnthropic(model="claude-haiku-4-5-20251001", api_key="k", base_url=sim.anthropic_url),
        ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=sim.openai_url),
    ):
        guard(model, pipeline).bind_tools(CHAT_TOOLS).invoke(QUESTION)
    CostAwareRouter(pipeline=pipeline).completion("smart", HI, tools=CHAT_TOOLS)
    assert seen() == [["schema_violated"]] * 3
    assert "schema_violated" in llm_cost("decisions")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


# --- parsing


def test_a_parse_that_fails_inside_the_sdk_is_noticed(make_pipeline, wrapped, sim, seen):
    sim.responder = lambda _: Answer(text='{"name": "Rome"}')
    apis = wrapped(make_pipeline(routing={}))
    with pytest.raises(ValidationError):
        apis["openai"].chat.completions.parse(model="smart", messages=HI, response_format=City)
    with pytest.raises(ValidationError):
        apis["anthropic"].messages.parse(model="smart", max_tokens=99, messages=HI, output_format=City)
    assert seen() == [["parse_failed"]] * 2


def test_an_answer_cut_off_in_the_middle_of_its_json_is_both(make_pipeline, wrapped, sim, seen):
    sim.responder = lambda _: Answer(text=json.dumps({"name": "R" * 500, "country": "Italy"}))
    with pytest.raises(Exception, match="length"):
        wrapped(make_pipeline())["openai"].chat.completions.parse(
            model="smart", messages=HI, response_format=City, max_completion_tokens=20
        )
    assert seen() == [["truncated", "parse_failed"]]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("home", ["anthropic", "openai"])
def test_structured_output_of_langchain_that_does_not_parse_is_noticed(make_pipeline, sim, seen, method, home):
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    def weak(request):
        said = {"name": "Rome"}
        return Answer(tool_calls=(ToolCall("City", said),)) if request.tools else Answer(text=json.dumps(said))

    sim.responder = weak
    model = (
        ChatAnthropic(model="claude-haiku-4-5-20251001", api_key="k", base_url=sim.anthropic_url)
        if home == "anthropic"
        else ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=sim.openai_url)
    )
    with pytest.raises(ValueError, match="country"):
        guard(model, make_pipeline()).with_structured_output(City, method=method).invoke(QUESTION)
    assert seen() in ([["parse_failed"]], [["schema_violated"]])


def test_a_parse_of_the_applications_own_that_fails_is_noticed(make_pipeline, clients, sim, seen):
    sim.responder = lambda _: Answer(text="no json")
    with pytest.raises(ValueError, match="Expecting"):
        process("json please", make_pipeline(routing={}), CostTracker(None), client=clients["anthropic"],
                parse_result=lambda response: json.loads(response.content[0].text))  # fmt: skip
    assert seen() == [["parse_failed"]]


# --- asked again


def chat(pipeline, clients, text=QUESTION, **context):
    with cost_context(**context):
        wrap_openai(clients["openai"], pipeline).chat.completions.create(
            model="smart", messages=[{"role": "user", "content": text}]
        )


def test_a_repeated_question_marks_the_first_answer_as_bad(make_pipeline, clients, seen):
    pipeline = make_pipeline()
    chat(pipeline, clients, conversation="c")
    chat(pipeline, clients, conversation="c")
    chat(pipeline, clients, "Thank you, that was all I wanted.", conversation="c")
    assert seen() == [["user_retry"], [], []]


def test_two_people_may_ask_the_same(make_pipeline, clients, seen):
    pipeline = make_pipeline()
    for asker in ({"user": "1"}, {"user": "2"}, {}, {}):
        chat(pipeline, clients, **asker)
    chat(pipeline, clients, user="2")
    assert seen() == [[], ["user_retry"], [], [], []]


def test_a_question_is_new_after_a_while(sim, clients, monkeypatch):
    clock = FakeClock()
    pipeline = CostPipeline(CostConfig(routing=LEARNING), clock=clock)
    chat(pipeline, clients, conversation="c")
    clock.advance(599)
    chat(pipeline, clients, conversation="c")
    clock.advance(601)
    chat(pipeline, clients, conversation="c")
    logged = list(pipeline._stages.decisions._log.read())  # a memory ledger has no journal
    assert [[outcome.name for outcome in entry.outcomes] for entry in logged] == [["user_retry"], [], []]


def test_a_failed_call_that_is_made_again_is_no_dissatisfied_user(make_pipeline, clients, sim, seen):
    pipeline = make_pipeline()
    sim.script(Fault.status(500), times=3)
    with pytest.raises(Exception, match="500"):
        chat(pipeline, clients, conversation="c")
    chat(pipeline, clients, conversation="c")
    sim.script(Fault.status(429, retry_after=0), times=1)
    chat(pipeline, clients, "And where in June, then?", conversation="c")
    assert [names for names in seen() if names] == []


def test_an_agent_at_work_asks_nothing_again(make_pipeline, clients, sim, seen):
    pipeline = make_pipeline()
    api = wrap_openai(clients["openai"], pipeline)
    messages = list(HI)
    with cost_context(conversation="c"):
        for step in range(3):
            api.chat.completions.create(model="smart", messages=messages, tools=CHAT_TOOLS)
            call = {"id": f"t{step}", "type": "function", "function": {"name": "book", "arguments": '{"city": "Rome"}'}}
            messages += [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": f"t{step}", "content": "done"},
            ]
    assert seen() == [[], [], []]


# --- shown, and learned from


def test_the_command_shows_them_and_explains_a_call(make_pipeline, wrapped, sim, llm_cost):
    sim.responder = lambda _: Answer(text="All work and no play makes a dull answer. " * 50)
    pipeline = make_pipeline()
    ask_all(wrapped(pipeline), max_tokens=20)
    assert llm_cost("decisions").count("truncated") == 3
    told = llm_cost("decisions", pipeline.decisions()[0].call_id)
    assert "truncated: 0" in told
    assert "cut off" in told


def test_tune_learns_from_observed_failures_without_feedback(make_pipeline, wrapped, sim, llm_cost, tmp_path):
    """Two kinds of prompts: the small model breaks its tool's schema on one of them, the large one never does."""
    kinds = (
        "Book a plain trip to the nearest city, please.",
        "Prove the lemma on compact operators, then integrate the residue.",
    )

    def responder(request):
        small = "mini" in request.model
        bad = small and "lemma" in request.last_user_text and request.index % 10
        return Answer(tool_calls=(ToolCall("book", {"town": "x"} if bad else {"city": "Rome"}),))

    sim.responder = responder
    tiers = [{"name": "small", "models": ["openai/gpt-5-mini"]}, {"name": "large", "models": ["openai/gpt-5.1"]}]
    pipeline = make_pipeline(routing={"explore": 1.0}, tiers=tiers)
    api = wrapped(pipeline)["openai"]
    for number in range(400):
        text = f"{kinds[number % 2]} Number {number}."
        api.chat.completions.create(model="smart", messages=[{"role": "user", "content": text}], tools=CHAT_TOOLS)
    pipeline.close()
    policy = tmp_path / "policy.json"
    (tmp_path / "llm-cost.toml").write_text("")
    names = ("--weak", "openai/gpt-5-mini", "--strong", "openai/gpt-5.1")
    told = llm_cost("tune", *names, "--quality", "0.9", "--measure", "failures", "--output", str(policy))
    assert "no visible failure" in told
    found = json.loads(policy.read_text())
    assert found["fitted"]["saving"][0] > 0.2
