"""What a batch may hold, by provider, and how requests are divided into batches. Arithmetic only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import NamedTuple


class BatchLimits(NamedTuple):
    """The most that one batch may hold."""

    requests: int
    size: int
    """Bytes."""


LIMITS = MappingProxyType(
    {
        # "Batch processing", limitations: "100,000 Message requests or 256 MB in size, whichever is reached first"
        "anthropic": BatchLimits(100_000, 256_000_000),
        # types/batch_create_params.py: "up to 50,000 requests, and can be up to 200 MB in size"
        "openai": BatchLimits(50_000, 200_000_000),
    }
)
"""By provider. A megabyte is counted as a million bytes: never more than the provider allows."""
_PLACE = re.compile(r"(?:.*)-(\d+)")


def split(sizes: Sequence[int], limits: BatchLimits) -> Iterator[range]:
    """Divide requests into batches, in their order.

    Args:
        sizes: Bytes of each request as it is sent, what separates it from the next included.
        limits: The most that one batch may hold. A request that is larger alone gets a batch of its own: the provider
            says what is wrong with it.
    """
    first, size = 0, 0
    for at, more in enumerate(sizes):
        if at > first and (at - first >= limits.requests or size + more > limits.size):
            yield range(first, at)
            first, size = at, 0
        size += more
    if first < len(sizes):
        yield range(first, len(sizes))


def custom_id(key: str, place: int) -> str:
    """Name a request of a batch: letters, digits and hyphens, far below 64 of them, as both providers take it."""
    return f"{key}-{place}"


def place_of(name: str, key: str) -> int | None:
    """Return the place of a request by its name; ``None`` where it is of another batch."""
    found = _PLACE.fullmatch(name)
    return int(found[1]) if found is not None and name == custom_id(key, int(found[1])) else None


def ranges(places: Sequence[int]) -> str:
    """Write ascending places as text: ``0-99,103``."""
    parts: list[tuple[int, int]] = []
    for place in places:
        if parts and place == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], place)
        else:
            parts.append((place, place))
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


def read_ranges(text: str) -> tuple[int, ...]:
    """Return the places that a text of ``ranges`` names."""
    places: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        places.extend(range(int(first), int(last or first) + 1))
    return tuple(places)
