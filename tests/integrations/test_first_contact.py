"""What somebody tries who has never seen the package: odd inputs, odd doors. No money may be lost or hidden."""

import copy
import decimal
import io
import json
import pickle
import time

import anthropic
import openai
import pytest

from llm_cost_middleware import (
    Budget,
    ConfigurationError,
    CostConfig,
    CostPipeline,
    CostRecord,
    CostTracker,
    LLMCostError,
    build_cached_messages,
    price_response,
    process,
    process_many,
)
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Fault, Simulator, fill

HI = [{"role": "user", "content": "hi there"}]
FAST = {"base_s": 0.01, "throttle_base_s": 0.01, "max_delay_s": 0.02}


@pytest.fixture
def sim():
    with Simulator(responder=fill) as simulator:
        yield simulator


def pipe(**config):
    return CostPipeline(CostConfig(retry=FAST, **config))


def claude(sim, pipeline):
    return wrap_anthropic(anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k"), pipeline)


def gpt(sim, pipeline):
    return wrap_openai(openai.OpenAI(base_url=sim.openai_url, api_key="k"), pipeline)


def booked(pipeline):
    return int(pipeline.ledger.balance("global", "none").settled_nanousd)


# --- money


def test_anthropic_batches_are_held_against_the_budget(sim):
    """Docstring of wrap_anthropic: messages.batches.create reserves its bounds. Sent and billed at a budget of 0."""
    client = claude(sim, pipe(budgets=[{"scope": "global", "limit": 0}], on_ungoverned="deny"))
    params = {"model": "claude-haiku-4-5", "max_tokens": 1000, "messages": HI}
    with pytest.raises(LLMCostError):
        client.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
    time.sleep(0.3)
    assert sim.bill.total_nanousd == 0


def test_openai_batches_are_held_against_the_budget(sim):
    client = gpt(sim, pipe(budgets=[{"scope": "global", "limit": 0}], on_ungoverned="deny"))
    body = {"model": "gpt-5-mini", "max_completion_tokens": 500, "messages": HI}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})
    file = client.files.create(file=("x.jsonl", io.BytesIO(line.encode() + b"\n")), purpose="batch")
    with pytest.raises(LLMCostError):
        client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


@pytest.mark.parametrize("cap", [0, True, 50.5])
def test_anthropic_cap_that_is_not_a_positive_int_is_not_replaced(sim, cap):
    """max_tokens=0 (a cache warm-up, answered with nothing) comes back with 8,192 billed tokens; 50.5 and True too."""
    try:
        answer = claude(sim, pipe()).messages.create(model="claude-haiku-4-5", max_tokens=cap, messages=HI)
    except anthropic.BadRequestError:
        return  # what the plain client gets for True and 50.5
    assert answer.usage.output_tokens == 0


def test_openai_cap_of_zero_is_not_replaced(sim):
    with pytest.raises(openai.BadRequestError):  # as with the plain client; wrapped: 16,384 billed tokens
        gpt(sim, pipe()).chat.completions.create(model="gpt-5-mini", max_completion_tokens=0, messages=HI)


def test_guarded_chat_anthropic_without_usage_is_not_free(sim):
    from langchain_anthropic import ChatAnthropic

    from llm_cost_middleware.integrations.langchain import guard

    pipeline = pipe()
    model = ChatAnthropic(model="claude-haiku-4-5", base_url=sim.anthropic_url, api_key="k", max_tokens=300)
    sim.script(Fault("no_usage"))
    said = {"metadata": {"llm_cost": {"force_model": "anthropic/claude-haiku-4-5"}}}
    guard(model, pipeline).invoke("hi", config=said)
    assert booked(pipeline) >= sim.bill.total_nanousd > 0  # booked 0, "exact"


def test_json_array_has_no_exact_price_of_zero():
    real = {"model": "claude-haiku-4-5", "type": "message", "usage": {"input_tokens": 5, "output_tokens": 1}}
    assert price_response("anthropic", [real]).cost_nanousd != 0  # "an error is not billed: error"
    assert price_response("openai", [1]).status == "unknown"


def test_array_as_an_answer_is_booked_at_the_reservation(sim):
    pipeline = pipe()
    sim.script(Fault.status(200, body=[1]))
    gpt(sim, pipeline).chat.completions.create(model="gpt-5-mini", max_completion_tokens=300, messages=HI)
    assert booked(pipeline) > 0  # {} and "<html>" are booked at the reservation, [1] at 0, "exact"


