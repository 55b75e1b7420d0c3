"""How fast batches are worked off: set by tests."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPace:
    """How fast batches are worked off, and what becomes of them; plain data.

    Attributes:
        delay_s: Seconds, of the simulator's clock, until the last request is answered; 0: at once.
        stuck: The share of the requests, the last ones, that is never answered.
        failure: OpenAI alone: the code with which the next batches fail their validation.
    """

    delay_s: float = 0.0
    stuck: float = 0.0
    failure: str = ""
