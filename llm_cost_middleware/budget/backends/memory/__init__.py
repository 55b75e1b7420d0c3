"""A ledger in the memory of one process: a backend, and the budgets it keeps."""

from llm_cost_middleware.budget.backends.memory.backend import KEEP, MemoryBackend, MemoryJournal

__all__ = ["KEEP", "MemoryBackend", "MemoryJournal"]
