"""``llm-cost doctor`` tries what it reports."""

import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import llm_cost_middleware
from llm_cost_middleware import Budget, Ledger
from llm_cost_middleware.cli.doctor import _PACKAGES, _configuration, _packages
from llm_cost_middleware.cli.doors import DOORS

ROOT = str(Path(llm_cost_middleware.__file__).parents[1])
RUN = "import sys; sys.argv = ['llm-cost', 'doctor', '--strict']; from llm_cost_middleware.cli import main; main()"


def doctor(folder, *path):
    """Its rows by what they are about, from a process of its own."""
    environment = os.environ | {"COLUMNS": "400", "PYTHONPATH": os.pathsep.join((*map(str, path), ROOT))}
    environment.pop("LLM_COST_CONFIG", None)
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    cells = [re.split(r"  +", line, maxsplit=2) for line in done.stdout.splitlines()[2:]]
    return [tuple(row) for row in cells], done.returncode


def finding(rows, what):
    return [(state, text) for state, name, text in rows if name == what][-1]  # a provider's key has a row before


def test_a_package_whose_door_does_not_open_is_a_no_with_its_reason(tmp_path):
    stub = tmp_path / "stub"
    (stub / "litellm").mkdir(parents=True)
    (stub / "litellm" / "__init__.py").write_text("raise TypeError('Router cannot be subclassed')")
    (stub / "redis.py").write_text("import os; os._exit(7)")
    rows, code = doctor(tmp_path, stub)
    state, text = finding(rows, "litellm")
    assert (state, code) == ("no", 1)
    assert text.endswith("no CostAwareRouter: TypeError: Router cannot be subclassed")
    state, text = finding(rows, "redis")
    assert state == "no"
    assert "ended with status 7" in text
    for whole in ("openai", "anthropic", "langchain", "langchain-openai"):
        assert finding(rows, whole)[0] == "ok", rows


def test_the_configured_ledger_is_opened_and_never_made(tmp_path):
    from llm_cost_middleware.cli.doctor import _ledger
    from llm_cost_middleware.config import CostConfig

    def told(url):
        path = tmp_path / "llm-cost.toml"
        path.write_text(f'[ledger]\nurl = "{url}"\n')
        ((state, _, text),) = _ledger(path, None, CostConfig.from_toml(path, env={}))
        return state, text

    file = tmp_path / "ledger.db"
    assert told(f"sqlite:///{file}") == ("ok", f"sqlite:///{file}: made by the first call")
    assert not file.exists()
    file.write_text("no database, and longer than the header of one" * 10)
    assert told(f"sqlite:///{file}")[0] == "no"
    assert told(f"sqlite:///{tmp_path}/absent/ledger.db")[0] == "no"
    file.unlink()
    Ledger.open(f"sqlite:///{file}").close()
    assert told(f"sqlite:///{file}") == ("ok", f"sqlite:///{file}: opens")


