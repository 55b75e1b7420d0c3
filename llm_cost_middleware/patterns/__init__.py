"""Classic cost-aware pipeline, as functions, on top of the pipeline.

Route by size, check the tracker, call with a narrow retry and a cached system prompt, add a record to a frozen tracker.
Names and behaviour are those of the widely published pattern; what is below them is exact.
"""

from llm_cost_middleware.patterns.batch import BatchResult, aprocess_many, process_many
from llm_cost_middleware.patterns.classic import acall_with_retry, build_cached_messages, call_with_retry, select_model
from llm_cost_middleware.patterns.process import Result, aprocess, process

__all__ = [
    "BatchResult",
    "Result",
    "acall_with_retry",
    "aprocess",
    "aprocess_many",
    "build_cached_messages",
    "call_with_retry",
    "process",
    "process_many",
    "select_model",
]
