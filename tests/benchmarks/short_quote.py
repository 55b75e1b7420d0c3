"""Quotes of OpenAI's calls, as many as asked, for a counter of instructions: what finding the amount to hold costs.

``valgrind --tool=callgrind python tests/benchmarks/short_quote.py KIND COUNT`` with ``short``, ``long`` or ``tools``:
what a run counts beyond one of ``none 0``, divided by COUNT, is one quote. Every prompt is new; the vocabulary is
loaded; ``PYTHONPATH`` decides whose code is counted, run once before, so that no count includes compiling.
"""

import gc
import sys

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.pricing.tokenizer import warm_up
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef

WARM, MOST = 20, 100
TARGET = ModelRef("openai", "gpt-4o-mini")
SENTENCE = "The shipment left the harbour on Tuesday and nobody has heard of it since. "
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"look_up_{what}", "description": f"Looks up the {what} of a shipment.",
            "parameters": {
                "type": "object", "required": ["number"],
                "properties": {"number": {"type": "string", "description": f"Whose {what}"}},
            },
        },
    }
    for what in ("weight", "owner", "harbour", "price")
]  # fmt: skip
KINDS = {"short": (500, {}), "long": (4_000, {}), "tools": (500, {"tools": TOOLS})}


def calls(flow, size, more):
    for number in range(WARM + MOST):
        text = (f"Note {number:06}. " + SENTENCE * (size // len(SENTENCE) + 1))[:size]
        body = {"model": TARGET.model, "max_tokens": 100, "messages": [{"role": "user", "content": text}], **more}
        request = get_provider("openai").read_request(body, "chat.completions")._replace(model_pinned=True)
        yield flow.route(request, frozenset({"openai"}))


def quote(price, call):
    """As a call's first quote is made where its count is cheap."""
    exact = price.exact_count(call, TARGET, {})
    found = price.quote(call, TARGET, {exact.encoding: exact.make()})
    assert found.counted
    return found


if __name__ == "__main__":
    assert warm_up("o200k_base")
    flow = CostPipeline(CostConfig())._flow
    price = flow.stages.price
    ready = {kind: list(calls(flow, *asked)) for kind, asked in KINDS.items()}
    for made in ready.values():
        for call in made[:WARM]:
            quote(price, call)
    gc.collect()
    gc.disable()  # a collection looks at the whole process: one more or less among the quotes would hide the rest
    kind, count = sys.argv[1], int(sys.argv[2])
    assert count <= MOST
    for call in ready.get(kind, ())[WARM : WARM + count]:
        quote(price, call)
