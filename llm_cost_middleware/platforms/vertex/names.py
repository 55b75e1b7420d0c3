"""Names of Claude models on Vertex, and the places that serve them.

Sources: "Claude on Vertex AI" of Anthropic (model ids; global, multi-region and regional endpoints and their prices),
Google's list of locations of Vertex AI, the SDK's ``lib/vertex``.
"""

from __future__ import annotations

import re
from decimal import Decimal

from llm_cost_middleware.platform import GLOBAL, PROVISIONED, Served

_MODEL = re.compile(r"(?P<model>claude-[a-z0-9-]+?)(?:-v2)?(?:@(?P<version>default|latest|\d{8}))?")
"""``claude-haiku-4-5@20251001``, ``claude-opus-5@default``; ``-v2`` is the second edition of Sonnet 3.5, which its
provider tells apart by the date alone. The provider's own ``claude-haiku-4-5-20251001`` is what answers say."""
_DATED = re.compile(r"(?P<model>claude-[a-z0-9-]+?)-(?P<date>20\d{6})")
_EDITIONS = {"claude-3-5-sonnet-20241022": "claude-3-5-sonnet-v2@20241022"}
"""Which its provider tells apart by the date alone."""
_PLACE = re.compile(r"global|provisioned|us|eu|[a-z]+-[a-z]+\d+")
_REGIONAL = Decimal("1.1")
_ONE_PRICE = re.compile(r"claude-(?:[23v]|instant|(?:opus|sonnet)-4(?:-[01])?(?:-20\d{6})?$|4-(?:opus|sonnet))")
"""Models before Claude Sonnet 4.5, which cost the same everywhere."""
_OUTSIDE_EU = {"europe-west2": "uk", "europe-west6": "ch"}
_GEOGRAPHIES = (
    ("us-", "us"), ("europe-", "eu"), ("asia-", "apac"), ("australia-", "apac"), ("northamerica-northeast", "ca"),
    ("northamerica-south", "mx"), ("southamerica-", "sa"), ("me-", "me"), ("africa-", "africa"),
)  # fmt: skip


def parse(name: str) -> Served | None:
    """What a name stands for: ``eu/claude-haiku-4-5@20251001``, with or without its place; ``None`` where it is none.

    Models of other makers (Gemini, Llama) are none.
    """
    place, _, bare = name.lower().rpartition("/")
    found = _MODEL.fullmatch(bare)
    if found is None or (place and not _PLACE.fullmatch(place)):
        return None
    version = found["version"]
    dated = version is not None and version.isdigit()
    return Served("anthropic", f"{found['model']}-{version}" if dated else found["model"], place)


def wire_name(name: str) -> str:
    """A name as requests carry it: without a place, with its date after an ``@``; what is no name of a Claude, as is.

    ``eu/claude-haiku-4-5-20251001``: ``claude-haiku-4-5@20251001``.
    """
    bare = name.rpartition("/")[2]
    found = _DATED.fullmatch(bare)
    return bare if found is None else _EDITIONS.get(bare) or f"{found['model']}@{found['date']}"


def factor(served: Served) -> Decimal:
    """What a place costs beside the list: a tenth more for everything but ``global``, from Claude Sonnet 4.5 on."""
    if served.place in {GLOBAL, PROVISIONED} or _ONE_PRICE.match(served.model):
        return Decimal(1)
    return _REGIONAL


def geography(place: str) -> str:
    """The geography of a place. Two regions of ``europe-`` are outside the European Union: London and Zurich."""
    if place in {GLOBAL, "us", "eu"}:
        return place
    found = next((geo for prefix, geo in _GEOGRAPHIES if place.startswith(prefix)), "")
    return _OUTSIDE_EU.get(place, found)


def has_place(word: str) -> bool:
    """Whether a word is a geography that serves, or has the form of a location's name."""
    return _PLACE.fullmatch(word) is not None


GEOGRAPHIES = tuple(dict.fromkeys((GLOBAL, *(there for _, there in _GEOGRAPHIES), *_OUTSIDE_EU.values())))
