"""Short governed calls, as many as asked, for a counter of instructions: the difference of two counts is the calls.

``valgrind --tool=callgrind python tests/benchmarks/short_call.py 60``, then 160: a hundredth of the difference is one
call. ``PYTHONPATH`` decides whose code is counted; run it once before, so that no count includes compiling.
"""

import gc
import sys

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult
from llm_cost_middleware.usage import TokenUsage

try:
    from llm_cost_middleware.usage import BilledItem, UsageReport
except ImportError:  # the tree that the first figures are of had them elsewhere
    from llm_cost_middleware.provider import BilledItem
    from llm_cost_middleware.provider import UsageReading as UsageReport

BODY = {"model": "smart", "messages": [{"role": "user", "content": "x" * 500}]}
USAGE = UsageReport(
    items=(BilledItem(TokenUsage(uncached_input=120, output=50)),), model="gpt-5-mini-2025-08-07",
    complete=True, response_id="chatcmpl-1", finish_reason="stop", service_tier="default",
)  # fmt: skip
RESULT = CallResult(object(), USAGE)

if __name__ == "__main__":
    pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "9000"}]))
    gc.collect()
    gc.disable()  # a collection looks at the whole process: one more or less among the calls would hide the rest
    for _ in range(int(sys.argv[1])):
        request = get_provider("openai").read_request(BODY, "chat.completions")
        pipeline.run(request, lambda _: RESULT, providers=frozenset({"anthropic", "openai"}))
