"""What a batch can end in beside answers."""

from __future__ import annotations

from llm_cost_middleware.errors import LLMCostError


class BatchPendingError(LLMCostError, TimeoutError):
    """A batch was not answered within the timeout. Nothing is lost: it goes on, and so does its hold."""

    def __init__(self, batch_id: str, pending: int, total: int) -> None:
        self.batch_id = batch_id
        """The id under which the ledger knows it, in every process."""
        self.pending, self.total = pending, total
        super().__init__(
            f"{pending} of {total} requests of batch {batch_id} are not answered yet. It goes on: collect it with "
            f"pipeline.collect_batch({batch_id!r}, client=...), or with `llm-cost batches collect {batch_id}`"
        )


class BatchItemError(LLMCostError):
    """One request of a batch that has no answer. Nothing is billed for it, unless its results are ``archived``."""

    def __init__(self, reason: str, detail: str = "", *, transient: bool = False) -> None:
        self._transient = transient or reason not in {"errored", "archived"}
        self.reason = reason
        """``errored``, ``expired``, ``canceled``, ``failed`` (the whole batch was refused), ``unsent``, or
        ``archived`` (it may have been answered, and the provider does not keep the results any more)."""
        self.detail = detail
        """The provider's own words, where there are any."""
        super().__init__(f"the request was not answered: {reason}" + (f" ({detail})" if detail else ""))

    @property
    def may_be_sent_again(self) -> bool:
        """Whether the same request may be answered another time: it had no turn, or the provider failed."""
        return self._transient
