"""What the application says about its calls."""

import asyncio

import pytest

from llm_cost_middleware import ConfigurationError, cost_context
from llm_cost_middleware.context import current_context, read_context
from llm_cost_middleware.errors import InvalidAmountError, UnknownKeyError
from llm_cost_middleware.money import NanoUSD


def test_names_become_scopes_and_odd_characters_are_encoded():
    context = read_context({"user": "a b", "team": "x", "tags": ["search"], "site": "faq", "scopes": ["org:1"]})
    assert context.scopes == ("user:a%20b", "team:x", "tag:search", "site:faq", "org:1")
    assert (context.tags, context.call_site) == (("search",), "faq")


def test_blocks_nest_and_a_call_wins_over_its_block():
    with cost_context(user="1", tags=["a"], force_model="gpt-5.1"):
        with cost_context(user="2", tags=["b"], max_cost="0.01"):
            inner = current_context()
            assert inner.scopes == ("tag:a", "user:2", "tag:b")
            assert inner.tags == ("a", "b")
            assert inner.forced_model == "gpt-5.1"
            assert inner.max_cost_nanousd == NanoUSD(10_000_000)
            assert read_context({"user": 3}).scopes == ("tag:a", "tag:b", "user:3")
        assert current_context().scopes == ("user:1", "tag:a")
    assert current_context().scopes == ()


async def test_tasks_inherit_their_block_and_do_not_leak_theirs():
    async def inside():
        with cost_context(user="task"):
            await asyncio.sleep(0)
            return current_context().scopes

    with cost_context(team="t"):
        assert await asyncio.create_task(inside()) == ("team:t", "user:task")
        assert current_context().scopes == ("team:t",)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"usr": "1"}, UnknownKeyError), ({"tags": "search"}, ConfigurationError), ("user", ConfigurationError),
        ({"item_count": 0}, ConfigurationError), ({"item_count": True}, ConfigurationError),
        ({"max_cost": -1}, InvalidAmountError), ({"user": ""}, ValueError), ({"scopes": ["no scope"]}, ValueError),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(said, error):
    with pytest.raises(error):
        read_context(said)
