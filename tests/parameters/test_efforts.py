"""An effort of a guarded model at every target, with and without a tool that is forced: no 400 that it has not at home.

ChatAnthropic makes thinking of an effort, and Anthropic takes no thinking where a tool is forced; OpenAI's chats take
some efforts without tools only.
"""

from __future__ import annotations

import warnings

import parameter_cases as cases
import pytest
from parameter_product import TARGETS, Outcomes, pipeline_to
from pydantic import BaseModel

from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.simulator import Simulator, auto

langchain_openai = pytest.importorskip("langchain_openai")
langchain_anthropic = pytest.importorskip("langchain_anthropic")
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "UserWarning")]
SHARE = 41
"""One in so many calls is made in the short form: prime to all that they are made of."""


class Weather(BaseModel):
    """The weather somewhere."""

    city: str


HOMES = {
    **{f"gpt-5.1 {effort}": ("gpt-5.1", {"reasoning_effort": effort}) for effort in ("none", "low", "high")},
    **{f"gpt-5.6 {effort}": ("gpt-5.6", {"reasoning_effort": effort}) for effort in ("none", "medium", "xhigh")},
    "gpt-5.1 by reasoning": ("gpt-5.1", {"reasoning": {"effort": "high", "summary": "auto"}}),
    "gpt-5.6 by reasoning": ("gpt-5.6", {"reasoning": {"effort": "max"}}),
    "gpt-5 at responses": ("gpt-5", {"reasoning_effort": "minimal", "use_responses_api": True}),
    "opus-4-5 high": ("claude-opus-4-5", {"effort": "high"}),
    "opus-4-6 max": ("claude-opus-4-6", {"effort": "max"}),
    "opus-4-8 xhigh": ("claude-opus-4-8", {"effort": "xhigh"}),
    "sonnet-4-6 by output_config": ("claude-sonnet-4-6", {"output_config": {"effort": "max"}}),
    "sonnet-4-6 adaptive": ("claude-sonnet-4-6", {"thinking": {"type": "adaptive"}, "max_tokens": 3_000}),
    "sonnet-4-6 quiet": ("claude-sonnet-4-6", {"thinking": {"type": "disabled"}}),
    "sonnet-4-5 thinking": ("claude-sonnet-4-5", {"thinking": cases.THINKING, "max_tokens": 3_000}),
}
ASKS = {
    "plain": lambda model: model,
    "tools": lambda model: model.bind_tools([Weather]),
    "any tool": lambda model: model.bind_tools([Weather], tool_choice="any"),
    "this tool": lambda model: model.bind_tools([Weather], tool_choice="Weather"),
    "schema by tool": lambda model: model.with_structured_output(Weather, method="function_calling"),
    "schema": lambda model: model.with_structured_output(Weather, method="json_schema"),
    "effort of the call": lambda model: model.bind_tools([Weather], tool_choice="any").bind(reasoning_effort="high"),
}


@pytest.fixture(scope="module")
def provider():
    with Simulator(responder=auto) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def made(home, provider):
    model, settings = HOMES[home]
    if model.startswith("gpt"):
        return langchain_openai.ChatOpenAI(
            model=model, base_url=provider.openai_url, api_key="k", max_retries=0, **settings
        )
    return langchain_anthropic.ChatAnthropic(
        model=model, base_url=provider.anthropic_url, api_key="k", max_retries=0, **settings
    )


def test_an_effort_meets_no_refusal_that_it_does_not_meet_at_home(provider, soak):
    pipelines = {target: pipeline_to(target, provider) for target in TARGETS}
    cells = [(home, ask, target) for home in HOMES for ask in ASKS for target in TARGETS]
    found = Outcomes()
    for home, ask, target in cells[:: 1 if soak else SHARE]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # LangChain warns where it drops a forced tool
            plain = made(home, provider)
            guarded = ASKS[ask](guard(plain, pipelines[target]))
            plain = ASKS[ask](plain)
        found.note(
            f"{home}, {ask}: {target[1]}",
            lambda guarded=guarded: guarded.invoke(cases.SAY),
            provider,
            plain=lambda plain=plain: plain.invoke(cases.SAY),
        )
    found.check("guard with an effort")


