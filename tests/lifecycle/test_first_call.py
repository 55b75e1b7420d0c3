"""The first call on an event loop leaves the loading of tables to a thread."""

import subprocess
import sys

PROGRAM = """
import asyncio, sys, threading
sys.path.insert(0, "tests/benchmarks")
from first_call import BODY, send
from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.providers import get_provider

heard = {}

class Hears:
    def find_spec(self, name, path=None, target=None):
        heard.setdefault(name, threading.current_thread() is threading.main_thread())

pipeline = CostPipeline(CostConfig())
request = get_provider("openai").read_request(BODY, "chat.completions")
sys.meta_path.insert(0, Hears())
asyncio.run(pipeline.arun(request, send, providers=frozenset({"anthropic", "openai"})))
assert "genai_prices" in heard, "the prices were loaded before: this shows nothing"
print(*sorted(name for name, in_loop in heard.items() if in_loop and name.partition(".")[0] in PACKAGES))
""".replace("PACKAGES", repr({"genai_prices", "pydantic", "llm_cost_middleware"}))


def test_no_table_is_loaded_on_the_event_loop():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []
