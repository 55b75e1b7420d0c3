"""One served request, from validated body to bill: the same for every endpoint, and no I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .answers import Answer, Responder, measure
from .bill import Bill, LineOutcome, OpenLine, Tokens
from .caching import CacheUse, PrefixStore
from .caching.automatic import plan_breakpoints, plan_steps
from .caching.explicit import plan as plan_marks
from .clock import SimClock
from .pace import BatchPace
from .prompts import seed
from .reading import Dialect, Ids, Reading, Reply
from .refusals import Refusal, default_refusal
from .responders import echo
from .tokens import tokenizer

_THOUGHT = "Let me think about what is being asked, and answer it."
_PURGE_ABOVE = 200_000


@dataclass(slots=True)
class ServedRequest:
    """Request that is being answered."""

    out: Reply
    entry: OpenLine
    plan: CacheUse

    def close(self, outcome: LineOutcome, produced: int | None = None) -> None:
        """Settle the line of the bill: all output was produced, or only so much."""
        self.entry.produced = self.out.tokens.output if produced is None else produced
        self.entry.outcome = outcome


class ServingEngine:
    """Reads, answers and bills. Owned by one event loop; `bill` may be read from anywhere."""

    def __init__(
        self,
        *,
        clock: SimClock,
        responder: Responder | None,
        worst_case_tokenizer: bool,
        seed: int,
        openai_vocabulary: Callable[[str], Sequence[int]] | None = None,
    ) -> None:
        self.clock = clock
        self.responder: Responder = responder or echo
        self.bill = Bill()
        self.ids = Ids(seed)
        self.pace = BatchPace()
        self.rules = {
            "anthropic": tokenizer("anthropic", worst_case=worst_case_tokenizer),
            "openai": tokenizer("openai", worst_case=worst_case_tokenizer, encode=openai_vocabulary),
        }
        self._store = PrefixStore()

    def read(self, dialect: Dialect, body: Any, headers: Mapping[str, str], index: int) -> Reading:
        """Validate a body.

        Raises:
            Refusal: The provider would refuse it; a body of the wrong shape is a plain 400.
        """
        if not isinstance(body, dict):
            raise default_refusal(dialect.provider, 400)
        # The checks assume the right shapes; any other shape is the plain 400 that the provider answers.
        try:
            return dialect.read(body, headers, self.rules[dialect.provider], index)
        except (AttributeError, KeyError, TypeError) as error:
            raise default_refusal(dialect.provider, 400) from error

    def begin(
        self,
        dialect: Dialect,
        reading: Reading,
        key: str,
        *,
        tier: str | None = None,
        billed: bool = True,
        at: float | None = None,
    ) -> ServedRequest:
        """Look into the cache, let the model answer, open the line of the bill.

        Args:
            dialect: The endpoint.
            reading: The validated request.
            key: The API key: caches are kept apart by it.
            tier: Replaces the tier of the request (``batch``).
            billed: False for a request that the provider does not charge for.
            at: When it is served; now, if ``None``.
        """
        if tier is not None:
            reading = replace(reading, tier=tier)
        # Read now, written by ``started``: as at the providers, two requests at once do not read each other's entries.
        now = self.clock.now() if at is None else at
        plan = self._plan(reading, key, now)
        request, model = reading.request, reading.model
        answer = self._answer(reading)
        measured = measure(answer, request, model, self.rules[model.provider])
        prompt = reading.prompt.tokens
        tokens = Tokens(
            input=prompt - plan.read - plan.write - plan.write_1h,
            read=plan.read,
            write=plan.write,
            write_1h=plan.write_1h,
            output=measured.output * request.n,
            reasoning=measured.reasoning * request.n,
            searches=answer.searches,
        )
        answer_id = self.ids.new(dialect.id_prefix, dialect.id_length)
        entry = OpenLine(answer_id, dialect.endpoint, model, tokens, reading.tier, reading.geo, request.stream, now)
        if billed:
            self.bill.open(entry)
        out = Reply(reading, measured.answer, tokens, answer_id, self.ids, now)
        return ServedRequest(out, entry, plan)

    def started(self, served: ServedRequest) -> None:
        """Return the answer begins: what it wrote to the cache can be read from now on."""
        self._store.commit(served.plan)

    def _answer(self, reading: Reading) -> Answer:
        if reading.request.max_tokens == 0:
            return Answer(stop="length", output_tokens=0)
        try:
            answer = self.responder(reading.request)
        except Refusal:
            raise
        except Exception as error:
            refusal = default_refusal(reading.model.provider, 500)
            refusal.body["error"]["message"] = f"the simulator's responder raised {error!r}"
            refusal.headers = {"x-should-retry": "false"}  # a bug in a test's responder must show at once
            raise refusal from error
        if reading.request.thinking and not answer.thinking:
            answer = replace(answer, thinking=_THOUGHT)
        return answer

    def _plan(self, reading: Reading, key: str, now: float) -> CacheUse:
        model, prompt = reading.model, reading.prompt
        if model.cache == "none":
            return CacheUse()
        chain = seed(model.provider, key, model.id, *reading.salt)
        if len(self._store) > _PURGE_ABOVE:
            self._store.purge(now)
        if model.cache == "marks":
            return plan_marks(self._store, chain, prompt.blocks, model.cache_min, now)
        if model.cache == "breakpoints":
            return plan_breakpoints(
                self._store, chain, prompt.blocks, now, explicit_only=reading.explicit_only, lifetime=reading.lifetime
            )
        rule = self.rules[model.provider]
        return plan_steps(self._store, chain, prompt.blocks, prompt.tokens, rule, now, retention=reading.lifetime)

    def forget_caches(self) -> None:
        """Empty the prompt caches."""
        self._store = PrefixStore()
