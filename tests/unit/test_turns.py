"""Messages that are a role and a text each: kept as columns, they are what they are as blocks."""

from __future__ import annotations

import copy
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cost_middleware.contents import RequestContents
from llm_cost_middleware.lifecycle.stages.route import conversation_keys
from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import Message, Part
from llm_cost_middleware.routing.features import last_user_text, read_features
from llm_cost_middleware.routing.sites import read_site
from llm_cost_middleware.turns import PlainTurns

TEXTS = st.sampled_from(["", " ", "word", "w\u00f6rd \ud800" * 90, "x" * 600])
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "visitor"])
SAID = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXTS}), min_size=1, max_size=12)
TOOL = {"type": "function", "function": {"name": "find", "description": "d" * 600}}


def read(provider, messages, system=None):
    body = {"model": "m", "messages": messages, "tools": [TOOL]}
    return get_provider(provider).read_request(body if system is None else {**body, "system": system})


@given(st.sampled_from(["anthropic", "openai"]), SAID, st.sampled_from([None, "", "y" * 700]))
def test_columns_and_blocks_of_a_conversation_are_told_to_be_the_same(provider, said, system):
    system = system if provider == "anthropic" else None
    columns, blocks = read(provider, said, system), read(provider, [MappingProxyType(each) for each in said], system)
    assert isinstance(blocks.messages, tuple)
    assert columns == blocks
    for name in RequestContents.__slots__:
        assert getattr(columns.contents, name) == getattr(blocks.contents, name), name
    for shared in (True, False):
        assert read_layout(columns, shared=shared) == read_layout(blocks, shared=shared)
    for told in (read_features, read_site, last_user_text):
        assert told(columns) == told(blocks)
    (key, earlier), (same_key, same_earlier) = conversation_keys(columns), conversation_keys(blocks)
    assert (key, *earlier) == (same_key, *same_earlier)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_conversation_of_plain_messages_is_kept_as_columns_and_changes_with_no_object_of_the_callers(provider):
    said = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    found = read(provider, said).messages
    assert isinstance(found, PlainTurns)
    said[0]["content"] = "other"
    said.append({"role": "user", "content": "three"})
    assert [(each.role, each.parts[0].text) for each in found] == [("user", "one"), ("assistant", "two")]


def test_columns_behave_as_the_tuple_of_their_messages():
    messages = tuple(Message(role, (Part("text", role),)) for role in ("system", "user", "assistant", "user"))
    columns = PlainTurns([each.role for each in messages], [each.role for each in messages])
    assert columns == messages
    assert messages == columns
    assert columns != messages[1:]
    assert columns[1:] == messages[1:] == columns[1:]
    assert (columns[0], columns[-1], len(columns), [*reversed(columns)]) == (
        messages[0], messages[-1], len(messages), [*reversed(messages)],
    )  # fmt: skip
    assert messages[2] in columns
    assert repr(columns) == repr(messages)
    assert copy.copy(columns) == columns == PlainTurns(columns.roles, columns.texts)
    with pytest.raises(IndexError):
        columns[4]


def test_what_is_more_than_a_role_and_a_text_is_read_block_by_block():
    said = [{"role": "user", "content": "hello"}]
    for odd in (
        {"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": ["user"], "content": "a"},
        {"role": "user", "content": "a", "name": "b"}, {"role": "tool", "content": "a"}, {"role": "user"}, "text",
        {"text": "a", "content": "b"},
    ):  # fmt: skip
        found = read("openai", [*said, odd]).messages
        assert isinstance(found, tuple)
        assert found[0] == Message("user", (Part("text", "hello"),))
        assert len(found) == 2
