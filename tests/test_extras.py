"""Every public door without every optional package: a sentence with the command that installs it, or no difference.

A package is taken away in a process of its own, so that Python finds it as little as where it was never installed.
"""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import llm_cost_middleware
from llm_cost_middleware import extras
from llm_cost_middleware.extras import _DISTRIBUTION, EXTRA_OF, requirement_of

PACKAGE = Path(llm_cost_middleware.__file__).parent
PROJECT = PACKAGE.parent / "pyproject.toml"
OPTIONAL_AT_RUN_TIME = {"tiktoken", "tiktoken_ext"}  # without them bounds count bytes
WITHOUT = """
import importlib.machinery, json, sys, tempfile, traceback, warnings
warnings.simplefilter("ignore")
gone, doors = set(sys.argv[1].split(",")), json.loads(sys.argv[2])

class PathFinder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if {name, name.partition(".")[0]} & gone else super().find_spec(name, path, target)

sys.meta_path[:] = [one for one in sys.meta_path if one is not importlib.machinery.PathFinder]
sys.meta_path.append(PathFinder)
from llm_cost_middleware.errors import MissingExtraError
for door, code in doors.items():
    found = {"door": door, "error": None}
    try:
        exec(code, {"folder": tempfile.gettempdir()})
    except MissingExtraError as error:
        found |= {"error": "MissingExtraError", "extra": error.extra, "package": error.package, "text": str(error)}
    except BaseException as error:
        found |= {"error": type(error).__name__, "text": traceback.format_exc()}
    print("\\n@" + json.dumps(found))
"""
PIPELINE = "from llm_cost_middleware import CostConfig, CostPipeline; pipeline = CostPipeline(CostConfig())\n"
LANGCHAIN = "from llm_cost_middleware.integrations.langchain import"
LITELLM = "from llm_cost_middleware.integrations.litellm import"


