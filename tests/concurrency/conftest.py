"""Storages that several processes can reach."""

from __future__ import annotations

import pytest
from redis_servers import RedisServer, server_binaries


@pytest.fixture(params=["sqlite", "postgres", *sorted(server_binaries())])
def shared_url(request, tmp_path):
    """The URL of an empty ledger: a SQLite file, a PostgreSQL database, and each Redis that is at hand."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres_url")
        return
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
        return
    with RedisServer(server_binaries()[request.param], tmp_path) as server:
        yield server.url


@pytest.fixture(params=sorted(server_binaries()))
def redis_binary(request):
    """Each Redis that is at hand."""
    return server_binaries()[request.param]
