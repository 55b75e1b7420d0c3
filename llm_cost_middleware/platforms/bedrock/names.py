"""Model ids of Bedrock: where a call is processed, whose model it is, and what the place costs.

An id is ``[GEOGRAPHY.]anthropic.MODEL[-vN[:N]]``, an ARN that ends in one, or, as answers say, the provider's own. A
region may stand before it with a slash. Sources: User Guide, "Supported foundation models" and "Supported Regions and
models for inference profiles"; Anthropic, "Claude in Amazon Bedrock", "Global vs regional endpoints": from Claude 4.5
on everything but ``global.`` costs a tenth more. genai-prices' ``aws`` and LiteLLM's map say the same, but for what
``tests/unit/platforms/test_bedrock_prices.py`` lists.
"""

from __future__ import annotations

import re
from decimal import Decimal

from llm_cost_middleware.platform import GLOBAL, PROVISIONED, REGIONAL, Served

GEOGRAPHIES = (GLOBAL, "us", "eu", "apac", "jp", "au", "in", "us-gov")
"""What may stand before an id: the geography in which an inference profile keeps its calls."""
_ID = re.compile(
    rf"(?:(?P<geography>{'|'.join(GEOGRAPHIES)})\.)?(?P<maker>anthropic\.)?"
    r"(?P<model>claude-[a-z0-9.-]*?)(?:-v\d{1,3}(?::\d{1,3}k?){0,2})?(?:@(?P<date>20\d{6}))?"
)
_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]*):\d*:(?:inference-profile|foundation-model)/(?P<id>.+)"
)
"""ARNs that name what they stand for. Of application inference profiles, provisioned throughput and custom models only
a configuration says which model stands behind them."""
_REGION = re.compile(r"(?:us|eu|ap|ca|sa|me|af|il|mx|us-gov)-[a-z]+-\d")
DOMAINS = ("amazonaws.com", "api.aws", "amazonaws.com.cn")
_HOST = re.compile(r"//(?:[^/@]*@)?([^/:?#]+)")
_LONGEST = 256
_EARLIER = ("claude-3-", "claude-opus-4-1", "claude-opus-4-2", "claude-sonnet-4-2", "claude-instant", "claude-v")
_DEARER, _GOVERNMENT = Decimal("1.1"), Decimal("1.2")


def parse(name: str) -> Served | None:
    """What an id stands for, with or without a place before it; ``None`` for other makers and untelling ARNs."""
    if len(name) > _LONGEST:
        return None
    arn = _ARN.fullmatch(name)
    if arn is not None:
        found, place = _ID.fullmatch(arn["id"]), ""
    else:
        place, slash, bare = name.rpartition("/")
        found = _ID.fullmatch(bare)
        if slash and not (place in GEOGRAPHIES or place in (REGIONAL, PROVISIONED) or _REGION.fullmatch(place)):
            return None
    if found is None or not (arn is None or found["maker"]):
        return None
    model = f"{found['model']}-{found['date']}" if found["date"] else found["model"]
    # a profile's own geography says more than the region that it was sent to
    place = place if place == PROVISIONED else found["geography"] or place
    if not place and found["maker"]:
        place = (arn["region"] if arn is not None else "") or REGIONAL
    return Served("anthropic", model, place)


def factor(served: Served) -> Decimal:
    """What the place costs beside the provider's list prices; a region that nobody names may be one of GovCloud."""
    if served.place.startswith("us-gov") or served.place in ("", REGIONAL):
        return _GOVERNMENT
    return Decimal(1) if served.place == GLOBAL or is_before_4_5(served.model) else _DEARER


def is_before_4_5(model: str) -> bool:
    """Whether a model came before the price of regions, and the cache of an hour."""
    return model.startswith(_EARLIER)


def region_of(url: object, region: object) -> str:
    """The region that calls are sent to; empty where it is not known, or none that serves Claude.

    Args:
        url: The address, whose host may name one: then that is who answers, whatever is signed.
        region: What a client or a deployment is set to.
    """
    at = _HOST.search(str(url or ""))
    host = at[1].lower() if at is not None else ""
    found = [label for label in host.split(".") if _REGION.fullmatch(label)] if host.endswith(DOMAINS) else []
    named = found[-1] if found else region.lower() if isinstance(region, str) else ""
    return named if _REGION.fullmatch(named) else ""


def reached_from(region: str) -> tuple[str, ...]:
    """The places that a client of a region can call: itself, profiles of geographies; AWS says which take it.

    None, where the region is not known.
    """
    if not region:
        return ()
    government = geography(region) == "us-gov"
    profiles = (place for place in GEOGRAPHIES if (place == "us-gov") == government)
    return (region, *(() if government else ("", REGIONAL)), PROVISIONED, *profiles)


def geography(place: str) -> str:
    """The geography of a place; empty where it is not known, as of a region that nobody names.

    Two regions of ``eu-`` are outside the European Union: London and Zurich.
    """
    if place in GEOGRAPHIES:
        return place
    return next((there for start, there in _OF_REGIONS if place.startswith(start)), "")


def has_place(word: str) -> bool:
    """Whether a word is a geography, or has the form of a region's name."""
    return word in GEOGRAPHIES or _REGION.fullmatch(word) is not None


_OF_REGIONS = (
    ("us-gov-", "us-gov"), ("us-", "us"), ("ca-", "ca"), ("eu-west-2", "uk"), ("eu-central-2", "ch"), ("eu-", "eu"),
    ("ap-northeast-1", "jp"), ("ap-northeast-3", "jp"), ("ap-southeast-2", "au"), ("ap-southeast-4", "au"),
    ("ap-south-", "in"), ("ap-", "apac"),
)  # fmt: skip
ALL_GEOGRAPHIES = tuple(dict.fromkeys((*GEOGRAPHIES, *(there for _, there in _OF_REGIONS))))
"""Those of profiles, and those that regions lie in."""
