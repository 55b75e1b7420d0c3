"""A ledger in the memory of one process: a backend, and the budgets it keeps."""

from llm_cost_middleware.budget.backends.memory.backend import MemoryBackend
from llm_cost_middleware.budget.backends.memory.journal import KEEP, MemoryJournal

__all__ = ["KEEP", "MemoryBackend", "MemoryJournal"]