def write(folder, text):
    folder.joinpath("llm-cost.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def configured(folder, monkeypatch, **env):
    """The rows about the configuration alone: importing the hosts takes seconds and is another test's matter."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return [(re.sub(r"\[.*?\]", "", state), what, text) for state, what, text in _configuration(None, None)]


SECRET = '[ledger]\nurl = "redis://u:s3cret@127.0.0.1:1/0"\n'


def test_a_host_that_writes_to_standard_output_past_python_spoils_nothing_and_no_row_has_the_password(tmp_path):
    stub = tmp_path / "stub"
    (stub / "anthropic").mkdir(parents=True)
    (stub / "anthropic" / "__init__.py").write_text(
        "import os\nos.write(1, b'loading\\n[\"redis\", \"spoilt\"]\\n')\nraise ImportError('half of it')"
    )
    rows, _ = doctor(write(tmp_path, SECRET), stub)
    assert finding(rows, "anthropic")[0] == "no"
    assert finding(rows, "anthropic")[1].endswith("no wrap_anthropic: ImportError: half of it")
    assert finding(rows, "openai")[0] == finding(rows, "redis")[0] == "ok"
    assert finding(rows, "configuration") == ("ok", "mode enforce, ledger redis://127.0.0.1:1/0")
    assert finding(rows, "ledger")[0] == "no"
    assert not any("s3cret" in text for row in rows for text in row)
    for package in ("langchain-litellm", "opentelemetry-api", "scikit-learn", "pyarrow"):
        assert finding(rows, package)[0] == "ok", rows
    assert finding(rows, "fastapi")[0] in {"ok", "look"}  # the extra proxy is not in every environment


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mode = ", "llm-cost.toml is not TOML"),
        ("buget = []", "did you mean 'budgets'?"),
        (b"mode = '\xff'", "it is not UTF-8"),
        ('[[budgets]]\nscope = "global"\nlimit = "five dollars"\n', "budgets[0].limit: 'five dollars'"),
        ('[[budgets]]\nscope = "global"\nlimit = -5\n', "budgets[0].limit: -5"),
        ('[[budgets]]\nscope = "global"\nlimit = "1,50"\n', "budgets[0].limit: '1,50'"),
        ('[[budgets]]\nscope = "globl"\nlimit = 5\n', "budgets[0].scope: 'globl'"),
    ],
)
def test_a_configuration_that_is_broken_is_a_no_and_nothing_is_reported_of_the_defaults(
    text, told, tmp_path, monkeypatch
):
    ((state, what, finding),) = configured(write(tmp_path, text), monkeypatch)
    assert (state, what) == ("no", "configuration")
    assert told in finding.replace("\\[", "[")
    assert "were not looked at" in finding


def test_a_configuration_that_is_not_there_is_a_look_and_the_defaults_are_named_as_such(tmp_path, monkeypatch):
    (state, what, text), *rest = configured(tmp_path, monkeypatch)
    assert (state, what) == ("look", "configuration")
    assert "Below stands what the defaults give" in text
    assert rest


def test_a_folder_or_a_missing_file_in_the_environment_is_a_no(tmp_path, monkeypatch):
    ((state, _, text),) = configured(tmp_path, monkeypatch, LLM_COST_CONFIG=str(tmp_path))
    assert state == "no"
    assert "it is a folder" in text
    ((state, _, text),) = configured(tmp_path, monkeypatch, LLM_COST_CONFIG="absent.toml")
    assert state == "no"
    assert "absent.toml does not exist" in text


@pytest.mark.parametrize(
    "url", ["mysql://u:s3cret@x/db", "memory", "memory://a?b=1", "sqlite:///absent.db?a=1", "x.dat"]
)
def test_a_ledger_of_a_url_that_is_not_supported_is_a_no(url, tmp_path, monkeypatch):
    rows = configured(write(tmp_path, f'[ledger]\nurl = "{url}"\n'), monkeypatch)
    ((state, _, text),) = (row for row in rows if row[1] == "ledger")
    assert state == "no"
    assert text.startswith("ledger.url: ")
    assert not any("s3cret" in part for row in rows for part in row)


def test_a_price_of_ones_own_that_is_wrong_is_a_no(tmp_path, monkeypatch):
    rows = configured(write(tmp_path, '[prices."openai/x"]\ninput = "cheap"\n'), monkeypatch)
    assert [state for state, what, _ in rows if what == "configuration"] == ["no"]


def test_an_environment_without_genai_prices_is_reported(tmp_path):
    # A process of its own: what is taken away there is taken away as where it was never installed.
    code = """
import importlib.metadata as metadata, sys
found = metadata.Distribution.from_name.__func__
def from_name(cls, name):
    if name == "genai-prices": raise metadata.PackageNotFoundError(name)
    return found(cls, name)
metadata.Distribution.from_name = classmethod(from_name)
class Gone:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "genai_prices": raise ModuleNotFoundError(name, name="genai_prices")
sys.meta_path.insert(0, Gone)
from llm_cost_middleware.cli.doctor import _money
from llm_cost_middleware.config import CostConfig
for row in _money(CostConfig()): print(row)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": ROOT},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    assert done.stdout.count("'prices'") == 1
    assert "pip install" in done.stdout


def test_every_extra_of_a_user_has_a_row_that_names_it(monkeypatch):
    """``notebooks`` draws the notebooks of this project; the others that are left out bring several of these."""
    project = Path(ROOT, "pyproject.toml")
    if not project.is_file():
        pytest.skip("pyproject.toml stands in the source tree, which is not here")
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {extra for _, _, extra in _PACKAGES if extra} == extras.keys() - {
        "notebooks",
        "demo",
        "all",
        "tools",
        "test",
    }
    assert DOORS.keys() == {package for package, _, _ in _PACKAGES}
    monkeypatch.setattr("llm_cost_middleware.cli.doctor.version", absent)
    texts = {package: text for _, package, text in _packages()}
    assert texts["opentelemetry-api"].endswith("pip install 'llm-cost-middleware[otel]'")
    assert re.search(r"pip install 'openai(>=[\d.]+)?'$", texts["openai"])
    assert "not installed: no guard of a ChatBedrockConverse: pip install" in texts["langchain-aws"]
    assert not [text for text in texts.values() if "no guard a " in text]


def absent(name):
    raise PackageNotFoundError(name)


PLATFORMS = """
[routing]
regions = ["eu"]
[platforms.azure.deployments]
bad = "gpt-nix"
typo = "gpt-5-minii"
paid = { model = "gpt-5", type = "provisioned" }
ours = "gpt-5-mini"
far = "us/gpt-5-mini"
[platforms.bedrock.deployments]
"arn:aws:bedrock:eu-west-1:1:application-inference-profile/abc" = "eu.anthropic.claude-sonnet-4-6"
"""


def test_a_deployment_of_a_model_that_nobody_knows_the_price_or_the_place_of_is_named(tmp_path, monkeypatch):
    for variable in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    rows = configured(write(tmp_path, PLATFORMS), monkeypatch, AWS_PROFILE="mine")
    told = {what: (state, text) for state, what, text in rows}
    state, text = told["deployment bad"]
    assert state == "no"
    assert "no price for azure/gpt-nix" in text
    assert "did you mean 'gpt-5-mini'? correct its model" in told["deployment typo"][1]
    assert told["deployment paid"][1] == (
        'no price for azure/provisioned/gpt-5: add input_mtok and output_mtok to it, "0" where the hour is paid: '
        "every call of it is refused"
    )
    assert [text for _, what, text in rows if what == "azure deployments"] == [
        (
            "nothing says where ours is served: held and booked at the dearest place, as an estimate: "
            '[platforms.azure] place = "…"'
        ),
        "far is served outside [routing] regions = ['eu']: calls are refused",
    ]
    assert told["azure"][0] == "look"
    assert told["bedrock"] == ("ok", "key in AWS_PROFILE")
    assert told["bedrock deployments"] == ("ok", "1, each with a place and a price")
    assert "vertex_ai" not in told
    assert not any("deployment" in what for _, what, _ in configured(write(tmp_path, ""), monkeypatch))


def test_prices_lists_what_stands_behind_deployments(tmp_path, monkeypatch, capsys):
    from llm_cost_middleware.cli import main

    monkeypatch.chdir(write(tmp_path, PLATFORMS))
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    monkeypatch.setattr(sys, "argv", ["llm-cost", "prices", "mini", "--json"])
    with suppress(SystemExit):
        main()
    listed = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["llm-cost", "prices", "azure/far", "--json"])
    with suppress(SystemExit):
        main()
    assert {row["model"] for row in json.loads(capsys.readouterr().out)["models"]} == {"azure/us/gpt-5-mini"}
    monkeypatch.setattr(sys, "argv", ["llm-cost", "prices", "azure/nope"])
    with suppress(SystemExit):
        main()
    assert '[prices."azure/nope"]' in capsys.readouterr().err
    prices = {row["model"]: row["input"] for row in json.loads(listed)["models"]}
    assert {"azure/gpt-5-mini", "azure/us/gpt-5-mini", "openai/gpt-5-mini"} <= prices.keys()
    assert float(prices["azure/us/gpt-5-mini"]) == pytest.approx(1.1 * float(prices["openai/gpt-5-mini"]))


