"""Rules of ``/v1/messages/count_tokens``: free, an estimate, and with a rate limit of its own for each key.

platform.claude.com, "Token counting": it costs nothing; its requests per minute (100, 2,000, 4,000 or 8,000 by usage
tier) are counted apart from those of messages; "the token count should be considered an estimate" that may differ by a
small amount. "Rate limits": a bucket that fills continuously, and may be enforced over shorter times than a minute.
"""

import time
from collections.abc import Callable

from llm_cost_middleware.simulator.refusals import anthropic_error

_BURST_S = 5


class CountingRules:
    """State of the endpoint.

    Args:
        rpm: Counts a minute for each key.
        permille: Makes the answer, in thousandths of the exact count, from the number of the request.
        now: Seconds that never go back.
        offered: False for a gateway without the endpoint.
    """

    def __init__(
        self,
        *,
        rpm: int = 4_000,
        permille: Callable[[int], int] | None = None,
        now: Callable[[], float] = time.monotonic,
        offered: bool = True,
    ) -> None:
        self.rpm, self.permille, self._now, self.offered = rpm, permille, now, offered
        self.served = 0
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> None:
        """Let one request pass.

        Raises:
            Refusal: 429 where the key has asked too often; 404 where the endpoint is not offered.
        """
        if not self.offered:
            raise anthropic_error(404, "Not found")
        now, room = self._now(), max(self.rpm * _BURST_S / 60, 1.0)
        left, at = self._buckets.get(key, (room, now))
        left = min(left + (now - at) * self.rpm / 60, room)
        if left < 1:
            self._buckets[key] = left, now
            raise anthropic_error(
                429, f"This request would exceed your organization's rate limit of {self.rpm} token counts per minute."
            )
        self._buckets[key] = left - 1, now
        self.served += 1

    def told(self, tokens: int) -> int:
        """The count that is answered."""
        return tokens if self.permille is None else tokens * self.permille(self.served) // 1_000
