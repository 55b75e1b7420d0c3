"""Every parameter at every target through every host: answered, by another model, or refused before it is sent.

Never a 400 of the provider that the plain call would not have met. The strict simulator stands for the providers; its
rules are data with sources (``simulator/rules``), checked against recorded refusals, and share nothing with the table
of capabilities that is tested here.
"""

from __future__ import annotations

import inspect
import warnings

import anthropic
import httpx
import openai
import parameter_cases as cases
import pytest
from parameter_product import TARGETS, Outcomes, pipeline_to, product

from llm_cost_middleware.capabilities import find_capabilities, read_parameters
from llm_cost_middleware.simulator import Simulator

# the SDK warns of models that will be retired
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "UserWarning")]


@pytest.fixture(scope="module")
def provider():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")


# --- every parameter is known -----------------------------------------------------------------------------------------


def parameters_of(method):
    return set(inspect.signature(method).parameters) - cases.SDK_OWN


def test_every_parameter_of_the_sdks_is_classified_and_tried():
    from anthropic.resources.beta.messages import Messages as BetaMessages
    from openai.resources.chat.completions import Completions
    from openai.resources.responses import Responses

    for endpoint, methods, known in (
        ("chat.completions", [Completions.create], cases.CHAT),
        ("responses", [Responses.create], cases.RESPONSES),
        ("messages", [anthropic.resources.messages.Messages.create, BetaMessages.create], cases.MESSAGES),
    ):
        declared = set().union(*map(parameters_of, methods))
        assert declared <= set(known), (
            f"give {declared - set(known)} values, and a fate in capabilities/parameters.toml"
        )
        assert declared <= set(read_parameters()[endpoint]), declared - set(read_parameters()[endpoint])
        untried = {name for name, values in known.items() if not values}
        assert untried == cases.WITHOUT_VALUE[endpoint]


def test_every_declared_field_of_langchains_models_is_classified():
    langchain_openai = pytest.importorskip("langchain_openai")
    langchain_anthropic = pytest.importorskip("langchain_anthropic")
    for kind, known in (
        (langchain_openai.ChatOpenAI, cases.CHAT_OPENAI), (langchain_anthropic.ChatAnthropic, cases.CHAT_ANTHROPIC),
    ):  # fmt: skip
        declared = set(kind.model_fields) - cases.LANGCHAIN_OWN
        assert declared <= set(known), f"classify {declared - set(known)}"


def test_every_target_has_capabilities():
    assert all(find_capabilities(*target) is not None for target in TARGETS)


# --- the product ------------------------------------------------------------------------------------------------------


@pytest.fixture
def soak(request):
    return request.config.getoption("--soak")


@pytest.mark.parametrize("endpoint", ["chat.completions", "responses"])
def test_wrap_openai_sends_every_target_only_what_it_takes(endpoint, provider, soak):
    from llm_cost_middleware.integrations.openai import wrap_openai

    names = cases.CHAT if endpoint == "chat.completions" else cases.RESPONSES
    targets = [target for target in TARGETS if target[0] == "openai"]
    transport = httpx.Client(timeout=60)
    clients = {
        target: wrap_openai(
            openai.OpenAI(base_url=provider.openai_url, api_key="k", http_client=transport),
            pipeline_to(target, provider),
        )
        for target in targets
    }
    found = Outcomes()
    for _, value, target in product(names, targets, soak):
        client = clients[target]
        if endpoint == "chat.completions":
            asked = {"messages": [{"role": "user", "content": cases.SAY}], **value}
            call = client.chat.completions.create
        else:
            asked, call = {"input": cases.SAY, **value}, client.responses.create
        found.note(f"{target[1]} {value}", lambda call=call, asked=asked: call(model="smart", **asked), provider)
    found.check(f"wrap_openai, {endpoint}")


def test_wrap_anthropic_sends_every_target_only_what_it_takes(provider, soak):
    from llm_cost_middleware.integrations.anthropic import wrap_anthropic

    targets = [target for target in TARGETS if target[0] == "anthropic"]
    clients = {
        target: wrap_anthropic(
            anthropic.Anthropic(base_url=provider.anthropic_url, api_key="k"), pipeline_to(target, provider)
        )
        for target in targets
    }
    declared = parameters_of(anthropic.resources.messages.Messages.create)
    found = Outcomes()
    for _, value, target in product(cases.MESSAGES, targets, soak):
        asked = {"messages": [{"role": "user", "content": cases.SAY}], "max_tokens": 500, **value}
        extra = {name: asked.pop(name) for name in list(asked) if name not in declared}
        call = clients[target].messages.create
        found.note(
            f"{target[1]} {value}",
            lambda call=call, asked=asked, extra=extra: call(model="smart", extra_body=extra, **asked),
            provider,
        )
    found.check("wrap_anthropic")


def langchain_models(provider):
    langchain_openai = pytest.importorskip("langchain_openai")
    langchain_anthropic = pytest.importorskip("langchain_anthropic")

    def gpt(model, **settings):
        return langchain_openai.ChatOpenAI(
            model=model, base_url=provider.openai_url, api_key="k", max_retries=0, **settings
        )

    def claude(**settings):
        return langchain_anthropic.ChatAnthropic(
            model="claude-sonnet-4-5", base_url=provider.anthropic_url, api_key="k", max_retries=0, **settings
        )

    return (
        (lambda **settings: gpt("gpt-4.1", **settings), cases.CHAT_OPENAI),
        (lambda **settings: gpt("gpt-5", **settings), cases.REASONING_OPENAI),
        (claude, cases.CHAT_ANTHROPIC),
    )


@pytest.mark.parametrize("home", [0, 1, 2], ids=["gpt-4.1", "gpt-5", "claude-sonnet-4-5"])
@pytest.mark.parametrize("tools", [False, True], ids=["bare", "tools"])
def test_a_guarded_model_sends_every_target_only_what_it_takes(home, tools, provider, soak):
    from llm_cost_middleware.integrations.langchain import guard

    make, names = langchain_models(provider)[home]
    pipelines = {target: pipeline_to(target, provider) for target in TARGETS}
    found = Outcomes()
    for _, value, target in product(names, TARGETS, soak):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # LangChain warns of parameters that it takes for misplaced
            plain = make(**value)
            guarded = guard(plain, pipelines[target])
        if tools:
            plain, guarded = (each.bind_tools([cases.CHAT_TOOL]) for each in (plain, guarded))
        found.note(
            f"{target[1]} {value}",
            lambda guarded=guarded: guarded.invoke(cases.SAY),
            provider,
            plain=lambda plain=plain: plain.invoke(cases.SAY),
        )
    found.check(f"guard, home {home}, tools {tools}")


@pytest.mark.parametrize("provider_name", ["anthropic", "openai"])
def test_process_sends_every_target_only_what_it_takes(provider_name, provider, soak):
    """It has no parameters of its own: what it writes by itself must suit every model."""
    from llm_cost_middleware import CostTracker, process

    kind, url = (
        (anthropic.Anthropic, provider.anthropic_url)
        if provider_name == "anthropic"
        else (openai.OpenAI, provider.openai_url)
    )
    client, found = kind(base_url=url, api_key="k"), Outcomes()
    values = {"system_prompt": [{}, {"system_prompt": "Be brief."}], "item_count": [{"item_count": 3}]}
    for _, value, target in product(values, [target for target in TARGETS if target[0] == provider_name], soak):
        found.note(
            f"{target[1]} {value}",
            lambda value=value, target=target: process(
                cases.SAY, pipeline_to(target, provider), CostTracker("9"), client=client, **value
            ),
            provider,
        )
    found.check(f"process, {provider_name}")
