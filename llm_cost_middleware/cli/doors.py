"""The doors that ``llm-cost doctor`` tries, in processes that may fail: ``python -m llm_cost_middleware.cli.doors``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.pipeline import CostPipeline

_KEY = "doctor"  # stands where a key must stand: nothing is sent
_PATIENCE_S = 180
_REASON = 300
_ON_LITELLM = frozenset({"litellm", "langchain-litellm", "fastapi"})


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


def _vertex(_: CostPipeline) -> None:
    import_module("google.auth")  # ``google`` is shared by many distributions; a token is asked for by the first call


def _guard_vertex(_: CostPipeline) -> None:
    from llm_cost_middleware.integrations.langchain import guard

    import_module("langchain_google_vertexai.model_garden")  # to make a model asks for a token: no door of doctor's
    del guard


def _router(pipeline: CostPipeline) -> None:
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    parameters = {"model": f"openai/{_model(pipeline, 'openai')}", "api_key": _KEY}
    CostAwareRouter([{"model_name": "one", "litellm_params": parameters}], pipeline=pipeline)


def _redis(_: CostPipeline) -> None:
    import redis

    redis.Redis(port=1)  # connects with its first command


def _postgres(_: CostPipeline) -> None:
    from llm_cost_middleware.budget.backends.postgres.connections import classes

    classes()  # of connections: made with the driver


def _proxy(_: CostPipeline) -> None:
    import fastapi

    from llm_cost_middleware.integrations.litellm import proxy

    del fastapi, proxy  # loading them was the attempt


def _router_model(_: CostPipeline) -> None:
    from langchain_litellm import ChatLiteLLMRouter

    del ChatLiteLLMRouter


_HAIKU = "global.anthropic.claude-haiku-4-5-20251001-v1:0"
_AWS = {"aws_access_key_id": _KEY, "aws_secret_access_key": _KEY}


def _guard_bedrock(pipeline: CostPipeline) -> None:
    from langchain_aws import ChatBedrockConverse

    from llm_cost_middleware.integrations.langchain import guard

    guard(ChatBedrockConverse(model=_HAIKU, region_name="us-east-1", **_AWS), pipeline)


def _bedrock(_: CostPipeline) -> None:
    import boto3

    boto3.client("bedrock-runtime", region_name="us-east-1", **_AWS)


def _apprise(_: CostPipeline) -> None:
    from llm_cost_middleware.alerts.channels import open_channel

    open_channel("json://localhost")


def _otel(_: CostPipeline) -> None:
    from llm_cost_middleware.observers.otel import OpenTelemetryObserver

    OpenTelemetryObserver()


def _prometheus(_: CostPipeline) -> None:
    from llm_cost_middleware.observers.prometheus import check_installed

    check_installed()


def _fitting(_: CostPipeline) -> None:
    import sklearn.linear_model

    from llm_cost_middleware.routing.learning.fitting import design_of

    design_of([])
    del sklearn


def _parquet(_: CostPipeline) -> None:
    import pyarrow.parquet

    del pyarrow


def _model(pipeline: CostPipeline, provider: str) -> str:
    return next(one.model for tier in pipeline.config.tiers for one in tier.models if one.provider == provider)


DOORS: Mapping[str, Callable[[CostPipeline], None]] = {
    "anthropic": _wrap_anthropic,
    "openai": _wrap_openai,
    "langchain-core": _handler,
    "langchain": _middleware,
    "langchain-anthropic": _guard_anthropic,
    "langchain-openai": _guard_openai,
    "langchain-aws": _guard_bedrock,
    "boto3": _bedrock,
    "langchain-google-vertexai": _guard_vertex,
    "google-auth": _vertex,
    "litellm": _router,
    "langchain-litellm": _router_model,
    "fastapi": _proxy,
    "redis": _redis,
    "apprise": _apprise,
    "psycopg": _postgres,
    "opentelemetry-api": _otel,
    "opentelemetry-exporter-prometheus": _prometheus,
    "scikit-learn": _fitting,
    "pyarrow": _parquet,
}
"""Attempts to use a package for what it is for, by the name of its distribution."""


def try_doors(packages: Sequence[str]) -> dict[str, str]:
    """Why the door of each package does not open; empty where it does. Sends nothing, asks no network.

    The hosts are imported in two other processes at once: LiteLLM takes seconds, and one that is broken may end the
    process that imports it.
    """
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # without, importing it fetches prices
    groups = [[name for name in packages if (name in _ON_LITELLM) is alone] for alone in (True, False)]
    found: dict[str, str] = {}
    # A file and not standard output: hosts write to that at import, past ``sys.stdout`` as well.
    with TemporaryDirectory() as folder:
        started = []
        for number, group in enumerate(filter(None, groups)):
            report = Path(folder, str(number))
            report.touch()  # a process that ends at once has reported nothing
            process = subprocess.Popen(  # noqa: S603 - this module
                [sys.executable, "-P", "-W", "ignore", "-m", __name__, str(report), *group], env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            started.append((group, report, process))
        for group, report, process in started:
            try:
                ended = f"the process that tried it ended with status {process.wait(timeout=_PATIENCE_S)}"
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                ended = f"did not open within {_PATIENCE_S} s"
            reported = dict(json.loads(line) for line in report.read_text(encoding="utf-8").splitlines())
            found |= {name: reported.get(name, ended) for name in group}
    return found


def main(report: str, packages: Sequence[str]) -> None:
    """Try the doors of some packages; append a line of JSON for each to ``report`` as soon as it is known."""
    with Path(report).open("a", encoding="utf-8") as out:
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
    main(sys.argv[1], sys.argv[2:])
