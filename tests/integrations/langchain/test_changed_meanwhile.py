"""What money is held for is what is sent, whatever a caller makes of his messages and tools while a call waits."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.events import Retried, Routed
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.integrations.langchain.snapshots import Snapshot
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


_IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_OLD_FORMS = {
    "data": {"type": "image", "source_type": "base64", "data": _IMAGE, "mime_type": "image/png"},
    "url": {"type": "image", "source_type": "url", "url": "https://example.org/a.png"},
    "file": {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{_IMAGE}"}},
    "text": {"type": "text", "text": "What is it?"},
}


@pytest.mark.parametrize("block", _OLD_FORMS.values(), ids=_OLD_FORMS)
@pytest.mark.parametrize("door", [generate, stream, ainvoke, astream])
def test_a_block_in_an_older_form_is_routed_once(make_harness, claude, gpt, forget_connections, block, door):
    for made in (claude, gpt):
        harness = make_harness()
        model = bind(guard(made(), harness.pipeline, pinned=True), Asked())
        given = [HumanMessage([dict(block)])]
        door(model, given)
        assert len(harness.observer.of(Routed)) == 1
        assert given == [HumanMessage([block])]


class _Unlike:
    """Cannot be compared, as an array cannot."""

    def __eq__(self, other):
        raise ValueError

    __hash__ = None


def _linked(size):
    node = None
    for _ in range(size):
        node = {"next": node}
    return node


def _tree():
    root = {"name": "root", "children": []}
    root["children"].extend({"parent": root, "children": ()} for _ in range(3))
    return root


@pytest.mark.parametrize("held", [_tree, _Unlike, lambda: _linked(5_000)], ids=["tree", "unlike", "deep"])
@pytest.mark.parametrize("door", [generate, stream, ainvoke, astream])
def test_what_is_not_sent_may_be_anything(make_harness, sim, claude, gpt, forget_connections, held, door):
    """What a tool found may refer to itself, and so may what a program notes down beside a message."""
    seen = []

    class Notes(BaseCallbackHandler):
        def on_chat_model_start(self, serialized, messages, **_):
            seen.append(messages[0][2])
            messages[0][2].artifact = held()

    harness = make_harness()
    for made in (claude, gpt):
        asked = Asked()
        for message in asked.messages:
            message.additional_kwargs["mine"] = held()
            message.response_metadata["mine"] = held()
        asked.messages[2].artifact = held()
        model = bind(guard(made(callbacks=[Notes()], metadata={"mine": _tree()}), harness.pipeline, pinned=True), asked)
        door(model, asked.messages)
        assert seen.pop() is asked.messages[2]
    assert "mine" not in str([request.body for request in sim.requests])
    harness.check()


def test_what_a_tool_found_is_not_copied():
    class Rows(list):
        def __iter__(self):
            raise AssertionError("it was read")

    rows = Rows([{"a": 1}])
    message = ToolMessage("done", tool_call_id="t1", artifact=rows)
    asked = Snapshot.of([message], {})
    assert asked.messages[0].artifact is rows
    assert asked.is_of([message], {})


def test_beside_what_refers_to_itself_a_change_is_seen():
    text = {"type": "text", "text": "Hello.", "mine": _tree()}
    message = HumanMessage([text], additional_kwargs={"mine": _tree(), "cache_control": {"type": "ephemeral"}})
    tools = [{"name": "f", "mine": _tree(), "input_schema": {"type": "object"}}]
    for change in (
        lambda: message.content[0].update(text=MORE),
        lambda: message.additional_kwargs["cache_control"].update(ttl="1h"),
        lambda: tools[0]["input_schema"].update(description=MORE),
    ):
        asked = Snapshot.of([message], {"tools": tools})
        assert asked.is_of([message], {"tools": tools})
        change()
        assert not asked.is_of([message], {"tools": tools})


class Noted(HumanMessage):
    """A message of an application's own: made in its own way, with fields of its own."""

    usage_metadata: tuple = (1, 2)

    def __new__(cls, content, **more):
        return super().__new__(cls)


def test_a_message_of_the_applications_own_is_sent(make_harness, sim, claude):
    harness = make_harness()
    model = guard(claude(max_tokens=50), harness.pipeline, pinned=True)
    assert model.invoke([Noted("Hello.")]).content
    assert len(sim.requests) == 1
