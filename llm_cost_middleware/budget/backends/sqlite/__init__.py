"""Ledger of one machine: a SQLite file in WAL mode for several processes, with a fair queue before its write lock."""

from llm_cost_middleware.budget.backends.sqlite.backend import SQLiteBackend

__all__ = ["SQLiteBackend"]
