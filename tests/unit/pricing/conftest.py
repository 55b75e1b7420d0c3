"""One catalogue for the tests of pricing: loading the prices costs a second."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llm_cost_middleware.pricing.catalogue import Catalogue


@pytest.fixture(scope="session")
def catalogue():
    return Catalogue()


@pytest.fixture(scope="session")
def on():
    """Seconds since the epoch of a day at noon, UTC."""

    def moment(text):
        year, month, day = map(int, text.split("-"))
        return datetime(year, month, day, 12, tzinfo=UTC).timestamp()

    return moment
