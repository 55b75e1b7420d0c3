"""One process of ``test_stop_button``: two hosts that call as fast as they can, and tell when they are refused."""

import logging
import os
import sys
import threading
import time
from pathlib import Path

import openai
from langchain_openai import ChatOpenAI

from llm_cost_middleware import CostConfig, CostPipeline, LLMCostError, cost_context
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.integrations.openai import wrap_openai

path, url, folder = sys.argv[1:]
logging.disable(logging.CRITICAL)
pipeline = CostPipeline(CostConfig.from_toml(path))
client = wrap_openai(openai.OpenAI(api_key="k", base_url=url, max_retries=0), pipeline)
model = guard(ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=url, max_tokens=20), pipeline)
HOSTS = {
    "sdk": lambda: client.chat.completions.create(
        model="gpt-5-mini", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=20
    ),
    "langchain": lambda: model.invoke("hi"),
}


def loop(host, call):
    told = Path(folder) / f"{os.getpid()}.{host}"
    parent = os.getppid()
    with told.open("a", buffering=1) as lines:
        while os.getppid() == parent:
            try:
                with cost_context(team="search"):
                    call()
                lines.write(f"{time.time()} sent\n")
            except LLMCostError as error:
                lines.write(f"{time.time()} {type(error).__name__} {error}\n".replace("\n", " ") + "\n")
                time.sleep(0.02)


threads = [threading.Thread(target=loop, args=each, daemon=True) for each in HOSTS.items()]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
