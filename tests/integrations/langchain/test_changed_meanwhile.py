"""What money is held for is what is sent, whatever a caller makes of his messages and tools while a call waits."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.events import Retried, Routed
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.simulator import Fault

MORE = "word " * 30_000


class Asked:
    """A conversation and a tool, and what a caller may do to them."""

    def __init__(self):
        self.called = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "t1"}], id="kept")
        result = ToolMessage("done", tool_call_id="t1")
        self.messages = [
            HumanMessage([{"type": "text", "text": "Hello."}]),
            self.called,
            result,
            HumanMessage("Go on."),
        ]
        self.shape = {"type": "object", "properties": {}}
        function = {"name": "f", "description": "Does it.", "parameters": self.shape}
        self.tools = [{"type": "function", "function": function}]
        self.bound = {}

    def message_is_added(self):
        self.messages.append(HumanMessage(MORE))

    def text_is_set(self):
        self.messages[-1].content = MORE

    def block_is_changed(self):
        self.messages[0].content[0]["text"] = MORE

    def tool_call_is_changed(self):
        self.called.tool_calls[0]["args"]["x"] = MORE

    def tool_is_changed(self):
        for tool in self.bound["tools"]:
            shape = tool.get("input_schema") or tool["function"]["parameters"]
            shape["properties"]["x"] = {"type": "string", "description": MORE}


CHANGES = [name for name in vars(Asked) if name.endswith(("_added", "_set", "_changed"))]


def generate(model, messages):
    return model.bound.generate([messages], **model.kwargs)


def stream(model, messages):
    return list(model.stream(messages))


def ainvoke(model, messages):
    return asyncio.run(model.ainvoke(messages))


def astream(model, messages):
    async def read():
        return [chunk async for chunk in model.astream(messages)]

    return asyncio.run(read())


def bind(model, asked):
    bound = model.bind_tools(asked.tools)
    asked.bound = bound.kwargs
    return bound


@pytest.mark.parametrize(
    ("door", "change"),
    [*((generate, change) for change in CHANGES), *((door, "text_is_set") for door in (stream, ainvoke, astream))],
)
def test_while_a_retry_waits(make_harness, sim, claude, gpt, forget_connections, door, change):
    for made in (claude, gpt):
        asked = Asked()
        act = getattr(asked, change)
        harness = make_harness(
            retry={"throttle_base_s": 0.01},
            observers=[lambda event, act=act: isinstance(event, Retried) and act()],
        )  # fmt: skip
        model = bind(guard(made(), harness.pipeline, pinned=True), asked)
        sim.script(Fault.status(429))
        before, billed = sim.request_count, sim.bill.total_nanousd
        door(model, asked.messages)
        first, second = [request.body for request in sim.requests[before:]]
        assert first == second
        assert MORE not in str(second)
        assert harness.pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd - billed


@pytest.mark.parametrize("change", CHANGES)
def test_before_it_is_sent_it_is_read_again(make_harness, sim, claude, change):
    """LangChain sends what the messages of a stream say when its reader begins."""
    asked = Asked()
    harness = make_harness(limit="0.02")
    model = bind(guard(claude(max_tokens=50), harness.pipeline, pinned=True), asked)
    assert list(model.stream(asked.messages))
    chunks = model.bound.stream(asked.messages, **model.kwargs)
    getattr(asked, change)()
    with pytest.raises(BudgetExceededError):
        list(chunks)
    assert MORE not in str([request.body for request in sim.requests if not request.path.endswith("count_tokens")])
    harness.check()


def test_a_callback_may_change_what_is_sent(make_harness, sim, claude):
    class Shortens(BaseCallbackHandler):
        def on_chat_model_start(self, serialized, messages, **_):
            messages[0][0].content = "[left out]"

    harness = make_harness(limit="0.02")
    model = guard(claude(max_tokens=50), harness.pipeline, pinned=True)
    model.invoke([HumanMessage(MORE)], config={"callbacks": [Shortens()]})
    assert sim.requests[-1].body["messages"] == [{"role": "user", "content": "[left out]"}]
    harness.check()


def test_what_did_not_change_is_read_once_and_stays_what_it_was(make_harness, sim, claude, gpt):
    class Named(HumanMessage):
        """A message of the user's own class."""

    seen = []

    class Sees(BaseCallbackHandler):
        def on_chat_model_start(self, serialized, messages, **_):
            seen.extend(messages[0])

    for made in (claude, gpt):
        harness = make_harness()
        model = guard(made(), harness.pipeline, pinned=True)
        given = [Named("hello", id="kept", note={"mine": [1]}), AIMessage("yes", id="a1"), HumanMessage("go on")]
        bound = model.bind_tools(Asked().tools)
        bound.invoke(given, config={"callbacks": [Sees()]})
        list(bound.stream(given))
        model.generate([given])
        model.with_structured_output({"title": "answer", "type": "object", "properties": {}}).invoke(given)
        assert len(harness.observer.of(Routed)) == 4
        assert seen[-3] is given[0]
        assert given[0] == Named("hello", id="kept", note={"mine": [1]})
