"""The public surface is a list, and importing it is cheap."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import fresh_imports
import pytest

import llm_cost_middleware

PUBLIC = sorted(llm_cost_middleware.__all__)
HEAVY = [
    "aiohttp", "anthropic", "genai_prices", "httpx", "langchain", "langchain_core", "litellm", "numpy", "openai",
    "opentelemetry", "pydantic", "redis", "rich", "sqlite3", "tiktoken", "typer",
]  # fmt: skip


def test_all_is_sorted_and_small():
    assert llm_cost_middleware.__all__ == PUBLIC
    assert len(PUBLIC) <= 45


def test_every_name_resolves_and_has_a_docstring():
    for name in PUBLIC:
        value = getattr(llm_cost_middleware, name)
        assert value.__doc__, name
        assert value.__name__ == name


def test_star_import_gives_exactly_the_list():
    names: dict[str, object] = {}
    exec("from llm_cost_middleware import *", names)  # noqa: S102 - the statement under test
    assert set(PUBLIC) <= set(names)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        llm_cost_middleware.nonsense  # noqa: B018 - the access under test


def _import_in_a_fresh_process(statement: str, of: str = "") -> dict:
    code = f"""
import json, sys, time
before = set(sys.modules)
start = time.process_time()
{statement}
took = time.process_time() - start
new = set(sys.modules) - before
print(json.dumps({{
    "ms": took * 1e3, "loaded": sorted({{m.partition(".")[0] for m in new}}),
    "of": sorted(m for m in new if m.partition(".")[0] == {of!r}),
}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_importing_the_package_loads_no_host_no_sdk_and_no_driver():
    told = _import_in_a_fresh_process("import llm_cost_middleware")
    assert set(told["loaded"]).isdisjoint(HEAVY)
    print(f"import llm_cost_middleware: {told['ms']:.1f} ms CPU")


def test_naming_the_pipeline_loads_nothing_that_making_one_needs():
    told = _import_in_a_fresh_process("from llm_cost_middleware import CostPipeline", of="llm_cost_middleware")
    rooms = {name.split(".")[1] for name in told["of"] if "." in name}
    assert rooms == {"errors", "foresight", "fork", "pipeline"}
    assert "llm_cost_middleware.pipeline.parts" not in told["of"]


def test_what_hosts_take_as_a_pipeline_can_be_asked_for():
    from llm_cost_middleware import pipeline
    from llm_cost_middleware.integrations.openai import wrap_openai

    assert set(get_args(pipeline.PipelineSource)) >= {llm_cost_middleware.CostPipeline, llm_cost_middleware.CostConfig}
    assert llm_cost_middleware.CostPipeline in get_args(get_type_hints(wrap_openai)["pipeline"])
    with pytest.raises(AttributeError, match="nonsense"):
        pipeline.nonsense  # noqa: B018 - the access under test


def _hints_that_cannot_be_read() -> list[str]:
    unread = []
    for name, found in inspect.getmembers(llm_cost_middleware.CostPipeline):
        verb = found.fget if isinstance(found, property) else found
        if callable(verb) and hasattr(verb, "__annotations__") and (not name.startswith("_") or name == "__init__"):
            try:
                assert get_type_hints(verb).keys() == verb.__annotations__.keys()
                inspect.signature(verb, eval_str=True)
            except NameError as error:
                unread.append(f"{name}: {error}")
    return unread


def test_type_hints_of_the_pipeline_and_of_all_its_verbs_can_be_read():
    assert not _hints_that_cannot_be_read()
    assert get_type_hints(llm_cost_middleware.CostPipeline)["config"] is llm_cost_middleware.CostConfig
    with llm_cost_middleware.CostPipeline({}) as pipeline:
        assert not _hints_that_cannot_be_read()
        assert get_type_hints(pipeline.records)["return"] == tuple[llm_cost_middleware.CostRecord, ...]


def test_type_hints_can_be_read_before_there_is_a_pipeline():
    told = _import_in_a_fresh_process(
        "import inspect; from llm_cost_middleware import CostPipeline as P; s = inspect.signature(P, eval_str=True); "
        "assert len(s.parameters) == 6 and 'ledger' in s.parameters; assert not isinstance("
        "s.parameters['config'].annotation, str)",
        of="llm_cost_middleware",
    )
    assert "llm_cost_middleware.pipeline.parts" not in told["of"]


def test_each_type_that_the_pipeline_names_is_where_it_is_said_to_be():
    from llm_cost_middleware.pipeline import named

    assert all(getattr(named, name) is not None for name in named.__all__)
    assert set(named.__all__) == named._HOME.keys()
    with pytest.raises(AttributeError, match="nonsense"):
        named.nonsense  # noqa: B018 - the access under test


def test_naming_the_pipeline_takes_hardly_longer_than_the_standard_library(tmp_path):
    env = fresh_imports.environment(Path(llm_cost_middleware.__file__).parents[1], str(tmp_path))
    standard, pipeline = "import json, asyncio, sqlite3", "from llm_cost_middleware import CostPipeline"
    for statement in (standard, pipeline):
        fresh_imports.least(statement, env, runs=1)  # compiles
    assert fresh_imports.least(pipeline, env, runs=3)[0] < 2 * fresh_imports.least(standard, env, runs=3)[0]


def test_a_pipeline_on_memory_loads_no_host_no_sdk_and_no_driver():
    told = _import_in_a_fresh_process("import llm_cost_middleware as m; m.CostPipeline(); m.CostTracker(); m.process")
    assert not set(told["loaded"]) & set(HEAVY)
