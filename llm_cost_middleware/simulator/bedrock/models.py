"""Model ids of Bedrock: a geography, ``anthropic.``, the model, a version; where each may be called, and its price.

Rules, with their sources:

- A profile of a geography (``us.``, ``eu.``, …) is called from a region inside it, ``global.`` from everywhere (User
  Guide, "Supported Regions and models for inference profiles").
- Claude 4.5 is called by profile only ("Invocation of model ID … with on-demand throughput isn't supported").
- A global profile costs the provider's list price; a geography or a region 10 % more, from Claude 4.5 on (Anthropic,
  "Claude in Amazon Bedrock", "Global vs regional endpoints"); there is no earlier model here.
- GovCloud is another partition: it has regions and profiles of its own (``us-gov.``), no global ones (User Guide, as
  above), and costs a fifth more (LiteLLM's map: ``bedrock/us-gov-west-1/…`` and ``us-gov.…`` beside ``anthropic.…``).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from llm_cost_middleware.simulator.catalogue import SimModel, catalogue

from .errors import aws_error, invalid

_GEOGRAPHIES: Mapping[str, tuple[str, ...]] = {
    "global": ("",),
    "us": ("us-east-", "us-west-", "ca-"),
    "eu": ("eu-",),
    "apac": ("ap-",),
    "jp": ("ap-northeast-1", "ap-northeast-3"),
    "au": ("ap-southeast-2", "ap-southeast-4", "ap-southeast-6"),
    "us-gov": ("us-gov-",),
}
_ID = re.compile(r"(?:(?P<geo>[a-z-]+)\.)?anthropic\.(?P<model>claude-[a-z0-9-]+?)(?P<version>-v\d+(?::\d+)?)?")
_GOVERNMENT = "us-gov-"
_PROFILE_ONLY = ("claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5")


class Served(NamedTuple):
    """What an id stands for."""

    model: SimModel
    geo: str
    """``regional`` or ``govcloud`` where it is dearer than the list; empty otherwise."""


def find(model_id: str, region: str, arns: Mapping[str, str]) -> Served:
    """Return the model behind an id.

    Args:
        model_id: An id, or an ARN of an inference profile or of provisioned throughput.
        region: Where it is called; empty where nobody knows.
        arns: The id behind each ARN of this account.

    Raises:
        Refusal: In Bedrock's words.
    """
    if model_id.startswith("arn:"):
        if "foundation-model/" in model_id or ":inference-profile/" in model_id:
            arns = {model_id: model_id.rpartition("/")[2], **arns}
        if model_id not in arns:
            raise aws_error("ResourceNotFoundException", "The provided model identifier is invalid.")
        model_id = arns[model_id]
    found = _ID.fullmatch(model_id)
    model = catalogue().get(found["model"]) if found else None
    if found is None or model is None:
        raise invalid("The provided model identifier is invalid.")
    geo, government = found["geo"], region.startswith(_GOVERNMENT)
    if geo is not None and (geo not in _GEOGRAPHIES or (region and not region.startswith(_GEOGRAPHIES[geo]))):
        raise invalid("The provided model identifier is invalid.")
    if geo == "global" and government:
        raise invalid("The provided model identifier is invalid.")
    if geo is None and model.id.startswith(_PROFILE_ONLY):
        raise invalid(
            f"Invocation of model ID {model_id} with on-demand throughput isn't supported. Retry your request with the "
            "ID or ARN of an inference profile that contains this model."
        )
    if government or geo == "us-gov":
        return Served(model, "govcloud")
    return Served(model, "" if geo == "global" else "regional")
