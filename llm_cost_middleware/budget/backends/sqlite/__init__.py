"""The ledger of one machine: a SQLite file in WAL mode, several processes, a fair queue in front of its write lock."""

from llm_cost_middleware.budget.backends.sqlite.backend import SQLiteBackend

__all__ = ["SQLiteBackend"]
