"""The doors that ``llm-cost doctor`` tries, in processes that may fail: ``python -m llm_cost_middleware.cli.doors``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.pipeline import CostPipeline

_KEY = "doctor"  # stands where a key must stand: nothing is sent
_PATIENCE_S = 180
_REASON = 300


def _wrap_anthropic(pipeline: CostPipeline) -> None:
    import anthropic

    from llm_cost_middleware.integrations.anthropic import wrap_anthropic

    wrap_anthropic(anthropic.Anthropic(api_key=_KEY), pipeline)


def _wrap_openai(pipeline: CostPipeline) -> None:
    import openai

    from llm_cost_middleware.integrations.openai import wrap_openai

    wrap_openai(openai.OpenAI(api_key=_KEY), pipeline)


def _handler(pipeline: CostPipeline) -> None:
    from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard, instrument

    CostCallbackHandler(pipeline)
    del guard, instrument  # loading their modules was the attempt


def _middleware(pipeline: CostPipeline) -> None:
    from llm_cost_middleware.integrations.langchain import CostMiddleware

    CostMiddleware(pipeline)


def _guard_anthropic(pipeline: CostPipeline) -> None:
    from langchain_anthropic import ChatAnthropic

    from llm_cost_middleware.integrations.langchain import guard

    guard(ChatAnthropic(model=_model(pipeline, "anthropic"), api_key=_KEY), pipeline)  # type: ignore[call-arg, arg-type]  # pydantic takes a str


def _guard_openai(pipeline: CostPipeline) -> None:
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    guard(ChatOpenAI(model=_model(pipeline, "openai"), api_key=_KEY), pipeline)  # type: ignore[arg-type]  # pydantic takes a str


def _router(pipeline: CostPipeline) -> None:
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    parameters = {"model": f"openai/{_model(pipeline, 'openai')}", "api_key": _KEY}
    CostAwareRouter([{"model_name": "one", "litellm_params": parameters}], pipeline=pipeline)


def _redis(_: CostPipeline) -> None:
    import redis

    redis.Redis(port=1)  # connects with its first command


def _model(pipeline: CostPipeline, provider: str) -> str:
    return next(one.model for tier in pipeline.config.tiers for one in tier.models if one.provider == provider)


DOORS: Mapping[str, Callable[[CostPipeline], None]] = {
    "anthropic": _wrap_anthropic,
    "openai": _wrap_openai,
    "langchain-core": _handler,
    "langchain": _middleware,
    "langchain-anthropic": _guard_anthropic,
    "langchain-openai": _guard_openai,
    "litellm": _router,
    "redis": _redis,
}
"""Attempts to use a package for what it is for, by the name of its distribution."""


def try_doors(packages: Sequence[str]) -> dict[str, str]:
    """Why the door of each package does not open; empty where it does. Sends nothing, asks no network.

    The hosts are imported in two other processes at once: LiteLLM takes seconds, and one that is broken may end the
    process that imports it.
    """
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # without, importing it fetches prices
    groups = [[name for name in packages if (name == "litellm") is alone] for alone in (True, False)]
    started = [
        (
            group,
            subprocess.Popen(  # noqa: S603 - this module
                [sys.executable, "-P", "-W", "ignore", "-m", __name__, *group],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
            ),
        )
        for group in groups if group
    ]  # fmt: skip
    found: dict[str, str] = {}
    for group, process in started:
        try:
            printed, _ = process.communicate(timeout=_PATIENCE_S)
            ended = f"the process that tried it ended with status {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
            ended = f"did not open within {_PATIENCE_S} s"
        reported = dict(json.loads(line) for line in printed.splitlines())
        found |= {name: reported.get(name, ended) for name in group}
    return found


def main(packages: Sequence[str]) -> None:
    """Try the doors of some packages; a line of JSON for each as soon as it is known."""
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # what hosts print at import is not the answer
        for name in packages:
            reason = ""
            try:
                with CostPipeline(CostConfig()) as pipeline:
                    DOORS[name](pipeline)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a broken package raises is the finding
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_REASON]
            out.write(json.dumps((name, reason)) + "\n")
            out.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
