"""The ledger of many machines, on Redis 6.2 or later or Valkey: one script a verb, one hash tag a tenant.

Durability is the server's: with ``appendonly yes`` and ``appendfsync always`` what returned is on disk; ``everysec``
may lose the last second before the machine crashes, no append-only file what came since the last snapshot, and
asynchronous fail-over what was not replicated. Set ``maxmemory-policy noeviction``: an evicted key is a forgotten debt.
"""

from llm_cost_middleware.budget.backends.redis.client import AsyncRedisBackend, RedisBackend

__all__ = ["AsyncRedisBackend", "RedisBackend"]
