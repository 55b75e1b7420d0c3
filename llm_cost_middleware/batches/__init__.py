"""Batches as a lane: many requests that can wait, at half price, held, durable and collected by whichever process."""

from llm_cost_middleware.batches.errors import BatchItemError, BatchPendingError
from llm_cost_middleware.batches.results import BatchAnswers, BatchProgress, Collected

__all__ = ["BatchAnswers", "BatchItemError", "BatchPendingError", "BatchProgress", "Collected"]
