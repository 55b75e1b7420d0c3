"""Conversations of every kind of message, in the words of each host, and what a cache hashes of a request body."""

from __future__ import annotations

import json

from hypothesis import strategies as st

CLAUDE = "claude-sonnet-4-6"
MARK = {"type": "ephemeral"}
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
KEYS = frozenset({"cache_control", "prompt_cache_breakpoint", "prompt_cache_options", "prompt_cache_key"})

QUESTIONS = ("text", "one block", "blocks", "image last")
CALLERS = ("tools", "system", "first", "inside", "top")
"""Where a caller marks: the last tool, a system block, the first turn, a block inside a tool result, the request."""
RESULTS = ("text", "empty", "blank", "one block", "blocks", "image", "no blocks")


@st.composite
def shapes(draw):
    """What a conversation is made of; the builders below write it in each host's words."""
    turns = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("ask"), st.sampled_from(QUESTIONS)),
                st.tuples(st.just("results"), st.lists(st.sampled_from(RESULTS), min_size=1, max_size=3)),
            ),
            min_size=2,
            max_size=5,
        )
    )
    return {
        "system": draw(st.sampled_from(["none", "text", "blocks"])),
        "tools": draw(st.integers(1, 3)),
        "deferred": draw(st.integers(0, 2)),
        "search": draw(st.booleans()),
        "turns": [("ask", draw(st.sampled_from(QUESTIONS[:4]))), *turns],
        "callers": draw(st.sets(st.sampled_from(CALLERS), max_size=2)),
    }


def words(salt, length=4_400):
    return (f"{salt} does its work and says what it found. " * (length // 30))[:length]


def text(salt, length=4_400):
    return {"type": "text", "text": words(salt, length)}


def image():
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}


def question(kind, salt):
    return {
        "text": words(salt),
        "one block": [text(salt)],
        "blocks": [text(salt), text(f"{salt} more", 300)],
        "image last": [text(salt), image()],
    }[kind]


def result(kind, salt):
    return {
        "text": words(salt),
        "empty": "",
        "blank": "   ",
        "one block": [text(salt)],
        "blocks": [text(salt), text(f"{salt} more", 300)],
        "image": [text(salt), image()],
        "no blocks": [],
    }[kind]


def conversation(shape):
    """The turns as (role, content) in Anthropic's words; a tool call is (name, id)."""
    out = []
    for at, (deed, how) in enumerate(shape["turns"]):
        if deed == "ask":
            if at:
                out.append({"role": "assistant", "content": [{"type": "text", "text": f"answer {at}"}]})
            out.append({"role": "user", "content": question(how, f"question {at}")})
            continue
        calls = [{"type": "tool_use", "id": f"t{at}_{n}", "name": "tool0", "input": {"n": n}} for n in range(len(how))]
        out.append({"role": "assistant", "content": calls})
        results = [
            {"type": "tool_result", "tool_use_id": f"t{at}_{n}", "content": result(kind, f"result {at} {n}")}
            for n, kind in enumerate(how)
        ]
        out.append({"role": "user", "content": results})
    return out


def marks_of_callers(shape):
    """The caller's marks by place, in the order of the prompt: the first ``hour`` of them for an hour."""
    places = [each for each in CALLERS if each in shape["callers"]]
    return {place: {**MARK, **({"ttl": "1h"} if at < shape.get("hour", 0) else {})} for at, place in enumerate(places)}


def messages_body(shape, upto):
    """A body of the Messages API, up to and including a turn."""
    tools = [
        {
            "name": f"tool{n}",
            "description": words(f"tool {n}", 2_400),
            "input_schema": {"type": "object", "properties": {}},
        }
        for n in range(shape["tools"])
    ]
    callers, control = shape["callers"], marks_of_callers(shape)
    if "tools" in callers:
        tools[-1]["cache_control"] = control["tools"]
    if shape["search"]:
        tools.append({"type": "web_search_20250305", "name": "web_search"})
    tools += [{**tools[0], "name": f"late{n}", "defer_loading": True} for n in range(shape["deferred"])]
    for tool in tools[-shape["deferred"] :] if shape["deferred"] else ():
        tool.pop("cache_control", None)
    body = {"model": CLAUDE, "max_tokens": 20, "tools": tools, "messages": conversation(shape)[: 2 * upto + 1]}
    if shape["system"] != "none":
        body["system"] = words("system") if shape["system"] == "text" else [text("system"), text("day", 600)]
    if "system" in callers and isinstance(body.get("system"), list):
        body["system"][0]["cache_control"] = control["system"]
    first = body["messages"][0]["content"]
    if "first" in callers and isinstance(first, list):
        first[0]["cache_control"] = control["first"]
    for message in body["messages"] if "inside" in callers else ():
        found = [
            b for b in message["content"] if isinstance(b, dict) and b.get("type") == "tool_result" and b["content"]
        ]
        if found and isinstance(found[0]["content"], list):
            found[0]["content"][0]["cache_control"] = control["inside"]
            break
    if "top" in callers:
        body["cache_control"] = control["top"]
    return body


def langchain_call(body):
    """The same as LangChain's messages, its tools and its further arguments."""
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    out = [SystemMessage(body["system"])] if "system" in body else []
    for message in body["messages"]:
        content = message["content"]
        if message["role"] == "assistant":
            calls = [{"name": b["name"], "args": b["input"], "id": b["id"]} for b in content if b["type"] == "tool_use"]
            said = [b for b in content if b["type"] == "text"]
            out.append(AIMessage(said if calls and said else "" if calls else content, tool_calls=calls))
        elif isinstance(content, list) and content[0]["type"] == "tool_result":
            out += [ToolMessage(b["content"], tool_call_id=b["tool_use_id"]) for b in content]
        else:
            out.append(HumanMessage(content))
    more = {"cache_control": body["cache_control"]} if "cache_control" in body else {}
    return out, body.get("tools") or [], more


def chat_body(body):
    """The same in the words of chat completions, as LiteLLM takes it for Claude."""

    def block(each):
        if each["type"] != "image":
            return each
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{each['source']['data']}"}}

    def content(value):
        return value if isinstance(value, str) else [block(each) for each in value]

    out = [{"role": "system", "content": body["system"]}] if "system" in body else []
    for message in body["messages"]:
        given = message["content"]
        if message["role"] == "assistant" and any(b["type"] == "tool_use" for b in given):
            calls = [
                {
                    "id": b["id"],
                    "type": "function",
                    "function": {"name": b["name"], "arguments": json.dumps(b["input"])},
                }
                for b in given
                if b["type"] == "tool_use"
            ]
            said = [b for b in given if b["type"] == "text"]
            out.append({"role": "assistant", "content": said or None, "tool_calls": calls})
        elif isinstance(given, list) and given[0]["type"] == "tool_result":
            out += [{"role": "tool", "tool_call_id": b["tool_use_id"], "content": content(b["content"])} for b in given]
        else:
            out.append({"role": message["role"], "content": content(given)})
    tools = [
        {
            "type": "function",
            "function": {"name": t["name"], "description": t["description"], "parameters": t["input_schema"]},
            **{key: t[key] for key in ("cache_control", "defer_loading") if key in t},
        }
        for t in body.get("tools") or ()
        if "input_schema" in t
    ]
    return {"messages": out, **({"tools": tools} if tools else {}), "max_tokens": 20}


def bare(value):
    """Without marks, whoever set them."""
    if isinstance(value, list):
        return [bare(each) for each in value]
    if isinstance(value, dict):
        return {name: bare(each) for name, each in value.items() if name not in KEYS}
    return value


def spelled_out(body):
    """Without marks, and with the documented shorthands written as what they stand for."""
    body = bare(body)
    for holder, key in [(body, "system"), *((message, "content") for message in body["messages"])]:
        if isinstance(holder.get(key), str):
            holder[key] = [{"type": "text", "text": holder[key]}]
    return body


def marks(value):
    """How many blocks bear a mark, the request's own among them."""
    if isinstance(value, list):
        return sum(map(marks, value))
    if isinstance(value, dict):
        own = any(key in value for key in ("cache_control", "prompt_cache_breakpoint"))
        return own + sum(marks(each) for name, each in value.items() if name not in KEYS)
    return 0


def prompt(body):
    """The blocks in the order in which a cache hashes them."""
    found = [("tools", tool) for tool in body.get("tools") or ()]
    found += [("system", block) for block in body.get("system") or ()]
    for message in body["messages"]:
        content = message.get("content")
        blocks = content if isinstance(content, list) else [content]
        found += [(message["role"], block) for block in blocks]
        found += [(message["role"], call) for call in message.get("tool_calls") or ()]
    return [json.dumps(each) for each in found]