def _names(module):
    tree = ast.parse((PACKAGE / module / "__init__.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    )
    return names


DOORS = {
    **{name: f"from llm_cost_middleware import {name}" for name in _names(".")},
    **{
        f"{module}.{name}": f"from llm_cost_middleware.{module.replace('/', '.')} import {name}"
        for module in (
            "integrations/langchain",
            "integrations/anthropic",
            "integrations/openai",
            "testing",
            "simulator",
        )
        for name in _names(module)
    },
    "CostPipeline()": PIPELINE + "pipeline.tracker",
    "price_response()": "from llm_cost_middleware import price_response\nprice_response('openai', "
    "{'object': 'chat.completion', 'model': 'gpt-5-mini', 'usage': {'prompt_tokens': 1, 'completion_tokens': 1}})",
    "CostMiddleware()": PIPELINE + f"{LANGCHAIN} CostMiddleware; CostMiddleware(pipeline)",
    "CostCallbackHandler()": PIPELINE + f"{LANGCHAIN} CostCallbackHandler; CostCallbackHandler(pipeline)",
    "redis://": "from llm_cost_middleware.budget.backends.redis.connections import connect\n"
    "connect('redis://127.0.0.1:1/0', asynchronous=False)",
    "redis://, asynchronous": "from llm_cost_middleware.budget.backends.redis.connections import connect\n"
    "connect('redis://127.0.0.1:1/0', asynchronous=True)",
    "OpenTelemetryObserver()": "from llm_cost_middleware.observers.otel import OpenTelemetryObserver\n"
    "OpenTelemetryObserver()",
    "metrics for Prometheus": "from llm_cost_middleware.observers.prometheus import check_installed\ncheck_installed()",
    "alerts by apprise": "from llm_cost_middleware.alerts.channels import open_channel\n"
    "open_channel('json://localhost')",
    "tune": "from llm_cost_middleware.routing.learning.fitting import design_of\ndesign_of([])",
    "tune, its regression": "from llm_cost_middleware.routing.learning.fitting import _ridge\n_ridge()",
    "labels of parquet": "from llm_cost_middleware.routing.learning.labels import _rows\nimport pathlib\n"
    "try: next(_rows(pathlib.Path('absent.parquet'), ()))\nexcept FileNotFoundError: pass",
    "progress": "from llm_cost_middleware.patterns.batch import progress_bar\nwith progress_bar(1, show=True): pass",
    "testing.fixtures": "import llm_cost_middleware.testing.fixtures",
    "Simulator()": "from llm_cost_middleware.simulator import Simulator\nwith Simulator(): pass",
}
ROUTER_DOORS = {
    **{f"litellm.{name}": f"{LITELLM} {name}" for name in _names("integrations/litellm")},
    "litellm.proxy": "import llm_cost_middleware.integrations.litellm.proxy",
}
"""Importing LiteLLM takes seconds, so these are tried without the packages that they and it stand on."""
OF_ROUTER = ("litellm", "openai", "aiohttp", "fastapi")


def _without(packages, doors):
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [sys.executable, "-c", WITHOUT, ",".join(packages), json.dumps(doors)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@")]
    assert [one["door"] for one in found] == list(doors), done.stderr
    return {one["door"]: one for one in found}


def _faults(found, packages):
    """The doors that failed otherwise than by a sentence about what was taken away."""
    return {
        door: one["text"]
        for door, one in found.items()
        if one["error"]
        and (one["error"] != "MissingExtraError" or one["package"] not in packages)
        and not (
            one["error"] == "ModuleNotFoundError"
            and "the simulator needs the package aiohttp: pip install" in one["text"]
        )
    }


HOSTS = {"anthropic", "langchain", "langchain_anthropic", "langchain_core", "langchain_openai", "openai"}
GROUPS = [*([package] for package in sorted(HOSTS)), sorted(EXTRA_OF.keys() - HOSTS - {"msgspec"})]
"""Hosts are taken away one by one; the others, which no door shares, all at once. Without msgspec there is no door."""


@pytest.mark.parametrize("packages", GROUPS, ids=lambda packages: packages[0] if len(packages) == 1 else "others")
def test_every_entry_point_opens_or_names_the_missing_package(packages):
    found = _without(packages, DOORS)
    assert not _faults(found, packages)
    for one in found.values():
        if one["error"] == "MissingExtraError":
            assert one["extra"] == EXTRA_OF[one["package"]]
            slim = any(EXTRA_OF[package] is None for package in packages)
            wanted = f"llm-cost-middleware[{one['extra']}]"
            if slim or not one["extra"]:  # an extra of this package would bring all that was left out
                assert "pip install 'llm-cost" not in one["text"]
                wanted = _DISTRIBUTION.get(one["package"], one["package"]).replace("_", "-").replace(".", "-")
            assert f"pip install '{wanted}" in one["text"]


@pytest.mark.skipif(not PROJECT.is_file(), reason="pyproject.toml stands in the source tree, which is not here")
def test_without_a_host_each_package_is_named_by_itself(monkeypatch):
    listed = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lines = [f"{line}; extra == '{extra}'" for extra, lines in listed.items() for line in lines]
    monkeypatch.setattr(extras, "requires", lambda _: lines)
    for there in (True, False):
        spec = ModuleSpec("litellm", None) if there else None
        monkeypatch.setattr(extras, "find_spec", lambda name, spec=spec: spec if name == "litellm" else True)
        for package, extra in EXTRA_OF.items():
            named = requirement_of(package, extra)
            if extra and there:
                assert named == f"llm-cost-middleware[{extra}]"
            elif extra:
                assert named in listed[extra], "as the extra has it, its versions included"


@pytest.mark.litellm
@pytest.mark.parametrize("package", OF_ROUTER)
def test_every_entry_point_of_litellm_opens_or_names_the_missing_package(package):
    found = _without([package], ROUTER_DOORS)
    assert not _faults(found, [package])
    if package == "litellm":
        assert all(one["error"] for door, one in found.items() if door not in CONFIGURING), found


CONFIGURING = ("litellm.proxy_config", "litellm.router_config")  # they write text and arguments, and need no LiteLLM


@pytest.mark.parametrize(
    ("package", "door"),
    [
        ("langchain", "CostMiddleware()"),
        ("langchain_core", "integrations/langchain.guard"),
        ("redis", "redis://"),
        ("redis", "redis://, asynchronous"),
        ("opentelemetry", "OpenTelemetryObserver()"),
        ("apprise", "alerts by apprise"),
        ("prometheus_client", "metrics for Prometheus"),
        ("opentelemetry.exporter", "metrics for Prometheus"),
        ("opentelemetry.exporter.prometheus", "metrics for Prometheus"),
        ("opentelemetry.sdk", "metrics for Prometheus"),
        ("numpy", "tune"),
        ("sklearn", "tune, its regression"),
        ("pyarrow", "labels of parquet"),
        ("rich", "progress"),
        ("genai_prices", "price_response()"),
        ("pytest", "testing.LedgerBackendTests"),
        ("pytest", "testing.fixtures"),
        ("hypothesis", "testing.ledger_state_machine"),
    ],
)
def test_an_entry_point_that_needs_a_package_fails_without_it(package, door):
    assert _without([package], {door: DOORS[door]})[door]["error"] == "MissingExtraError"


def test_the_demo_names_the_extra_that_is_enough_for_it():
    code = (
        "from llm_cost_middleware import CostConfig, CostPipeline\n"
        "from llm_cost_middleware.cli.demo.hosts import chain_host\nchain_host(CostPipeline(CostConfig()), [])"
    )
    found = _without(["langchain_anthropic"], {"demo": code})["demo"]
    assert (found["error"], found["extra"]) == ("MissingExtraError", "demo"), found
    found = _without(["genai_prices"], {"demo": "from llm_cost_middleware.extras import needed_for\n"
                     "with needed_for('x', extra='demo'): import genai_prices"})["demo"]  # fmt: skip
    assert found["extra"] is None, "every installation has it"


OPEN = "from llm_cost_middleware import CostPipeline, Ledger\n"


@pytest.mark.parametrize(
    ("package", "extra", "url"),
    [("redis", "redis", "redis://127.0.0.1:1/0"), ("psycopg", "postgres", "postgresql://127.0.0.1:1/x")],
)
def test_a_ledger_on_a_server_names_its_extra_by_every_door(package, extra, url):
    tried = {
        "pipeline": f"{OPEN}CostPipeline({{'ledger': '{url}'}}).ledger.balance('global')",
        "ledger": f"{OPEN}Ledger.open('{url}')",
        "command": "from typer.testing import CliRunner\nfrom llm_cost_middleware.cli.app import app\n"
        f"CliRunner().invoke(app, ['budgets', '--ledger', '{url}'], catch_exceptions=False)",
    }
    for one in _without([package], tried).values():
        assert (one["error"], one.get("extra")) == ("MissingExtraError", extra), one
        assert f"pip install 'llm-cost-middleware[{extra}]'" in one["text"]


def test_the_demo_without_its_simulator_ends_with_one_line():
    code = WITHOUT.partition("from llm_cost_middleware.errors")[0]
    code += "sys.argv = ['llm-cost', 'demo']\nfrom llm_cost_middleware.cli import main; main()"
    command = [sys.executable, "-c", code, "aiohttp", "{}"]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wanted = "llm-cost: llm-cost demo needs the package aiohttp: pip install 'llm-cost-middleware[demo]'\n"
    assert (done.returncode, done.stderr) == (2, wanted)


def test_nothing_is_missing_where_nothing_is_taken_away():
    assert not {door: one["text"] for door, one in _without([], DOORS).items() if one["error"]}


def test_every_name_of_the_package_names_the_structures_that_are_missing():
    names = {name: f"from llm_cost_middleware import {name}" for name in ("Budget", "Ledger", "price_response")}
    for one in _without(["msgspec"], names).values():
        assert (one["error"], one["package"]) == ("MissingExtraError", "msgspec"), one


@pytest.mark.parametrize("gone", ["typer,rich", "msgspec"])
def test_the_command_line_without_its_packages_ends_with_one_line(gone):
    code = WITHOUT.partition("from llm_cost_middleware.errors")[0] + "from llm_cost_middleware.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    code = code.replace("; main()", "; sys.argv[1:] = ['report']; main()")
    command = [sys.executable, "-c", code, gone, "{}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"llm-cost: .*pip install '(rich|typer|msgspec)[^']*'\n", done.stderr), done.stderr


def test_every_package_that_is_imported_has_an_extra_or_belongs_to_every_installation():
    """A new import fails here until ``EXTRA_OF`` says which extra brings it."""
    own = {*sys.stdlib_module_names, PACKAGE.name}
    imported = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body.clear()
        for node in ast.walk(tree):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            imported |= {root: path for name in names if (root := name.partition(".")[0]) not in own}
    assert imported.keys() - EXTRA_OF.keys() - OPTIONAL_AT_RUN_TIME == set()


@pytest.mark.skipif(not PROJECT.is_file(), reason="pyproject.toml stands in the source tree, which is not here")
def test_the_extra_that_is_named_exists_and_brings_the_package():
    packaging = pytest.importorskip("packaging.requirements", reason="needs the test extra: packaging")
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    brought_by = importlib.metadata.packages_distributions()

    def brings(lines, seen):
        for requirement in map(packaging.Requirement, lines):
            name = requirement.name.lower().replace("_", "-")
            if name == project["name"]:
                for extra in requirement.extras:
                    brings(project["optional-dependencies"][extra], seen)
            elif not seen >= {(name, extra) for extra in (*requirement.extras, "")}:
                seen |= {(name, extra) for extra in (*requirement.extras, "")}
                try:
                    needs = map(packaging.Requirement, importlib.metadata.requires(name) or ())
                except importlib.metadata.PackageNotFoundError:
                    continue  # named, but not installed here
                brings([str(one) for one in needs if _applies(one, requirement.extras)], seen)
        return {name for name, _ in seen}

    def _applies(requirement, extras):
        return not requirement.marker or any(requirement.marker.evaluate({"extra": one}) for one in (*extras, ""))

    for package, extra in EXTRA_OF.items():
        lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
        if package not in brought_by:
            continue  # its extra is not installed here, so nobody can say which distribution it is in
        distributions = {name.lower().replace("_", "-") for name in brought_by[package]}
        assert brings(lines, set()) & distributions, (package, extra)


def test_a_client_of_bedrock_that_cannot_sign_says_so_when_it_is_wrapped():
    wrap = (
        PIPELINE + "from anthropic import AnthropicBedrock\n"
        "from llm_cost_middleware.integrations.anthropic import wrap_anthropic\n"
        "wrap_anthropic(AnthropicBedrock(aws_region='us-east-1', aws_access_key='k', aws_secret_key='s'), pipeline)"
    )
    (found,) = _without(["botocore", "boto3"], {"wrap": wrap}).values()
    assert (found["error"], found["extra"], found["package"]) == ("MissingExtraError", "aws", "botocore")
    assert found["text"].endswith("AnthropicBedrock needs the package botocore: pip install 'llm-cost-middleware[aws]'")


def test_a_dataframe_without_a_host_names_pandas_by_itself():
    code = (
        "from llm_cost_middleware.reports import exports\nexports.dataframe(type('R', (), {'columns': (), 'rows': (), "
    )
    code += "'total': type('T', (), {'measures': dict})()})())"
    gone = ["pandas", "polars", "litellm"]
    (found,) = _without(gone, {"frame": code}).values()
    assert found["error"] == "MissingExtraError", found
    assert "pip install 'pandas" in found["text"]
