"""The contract of a provider: every one keeps it, and each step that can be forgotten is found."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from pathlib import Path

import pytest
from msgspec import structs

from llm_cost_middleware import providers
from llm_cost_middleware.cache_marks import CacheFields
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.provider import CacheCapabilities, ErrorRule, FailureKind, Provider
from llm_cost_middleware.providers import NAMES, foreign_cache_fields, get_provider, provider_of, register
from llm_cost_middleware.request import Attempt, BlockRef, CacheBreakpoint, CacheDirectives, ModelRef
from llm_cost_middleware.usage import TokenUsage, UsageReport

MODELS = {"anthropic": "claude-sonnet-4-6", "openai": "gpt-5.6-sol", "toy": "toy-small"}


def check(name: str, provider: Provider, model: str) -> None:
    """Raise ``AssertionError`` where a provider does not keep its contract."""
    assert provider.name == name
    assert model.startswith(provider.model_prefixes)
    assert all(provider.model_prefixes)
    assert provider.endpoints
    others = [get_provider(other) for other in NAMES if other != name]
    for other in others:
        assert not any(prefix.startswith(other.model_prefixes) for prefix in provider.model_prefixes)
        assert provider.cache_fields.block != other.cache_fields.block
        assert not provider.cache_fields.request & other.cache_fields.request
    assert min(provider.tokens_per_byte, provider.tokens_per_message) > 0 <= provider.tokens_for_tools
    assert provider.error_rules
    assert all(isinstance(rule, ErrorRule) and isinstance(rule.kind, FailureKind) for rule in provider.error_rules)
    assert provider.read_error({}) == ("", "", "")
    assert hasattr(TokenUsage(), f"cache_write_{provider.default_write_ttl}")
    assert provider.new_stream_reader().reading().items == ()
    _check_writing(provider, model)


def _check_writing(provider: Provider, model: str) -> None:
    text, endpoint = "hello " * 4_000, provider.endpoints[0]
    body = provider.write_prompt("be brief", text)
    before = copy.deepcopy(body)
    asked = provider.read_request(body, endpoint)
    assert [message.role for message in asked.messages] == ["system", "user"]
    assert asked.messages[1].parts[0].text == text
    assert [message.role for message in provider.read_request(provider.write_prompt("", text), endpoint).messages] == [
        "user"
    ]
    ability = provider.cache_capabilities(model)
    assert isinstance(ability, CacheCapabilities)
    marks = ()
    if ability.style in {"explicit", "both"}:
        assert provider.billable_cache_writes(asked, frozenset(), True)
        assert set(provider.billable_cache_writes(asked, frozenset(), True)) >= set(ability.ttls)
        marks = tuple(CacheBreakpoint(BlockRef("messages", 0, 0), ttl) for ttl in ability.ttls[:1])
    attempt = Attempt("c", 1, ModelRef(provider.name, model), 77, CacheDirectives(marks), None)
    written = provider.write_request(body, attempt, endpoint)
    assert body == before
    read = provider.read_request(written, endpoint)
    assert (read.provider, read.model, read.max_tokens, read.endpoint) == (provider.name, model, 77, endpoint)
    assert [part.text for message in read.messages for part in message.parts] == ["be brief", text]
    assert read.messages[1].parts[0].cache_ttl == (marks[0].ttl if marks else None)
    uncapped = provider.write_request(body, structs.replace(attempt, max_tokens=None, cache_plan=None), endpoint)
    assert uncapped == {**body, "model": model}


def test_every_provider_keeps_the_contract(toy_provider):
    assert {*NAMES} == {*MODELS}
    for name in NAMES:
        check(name, get_provider(name), MODELS[name])


def test_every_package_has_its_line_and_every_line_its_package():
    packages = {path.parent.name for path in Path(providers.__file__).parent.glob("*/__init__.py")}
    assert packages == {*NAMES}


def test_the_errors_of_every_package_have_tests_of_their_own():
    packages = {path.parent.name for path in Path(providers.__file__).parent.glob("*/__init__.py")}
    assert packages == {path.name[5:-10] for path in Path(__file__).parent.glob("test_*_errors.py")}


def test_nothing_of_a_provider_can_be_left_out():
    assert not [field.name for field in fields(Provider) if field.default is not field.default_factory]


ABILITY = CacheCapabilities("explicit", min_tokens=1, max_marks=1, ttls=("5m",))
FORGOTTEN = {
    "the name of its line": {"name": "other"},
    "its models": {"model_prefixes": ()},
    "a prefix of its own": {"model_prefixes": ("gpt-toy", "toy-")},
    "its endpoints": {"endpoints": ()},
    "the output cap": {"write_request": lambda body, attempt, _: {**body, "model": attempt.target.model}},
    "the model": {"write_request": lambda body, attempt, _: {**body, "most": attempt.max_tokens}},
    "that bodies are the caller's": {"write_request": lambda body, *_: body.update(model="toy-small", most=77) or body},
    "the system prompt": {"write_prompt": lambda _, text: {"messages": [{"role": "user", "content": text}]}},
    "error rules": {"error_rules": ()},
    "how errors look": {"read_error": lambda _: ("unknown", "", "")},
    "a bound of tokens": {"tokens_per_byte": 0.0},
    "what a cache write costs": {"cache_capabilities": lambda _: ABILITY},
    "to write its marks": {"cache_capabilities": lambda _: ABILITY, "billable_cache_writes": lambda *_: ("5m",)},
    "cache fields of its own": {
        "cache_fields": CacheFields("cache_control", lambda _: {}, frozenset(), lambda _: {}),
    },
    "a lifetime that can be booked": {"default_write_ttl": "1w"},
    "that nothing seen is nothing billed": {
        "new_stream_reader": type("R", (), {"reading": lambda _: UsageReport(({},))}),
    },
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_step_that_was_forgotten_is_found(toy_provider, what):
    toy = get_provider(toy_provider)
    check("toy", toy, MODELS["toy"])
    with pytest.raises((AssertionError, IndexError)):
        check("toy", replace(toy, **FORGOTTEN[what]), MODELS["toy"])


def test_a_registered_provider_is_one_of_them(toy_provider):
    assert [*NAMES][-1] == toy_provider
    assert provider_of("toy-small") == "toy"
    assert get_provider("toy").cache_fields in foreign_cache_fields("openai")
    with pytest.raises(ConfigurationError, match="already"):
        register("openai", "toy_provider")


def test_a_name_without_a_provider_is_refused():
    assert provider_of("toy-small") is None
    with pytest.raises(ConfigurationError, match="known are anthropic, openai"):
        get_provider("toy")
