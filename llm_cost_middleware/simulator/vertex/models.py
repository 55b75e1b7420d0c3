"""Model ids of Vertex and where they are served.

Rules, with their sources:

- An id is the model and, after ``@``, its date or ``default`` ("Claude on Vertex AI", "API model IDs"; LiteLLM's model
  map has the ``@default`` of the undated ones). The provider's own dated id, with a hyphen, is none.
- ``global``, the multi-regions ``us`` and ``eu``, or a region ("Global, multi-region and regional endpoints").
- From Claude Sonnet 4.5 on everything but ``global`` costs 10 % more (the same page; LiteLLM's
  ``regional_endpoint_uplift_multiplier``).
"""

import re
from typing import NamedTuple

from llm_cost_middleware.simulator.catalogue import SimModel, catalogue

from .errors import google_error

_PLACE = re.compile(r"global|us|eu|[a-z]+-[a-z]+\d+")
_DATED = re.compile(r"(?P<model>claude-[a-z0-9-]+?)(?:@(?P<version>default|\d{8}))?")
_ONE_PRICE = ("claude-3", "claude-opus-4-1", "claude-opus-4-2", "claude-sonnet-4-2")
"""How models begin that cost the same everywhere."""


class Served(NamedTuple):
    """What an id stands for."""

    model: SimModel
    geo: str
    """``regional`` where it is dearer than the list; empty otherwise."""


def find(name: str, place: str, project: str, *, listed: bool) -> Served:
    """Return the model behind an id at a place.

    Raises:
        Refusal: In Google's words; `listed`: inside a list, as around streams.
    """
    found = _DATED.fullmatch(name)
    version = found["version"] if found else None
    id_ = "" if found is None else found["model"] + (f"-{version}" if version and version != "default" else "")
    model = catalogue().get(id_)
    # The provider's dated id is no name here.
    hyphenated = found is not None and re.search(r"-20\d{6}$", found["model"]) is not None
    if model is None or model.provider != "anthropic" or hyphenated or not _PLACE.fullmatch(place):
        raise google_error(
            "NOT_FOUND",
            f"Publisher Model `projects/{project}/locations/{place}/publishers/anthropic/models/{name}` was not found "
            "or your project does not have access to it. Please ensure you are using a valid model version.",
            listed=listed,
        )
    dearer = place != "global" and not model.id.startswith(_ONE_PRICE)
    return Served(model, "regional" if dearer else "")
