"""Processes that make real calls through one pipeline each, until they are done, refused or killed.

Started once by the tests beside it: it imports what it needs, reads jobs from its standard input, a line of JSON each,
and forks a child for each, whose pid it prints. What a job came to stands in the file that it names.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import anthropic
import httpx
import openai

from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator.bedrock import signing

try:  # of the extra aws; here, so that no child imports it for itself
    import botocore.session
except ModuleNotFoundError:
    botocore = None

MODELS = {
    "anthropic": "claude-haiku-4-5-20251001",
    "openai": "gpt-5-mini",
    "azure": "eu--gpt-5-mini",
    "bedrock": "eu.anthropic.claude-haiku-4-5-20251001-v1:0",
    "vertex_ai": "claude-haiku-4-5@20251001",
}
DEPLOYMENTS = {MODELS["azure"]: {"model": "gpt-5-mini", "region": "swedencentral"}}
STEPS = ("routed", "reserved", "leaving", "arrived", "streaming", "settling", "settled", "journalling")


def asked(provider, **more):
    """A request of 40 output tokens."""
    cap = "max_completion_tokens" if provider in {"openai", "azure"} else "max_tokens"
    messages = [{"role": "user", "content": "hello there"}]
    return {"model": MODELS[provider], "messages": messages, cap: 40, **more}


def create(provider, simulator, pipeline, **options):
    """The governed method of a real client."""
    if provider == "anthropic":
        client = anthropic.Anthropic(base_url=simulator, api_key="k", **options)
        return wrap_anthropic(client, pipeline).messages.create
    if provider == "bedrock":
        client = anthropic.AnthropicBedrock(
            base_url=simulator, aws_region="eu-west-1", aws_access_key=signing.ACCESS_KEY,
            aws_secret_key=signing.SECRET_KEY, **options,
        )  # fmt: skip
        return wrap_anthropic(client, pipeline).messages.create
    if provider == "vertex_ai":
        client = anthropic.AnthropicVertex(
            base_url=f"{simulator}/v1", region="europe-west1", project_id="acme", access_token="ya29.t", **options
        )
        return wrap_anthropic(client, pipeline).messages.create
    if provider == "azure":
        client = openai.AzureOpenAI(azure_endpoint=simulator, api_key="k", api_version="2024-10-21", **options)
        return wrap_openai(client, pipeline).chat.completions.create
    client = openai.OpenAI(base_url=f"{simulator}/v1", api_key="k", **options)
    return wrap_openai(client, pipeline).chat.completions.create


def race(out, url, simulator, provider, budget, threads, calls, at):
    """Threads that call as long as they are allowed to, all beginning at one moment."""
    pipeline = CostPipeline(_config(url, budgets=[{"scope": "global", "limit": budget}]))
    call = create(provider, simulator, pipeline)
    sent = []

    def work():
        time.sleep(max(0.0, at - time.time()))
        try:
            for _ in range(calls):
                call(**asked(provider))
                sent.append(1)
        except BudgetExceededError:
            pass

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    pipeline.close()
    Path(out).write_text(str(len(sent)))


def until_killed(out, url, simulator, seed, calls, step="", count=0):
    """Calls, plain and streamed, at both providers and at platforms; at a step of one the process kills itself."""
    chance, left = random.Random(seed), [count]

    def reached(place):
        if place == step:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    class Told:
        def on_event(self, event):
            reached(type(event).__name__.lower())

    pipeline = CostPipeline(_config(url, budgets=[]), observers=[Told()])
    _announced(pipeline._runtimes.ledger, "settle_for_call", lambda: reached("settling"))
    _announced(pipeline._stages.decisions, "settling", lambda: reached("journalling"))  # its lines ride with the money
    hooks = {"request": [lambda _: reached("leaving")], "response": [lambda _: reached("arrived")]}
    doors = {
        "openai": create("openai", simulator, pipeline, http_client=httpx.Client(event_hooks=hooks)),
        "anthropic": create("anthropic", simulator, pipeline),
        "azure": create("azure", simulator, pipeline, http_client=httpx.Client(event_hooks=hooks)),
        "vertex_ai": create("vertex_ai", simulator, pipeline),
    }
    if botocore is not None:
        doors["bedrock"] = create("bedrock", simulator, pipeline)
    for _ in range(calls):
        provider = chance.choice(list(doors))
        if chance.random() < 0.4:
            for number, _ in enumerate(doors[provider](**asked(provider, stream=True))):
                if number == 2:
                    reached("streaming")
        else:
            doors[provider](**asked(provider))
    pipeline.close()
    Path(out).write_text("done")


def _announced(owner, name, tell):
    method = getattr(owner, name)

    def told(*args, **kwargs):
        tell()
        return method(*args, **kwargs)

    setattr(owner, name, told)


def _config(url, **more):
    return CostConfig(
        ledger={"url": url, "durability": "normal"}, output={"on_insufficient": ["raise"]},
        platforms={"azure": {"deployments": DEPLOYMENTS}}, **more,
    )  # fmt: skip


JOBS = {"race": race, "until_killed": until_killed}


def serve():
    """Fork a child for each line of the standard input."""
    logging.getLogger("llm_cost_middleware").addHandler(logging.NullHandler())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                JOBS[job.pop("job")](**job)
                code = 0
            except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
                traceback.print_exc()
            finally:
                os._exit(code)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
