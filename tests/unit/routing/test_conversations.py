"""Which calls are turns of one conversation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_cost_middleware.lifecycle.stages.route import conversation_keys
from llm_cost_middleware.request import CallContext, CallRequest, Message, Part


def ask(*said, **context):
    messages = tuple(Message(role, (Part("text", text),)) for role, text in said)
    return CallRequest("openai", "smart", messages, context=CallContext(**context))


def continues(later, earlier):
    return conversation_keys(earlier)[0] in conversation_keys(later)[1]


FIRST = (("system", "Be brief."), ("user", "hi"))


def test_a_turn_goes_on_from_a_call_that_it_carries_whole():
    second = (*FIRST, ("assistant", "hello"), ("user", "and now?"))
    third = (*second, ("assistant", "so"), ("tool", "4"), ("tool", "5"))
    assert continues(ask(*second), ask(*FIRST))
    assert continues(ask(*third), ask(*second))
    assert continues(ask(*third), ask(*FIRST))
    assert not continues(ask(*FIRST), ask(*second))
    assert not continues(ask(*FIRST), ask(*FIRST))  # asked twice, not gone on with


def test_the_same_examples_make_no_conversation():
    head = (*FIRST, ("assistant", "hello"))
    one, other = ask(*head, ("user", "ticket 1")), ask(*head, ("user", "ticket 2"))
    assert not continues(other, one)
    assert not continues(one, other)


def test_an_id_makes_one_whatever_is_said():
    assert continues(ask(("user", "a"), conversation="c"), ask(("user", "b"), conversation="c"))
    assert not continues(ask(("user", "a"), conversation="c"), ask(("user", "a"), conversation="d"))


TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), st.text(max_size=3)), min_size=1, max_size=8)


@given(TURNS, TURNS)
def test_a_call_continues_another_only_if_it_begins_with_all_of_it(one, other):
    if continues(ask(*other), ask(*one)):
        assert other[: len(one)] == one
        assert other[len(one)][0] == "assistant"
    elif other[: len(one)] == one and len(other) > len(one) and one[-1][0] != "assistant":
        assert other[len(one)][0] != "assistant"
