"""Where Azure serves a model: the types of deployments, the zones and regions, and what they cost beside OpenAI's list.

Sources: azure.microsoft.com, pricing of Azure OpenAI (global standard at OpenAI's prices, data zones and regions a
tenth more), and LiteLLM 1.108.7's map, which has it model by model (``azure/eu/…``, ``azure/us/…``): since GPT-6 zones
outside the United States cost a fifth more, and Azure Government three eighths.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from llm_cost_middleware.platform import GLOBAL, PROVISIONED, Served

_TYPES = {"global-standard": GLOBAL, "globalstandard": GLOBAL, "us-gov": "us-gov"}
_REGIONS: Mapping[str, tuple[str, ...]] = {
    "us": (
        "centralus", "eastus", "eastus2", "northcentralus", "southcentralus", "westcentralus", "westus", "westus2",
        "westus3",
    ),
    "eu": (
        "austriaeast", "belgiumcentral", "denmarkeast", "francecentral", "francesouth", "germanynorth",
        "germanywestcentral", "italynorth", "northeurope", "polandcentral", "spaincentral", "swedencentral",
        "swedensouth", "westeurope",
    ),
    "apac": (
        "australiacentral", "australiaeast", "australiasoutheast", "eastasia", "indonesiacentral", "japaneast",
        "japanwest", "koreacentral", "koreasouth", "malaysiawest", "newzealandnorth", "southeastasia",
    ),
    "ca": ("canadacentral", "canadaeast"),
    "ch": ("switzerlandnorth", "switzerlandwest"),
    "uk": ("uksouth", "ukwest"),
    "no": ("norwayeast", "norwaywest"),
    "in": ("centralindia", "southindia", "westindia"),
    "ae": ("uaecentral", "uaenorth"),
    "br": ("brazilsouth", "brazilsoutheast"),
    "za": ("southafricanorth", "southafricawest"),
    "us-gov": ("usgovarizona", "usgovvirginia"),
}  # fmt: skip
"""Azure's regions by the geography that they are in; ``eu`` are members of the European Union."""
_GEOGRAPHY = {region: geography for geography, regions in _REGIONS.items() for region in regions}
PLACES = (*_REGIONS, *_GEOGRAPHY)
"""All but the types of deployments."""
_LIST, _ZONE, _ZONE_ABROAD, _GOVERNMENT = Decimal(1), Decimal("1.1"), Decimal("1.2"), Decimal("1.375")

_IN_GOVERNMENT = ("gpt-4o", "gpt-4.1", "gpt-5.1", "o3-mini", "text-embedding-3-")
"""What Azure Government serves (learn.microsoft.com, "Azure OpenAI in Azure Government"; LiteLLM's ``azure/us-gov/…``):
of these it is the dearest place, so that one of them whose place is not known may cost that."""


def as_place(text: str) -> str | None:
    """Return the place that a word names, as targets write it; ``None`` where it names none."""
    word = text.lower()
    place = _TYPES.get(word, word)
    return place if place in {GLOBAL, PROVISIONED} or place in _REGIONS or place in _GEOGRAPHY else None


def has_place(word: str) -> bool:
    """Whether a word is a geography or a region."""
    return as_place(word) is not None


def geography(place: str) -> str:
    """Return the geography of a place; a zone is its own."""
    return _GEOGRAPHY.get(place, place if place in _REGIONS else "")


def factor(served: Served) -> Decimal:
    """Return what a model costs at a place beside OpenAI's list price; at one that is not known, the most."""
    if served.place == GLOBAL:
        # of embeddings LiteLLM has a tenth more at every place, and genai-prices not: the dearer side is taken
        return _ZONE if served.model.startswith("text-embedding-") else _LIST
    zone = geography(served.place)
    if zone == "us-gov" or (not served.place and served.model.startswith(_IN_GOVERNMENT)):
        return _GOVERNMENT
    return _ZONE_ABROAD if served.model.startswith("gpt-6") and zone != "us" else _ZONE


GEOGRAPHIES = (GLOBAL, *_REGIONS)
