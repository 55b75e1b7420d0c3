"""A memo stays unwritten in the storage that can write it, and is bytes for every other."""

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.backends.memory import MemoryBackend
from llm_cost_middleware.metering import decode_memo
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult
from llm_cost_middleware.system_clock import SystemClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BODY = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello"}]}
READING = UsageReport(items=(BilledItem(TokenUsage(uncached_input=7, output=3)),), complete=True, error=None)


class Watching(MemoryBackend):
    """Somebody's own, which looks at what it is handed."""

    def __init__(self, clock):
        super().__init__(clock)
        self.handed = []

    def reserve(self, id_, amount, scopes, ttl, memo, *, fresh):
        self.handed.append(memo)
        return super().reserve(id_, amount, scopes, ttl, memo, fresh=fresh)

    def resolve(self, verb, id_, amount, *, scopes=(), status, memo=b""):
        self.handed.append(memo)
        return super().resolve(verb, id_, amount, scopes=scopes, status=status, memo=memo)


def _rows(ledger):
    with CostPipeline(CostConfig(), ledger=ledger) as pipeline:
        request = get_provider("openai").read_request(BODY, "chat.completions")
        pipeline.run(request, lambda _: CallResult("said", READING), providers=frozenset({"openai"}))
        once, again = list(pipeline.ledger.rows()), list(pipeline.ledger.rows())
    assert once == again
    assert all(isinstance(row.memo, bytes) for row in once)
    return [(row.kind, decode_memo(row.memo).items) for row in once]


def test_a_backend_of_somebody_else_is_handed_bytes():
    backend = Watching(SystemClock())
    rows = _rows(backend)
    assert [isinstance(memo, bytes) for memo in backend.handed] == [True, True]
    assert rows == _rows(None)
    assert [kind for kind, _ in rows] == ["reserve", "settle"]
    assert rows[1][1][0].usage == READING.usage