@pytest.mark.parametrize("broken", [{"messages": [{"role": "user", "content": "\ud800"}]}])
def test_request_that_cannot_be_encoded_spends_nothing(sim, broken):
    pipeline = pipe()
    with pytest.raises((UnicodeError, TypeError)):
        claude(sim, pipeline).messages.create(
            **({"model": "claude-haiku-4-5", "max_tokens": 4000, "messages": HI} | broken)
        )
    assert sim.request_count == 0
    assert booked(pipeline) == 0  # 20 million nano-dollars, "unconfirmed": fifty of them empty a 1-dollar budget


def test_process_refuses_an_asynchronous_client_and_books_nothing(sim):
    pipeline = pipe()
    with pytest.raises(ConfigurationError):  # AttributeError: 'coroutine' object has no attribute 'content'
        process(
            "x", pipeline, CostTracker("1"), client=anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="k")
        )
    assert booked(pipeline) == 0


@pytest.mark.parametrize("path", ["chat/completions", "absolute"])
def test_post_by_another_spelling_of_the_path_is_governed_or_reported(sim, path):
    client = gpt(sim, pipe(budgets=[{"scope": "global", "limit": 0}], on_ungoverned="deny"))
    url = sim.openai_url + "/chat/completions" if path == "absolute" else path
    body = {"model": "gpt-5-mini", "max_completion_tokens": 10, "messages": HI}
    with pytest.raises(LLMCostError):
        client.post(url, cast_to=openai.types.chat.ChatCompletion, body=body)


def test_tracker_total_does_not_depend_on_the_callers_decimal_context():
    with decimal.localcontext() as context:
        context.prec = 3
        tracker = CostTracker("1.00")
        for _ in range(3):
            tracker = tracker.add(CostRecord("m", 1, 1, "0.123456789"))
    assert tracker.total_cost == decimal.Decimal("0.370370367")  # 0.369: less than was spent


@pytest.mark.parametrize("timeout", [-5.0, 0.0, float("nan")])
def test_a_timeout_that_cannot_be_is_refused(timeout):
    with pytest.raises(ConfigurationError):  # -5: every call fails and is booked three times over, nothing is sent
        CostConfig(providers={"anthropic": {"timeout_s": timeout}})


# --- load


# --- configuration


@pytest.mark.parametrize("key", ["retry_on", "fallback_on"])
def test_failure_kinds_can_be_written_in_a_file(key):
    CostConfig.from_mapping({"retry": {key: ["rate_limited"]}})  # "must be NoneType" / "must be FailureKind"


@pytest.mark.parametrize(
    ("file", "env"),
    [
        ("[[budgets]]\nscope='global'\nlimit=1\n", {"LLM_COST_BUDGETS__LIMIT": "5"}),
        ("mode='observe'\n", {"LLM_COST_MODE__X": "5"}),
    ],
)
def test_environment_that_does_not_fit_the_file_is_a_configuration_error(tmp_path, file, env):
    (tmp_path / "c.toml").write_text(file)
    with pytest.raises(ConfigurationError):  # TypeError; `llm-cost report` shows a traceback
        CostConfig.from_toml(tmp_path / "c.toml", env=env)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])  # noqa: S301 - ours
def test_a_configuration_crosses_processes(how):
    assert how(CostConfig()) == CostConfig()  # TypeError: cannot pickle 'mappingproxy' object


