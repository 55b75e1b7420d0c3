"""Bodies of requests for batches."""

from __future__ import annotations


def claude_bodies(count, model="claude-haiku-4-5", **more):
    return [
        {"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": f"c{at}"}], **more}
        for at in range(count)
    ]


def chat_bodies(count, model="gpt-5-mini", **more):
    return [
        {"model": model, "max_completion_tokens": 20, "messages": [{"role": "user", "content": f"g{at}"}], **more}
        for at in range(count)
    ]


def response_bodies(count, model="gpt-5-mini"):
    return [{"model": model, "max_output_tokens": 20, "input": f"r{at}"} for at in range(count)]
