"""Ledger of several machines, on Redis 6.2 or Valkey: a script per verb, a hash tag per tenant.

Durability is the server's. With ``appendonly yes`` and ``appendfsync always`` a verb that returned is on disk. With
``everysec`` a crash of the machine may lose the last second; without an append-only file, everything since the last
snapshot; a fail-over, what was not replicated yet. Set ``maxmemory-policy noeviction``: an evicted key is a lost debt.
"""

from llm_cost_middleware.budget.backends.redis.client import AsyncRedisBackend, RedisBackend

__all__ = ["AsyncRedisBackend", "RedisBackend"]