@pytest.mark.parametrize("url", ["sqlite:///x.db?foo=1", "memory://a?b=1"])
def test_an_unknown_option_of_a_url_is_refused(tmp_path, monkeypatch, url):
    """Ledger.open: "ConfigurationError: An unknown scheme or option". It makes a file named "x.db?foo=1"."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError):
        CostPipeline(CostConfig(ledger={"url": url}))


@pytest.mark.parametrize("budgets", ["5", 5])
def test_budgets_that_are_no_list_are_a_configuration_error(budgets):
    with pytest.raises(ConfigurationError):
        CostConfig(budgets=budgets)


def test_warn_at_of_the_wrong_type_is_a_configuration_error():
    with pytest.raises(ConfigurationError):
        Budget("global", "1", warn_at="half")


# --- small


def test_on_error_is_checked(sim):
    client = openai.OpenAI(base_url=sim.openai_url, api_key="k")
    with pytest.raises((ConfigurationError, ValueError)):  # a misspelt "raise" collects
        process_many(["x"], CostConfig(), CostTracker("1"), client=client, on_error="rais")


def test_item_count_is_checked(sim):
    client = openai.OpenAI(base_url=sim.openai_url, api_key="k")
    with pytest.raises(ConfigurationError):  # ValueError: Cannot specify ',' with 's'.
        process("x", CostConfig(), CostTracker("1"), client=client, item_count="3")


def test_a_post_without_a_body_is_left_to_the_sdk(sim):
    with pytest.raises(anthropic.APIStatusError):  # KeyError: 'body'
        claude(sim, pipe()).post("/v1/messages", cast_to=anthropic.types.Message)


def test_cached_messages_of_odd_text():
    build_cached_messages("\ud800" * 10, "u", model="claude-haiku-4-5")  # UnicodeEncodeError, only with a model


def test_a_response_without_a_model_is_a_clear_error():
    notes = price_response("openai", {"usage": {"prompt_tokens": 5, "completion_tokens": 1}}).notes
    assert 'prices."openai/(the' not in " ".join(notes)  # advises [prices."openai/(the response names no model)"]


@pytest.mark.parametrize(("call_id", "name"), [(None, "feedback"), ("", "feedback"), (1, "x"), ("a", None), ("a", 3)])
@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/l.db"])
def test_feedback_that_nothing_can_be_made_of_is_refused(tmp_path, url, call_id, name):
    """A name that is no text was kept, and `llm-cost decisions` could not show that log ever again."""
    with (
        pipe(ledger={"url": url.format(tmp_path)}) as pipeline,
        pytest.raises(ConfigurationError, match=r"text|governed call"),
    ):
        pipeline.feedback(call_id, 0.5, name=name)


def test_names_of_outcomes_and_sites_are_shown_as_they_are(sim, tmp_path):
    from typer.testing import CliRunner

    from llm_cost_middleware.cli.app import app

    url = f"sqlite:///{tmp_path}/l.db"
    with pipe(ledger={"url": url}) as pipeline:
        said = {"llm_cost": {"site": "[bold]s"}}
        claude(sim, pipeline).messages.create(model="claude-haiku-4-5", max_tokens=9, messages=HI, extra=said)
        (decision,) = pipeline.decisions()
        pipeline.feedback(decision.call_id, 0.5, name="[/x]")
    for more in ([], [decision.call_id]):
        shown = CliRunner().invoke(app, ["decisions", *more, "--ledger", url], env={"COLUMNS": "200"}).output
        assert "[/x]" in shown
        assert "[bold]s" in shown


@pytest.mark.parametrize(("policy", "warnings"), [("allow", 0), ("warn", 1)])
def test_what_is_not_governed_is_warned_of_once_where_that_was_asked_for(caplog, policy, warnings):
    pipe(on_ungoverned=policy).ungoverned("something", "do something else")
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == warnings


def test_without_tiers_only_the_routed_name_and_process_choose_a_model(sim, monkeypatch):
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.config.sections import DEFAULT_TIERS
    from llm_cost_middleware.integrations.langchain import guard

    built_in = {arm.model for tier in DEFAULT_TIERS for arm in tier.models}
    with pipe(budgets=[{"scope": "global", "limit": "5"}]) as pipeline:
        client = openai.OpenAI(base_url=sim.openai_url, api_key="k")
        named = gpt(sim, pipeline).chat.completions.create(model="gpt-4.1", messages=HI, max_completion_tokens=50)
        chain = guard(ChatOpenAI(model="gpt-4.1", base_url=sim.openai_url, api_key="k"), pipeline).invoke("hi")
        smart = gpt(sim, pipeline).chat.completions.create(model="smart", messages=HI, max_completion_tokens=50)
        processed, _ = process("hi", pipeline, CostTracker(None), client=client)
        used = [named.model, chain.response_metadata["model_name"], smart.model, processed.record.model]
        assert [name.startswith("gpt-4.1") for name in used] == [True, True, False, False]
        assert {record.model for record in pipeline.records()[2:]} <= built_in
        routed = guard(ChatOpenAI(model="smart", base_url=sim.openai_url, api_key="k"), pipeline)
        with pytest.raises(LLMCostError, match=r"no model: name one, or list \[\[tiers\]\]"):
            routed.invoke("hi")
