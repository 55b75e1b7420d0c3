"""Ledger of a fleet, on PostgreSQL 14 or newer: a function per verb, all tenants in the schema ``llm_cost``.

Durability is the server's: with ``synchronous_commit`` as it is by default, a verb that returned is on disk. Works
through PgBouncer in transaction mode: nothing is kept in a session.
"""

from llm_cost_middleware.budget.backends.postgres.client import AsyncPostgresBackend, PostgresBackend

__all__ = ["AsyncPostgresBackend", "PostgresBackend"]