ODD = {
    "an empty message": ("gpt-5.1 high", lambda model: model.invoke("")),
    "instructions alone": ("gpt-5.1 high", lambda model: model.invoke([("system", "Be brief.")])),
    "one tool at a time": (
        "opus-4-5 high", lambda model: model.bind_tools([Weather], parallel_tool_calls=False).invoke(cases.SAY),
    ),
    "an effort of the model beside a schema of the call": (
        "opus-4-5 high", lambda model: model.with_structured_output(Weather, method="json_schema").invoke(cases.SAY),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_an_odd_conversation_meets_no_refusal_that_it_does_not_meet_at_home(what, provider):
    home, ask = ODD[what]
    found = Outcomes()
    for target in TARGETS:
        plain = made(home, provider)
        guarded = guard(plain, pipeline_to(target, provider))
        found.note(target[1], lambda guarded=guarded: ask(guarded), provider, plain=lambda plain=plain: ask(plain))
    found.check(what)


SENT = {
    # home, ask, target: what is sent of thinking, and of effort
    ("gpt-5.1 none", "plain", "claude-opus-4-8"): ("disabled", None),
    ("gpt-5.1 none", "any tool", "claude-opus-5"): ("disabled", None),
    ("gpt-5.1 none", "plain", "claude-haiku-4-5"): (None, None),
    ("gpt-5.1 high", "plain", "claude-opus-4-8"): ("adaptive", "high"),
    ("gpt-5.1 high", "tools", "claude-sonnet-5"): ("adaptive", "high"),
    ("gpt-5.1 high", "any tool", "claude-sonnet-5"): (None, "high"),
    ("gpt-5.1 by reasoning", "schema by tool", "claude-opus-5"): (None, "high"),
    ("gpt-5.1 by reasoning", "plain", "claude-opus-5"): ("adaptive", "high"),
    ("gpt-5.1 high", "plain", "claude-opus-4-5"): (None, "high"),
    ("gpt-5.1 low", "effort of the call", "claude-opus-4-7"): (None, "high"),
    ("opus-4-5 high", "any tool", "claude-opus-4-8"): (None, "high"),
    ("opus-4-5 high", "plain", "claude-opus-4-8"): ("adaptive", "high"),
    ("opus-4-8 xhigh", "tools", "claude-opus-4-6"): (None, "high"),
    ("opus-4-8 xhigh", "plain", "gpt-5.6-luna"): (None, "xhigh"),
    ("opus-4-6 max", "plain", "gpt-5.6-luna"): (None, "xhigh"),
    ("sonnet-4-6 by output_config", "tools", "gpt-5.4"): (None, None),
    ("opus-4-5 high", "plain", "gpt-4.1"): (None, None),
}


@pytest.mark.parametrize(("home", "ask", "target"), SENT)
def test_an_effort_keeps_its_meaning(home, ask, target, provider):
    owner = "openai" if target.startswith("gpt") else "anthropic"
    model = ASKS[ask](guard(made(home, provider), pipeline_to((owner, target), provider)))
    model.invoke(cases.SAY)
    body = provider.requests[-1].body
    effort = (body.get("output_config") or {}).get("effort") or body.get("reasoning_effort")
    effort = effort or (body.get("reasoning") or {}).get("effort")
    assert ((body.get("thinking") or {}).get("type"), effort) == SENT[home, ask, target]


def test_an_effort_that_a_target_does_not_take_is_said_to_be_left_out(provider):
    for home, target in (("gpt-5.1 high", ("anthropic", "claude-haiku-4-5")), ("opus-4-5 high", ("openai", "gpt-4.1"))):
        pipeline = pipeline_to(target, provider)
        guard(made(home, provider), pipeline).invoke(cases.SAY)
        (decision,) = pipeline.decisions()
        assert any("effort" in name for name in decision.left_out)