def test_budgets_of_the_ledger_and_models_outside_the_regions_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("llm-cost.toml").write_text(
        '[ledger]\nurl = "sqlite:///l.db"\n[routing]\nregions = ["eu"]\n'
        '[[tiers]]\nname = "small"\nmodels = ["openai/gpt-5-mini"]\n'
    )
    with Ledger.open("sqlite:///l.db") as ledger:
        before = [told for _, what, told in _configuration(None, None) if what == "budgets"]
        ledger.set_budget(Budget("global", 1))
    rows = [*_configuration(None, None)]
    assert before == ["none: everything is booked, nothing is ever refused"]
    assert [told for _, what, told in rows if what == "budgets"] == ["1 in the ledger: llm-cost budgets"]
    assert "openai/gpt-5-mini is not served in eu: it is never called" in [told for _, _, told in rows]


@pytest.mark.parametrize(
    ("file", "options", "code"),
    [
        ("", [], 0),
        ("", ["--config", "nofile.toml"], 2),
        ("mood = 1\n", [], 2),
        ("", ["--ledger", "sqlite:////nonexist/x.db"], 2),
        ('[prices."openai/x"]\nnonsense = 1\n', [], 2),
        ('[routing]\nregions = ["eu"]\n[[tiers]]\nname = "a"\nmodels = ["openai/gpt-5-mini"]\n', [], 1),
    ],
)
def test_what_cannot_be_used_is_no_success(tmp_path, monkeypatch, file, options, code):
    from typer.testing import CliRunner

    from llm_cost_middleware.cli import doctor as module
    from llm_cost_middleware.cli.app import app

    monkeypatch.setattr(module, "_packages", list)  # what is installed here is another matter, and takes long
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    Path("llm-cost.toml").write_text(file)
    done = CliRunner().invoke(app, ["doctor", *options], env={"COLUMNS": "400"})
    assert done.exit_code == code, done.output
    assert (code == 0) == (not re.search(r"^no  ", done.output, re.MULTILINE))
