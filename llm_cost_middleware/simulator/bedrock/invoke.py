"""``invoke`` and ``invoke-with-response-stream``: Anthropic's Messages, with the model in the path.

``anthropic_version`` must be ``bedrock-2023-05-31`` (User Guide, "Anthropic Claude Messages API") or the date of the
provider's own API, which its SDK sends from 2.0 on; ``model`` and ``stream`` are no fields of the body. The last event
of a stream carries ``amazon-bedrock-invocationMetrics``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from llm_cost_middleware.simulator.anthropic import reply as messages
from llm_cost_middleware.simulator.anthropic.elsewhere import usage_elsewhere
from llm_cost_middleware.simulator.anthropic.request import read_messages
from llm_cost_middleware.simulator.reading import Frame, Reading, Reply
from llm_cost_middleware.simulator.tokens import Tokenizer

from . import eventstream
from .errors import IN_STREAMS, invalid
from .models import Served

_VERSION = re.compile(r"bedrock-2023-05-31|20\d\d-\d\d-\d\d")
_ELSEWHERE = ("model", "stream", "service_tier", "inference_geo", "container", "mcp_servers", "fallbacks", "betas")


def read(
    body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int, served: Served, *, stream: bool
) -> Reading:
    """Validate a body.

    Raises:
        Refusal: In Bedrock's words, or in the model's.
    """
    if not _VERSION.fullmatch(str(body.get("anthropic_version"))):
        raise invalid(
            "anthropic_version: Field required" if "anthropic_version" not in body else "Invalid API version"
        )  # fmt: skip
    extra = next((key for key in _ELSEWHERE if key in body), None)
    if extra:
        raise invalid(f"#: extraneous key [{extra}] is not permitted, please reformat your input and try again.")
    tier = headers.get("x-amzn-bedrock-service-tier", "default")
    check_tier(tier, headers.get("x-amzn-bedrock-performanceconfig-latency", "standard"))
    own = {key: value for key, value in body.items() if key not in {"anthropic_version", "anthropic_beta"}}
    return as_served(own, headers, rule, index, served, stream=stream)


def check_tier(tier: str, latency: str) -> None:
    """Claude is served at the default tier, and no model of the current ones with optimized latency."""
    if tier not in {"default", "standard"}:
        raise invalid(f"The provided service tier {tier} is not supported for the model.")
    if latency != "standard":
        raise invalid("Latency performance configuration is not supported for the model.")


def as_served(
    own: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int, served: Served, *, stream: bool
) -> Reading:
    """Return the reading of a body of Messages at its model and price here."""
    reading = read_messages({**own, "model": served.model.id, "stream": stream}, headers, rule, index)
    return replace(reading, geo=served.geo)


def frames(out: Reply, size: int) -> Iterator[Frame]:
    """Yield the events of the model's own stream, each inside a ``chunk``."""
    for frame in messages.frames(out, size):
        data = json.loads(frame.data.partition(b"data: ")[2])
        if data["type"] == "ping":
            continue  # a ping is none of the model's
        if data["type"] == "message_start" and "usage" in data["message"]:
            data["message"]["usage"] = usage_elsewhere(data["message"]["usage"])
        if data["type"] == "message_stop" and out.usage:
            data["amazon-bedrock-invocationMetrics"] = {
                "inputTokenCount": out.tokens.input,
                "outputTokenCount": out.tokens.output,
                "invocationLatency": 500,
                "firstByteLatency": 100,
                "cacheReadInputTokenCount": out.tokens.read,
                "cacheWriteInputTokenCount": out.tokens.write + out.tokens.write_1h,
            }
        yield Frame(eventstream.chunk(data), frame.produced)


def error_frame(kind: str, text: str | None) -> bytes:
    """Return an exception inside a stream: by default the model's stream broke."""
    name = kind if kind in IN_STREAMS else "modelStreamErrorException"
    return eventstream.exception(name, text or "An error occurred while streaming the response. Retry your request.")
