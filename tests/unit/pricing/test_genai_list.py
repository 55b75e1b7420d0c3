"""The list of genai-prices, read without that package: the same records, found by the same names."""

import subprocess
import sys
from types import ModuleType

import pytest
from msgspec import Struct
from msgspec.structs import asdict

from llm_cost_middleware.pricing import genai

UNREAD = {"extractors"}


def plain(value):
    """A record of either kind as plain values; what no price is made of is left out."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, Struct):
        value = asdict(value)
    fields = value if isinstance(value, dict) else getattr(value, "__dict__", None)
    if fields is None or type(value).__name__ == "TimeOfDateConstraint":
        return value if fields is None else None
    return {name: plain(one) for name, one in fields.items() if name not in UNREAD}


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip("genai_prices.data").providers


@pytest.fixture(scope="module")
def ours():
    return list(genai._read_list())


def test_every_record_is_read(ours, theirs):
    assert [plain(one) for one in ours] == [plain(one) for one in theirs]


def test_every_name_finds_the_same_model(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        for model in other.models:
            for name in (model.id, model.id.upper(), f"{model.id}-20250807", f"{model.id}-latest", f"x-{model.id}"):
                found, expected = mine.find_model(name), other.find_model(name)
                assert (found and found.id) == (expected and expected.id), (mine.id, name)


CODE = """
import sys
from llm_cost_middleware import CostConfig, CostPipeline
CostPipeline(CostConfig()).catalogue.rates("openai", "gpt-5-mini")
print(*{"genai_prices", "pydantic"} & set(sys.modules))
"""


def test_a_price_is_looked_up_without_the_package_around_the_list():
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.split()) == (0, []), ran.stderr


@pytest.mark.parametrize("written", ["providers = [Provider(id='a', tariff=1)]", "providers = [Tariff()]", "0/0"])
def test_a_list_that_is_written_otherwise_is_imported(monkeypatch, tmp_path, theirs, written):
    (tmp_path / "genai_prices").mkdir()
    (tmp_path / "genai_prices/data.py").write_text(f"from .types import *\n{written}\n")
    asked = []

    def find(name):
        asked.append(name)
        spec = ModuleType(name)
        spec.submodule_search_locations = [str(tmp_path / name)]
        return spec

    monkeypatch.setattr(genai, "find_spec", find)
    monkeypatch.delitem(sys.modules, "genai_prices.data")
    read = {one.id: plain(one) for one in genai.GenaiPrices()._providers.values()}
    assert asked == ["genai_prices"]
    assert read == {one.id: plain(one) for one in theirs}
