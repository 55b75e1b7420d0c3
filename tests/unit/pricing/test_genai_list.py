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


ALL_PRICES = """
import sys
if sys.argv[1:]:
    import genai_prices.data
from contextlib import suppress
from itertools import product
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.genai import GenaiPrices

source, catalogue, days = GenaiPrices(), Catalogue(), {None}
providers = source._providers.values()
print(type(next(iter(providers))).__module__)
for provider in providers:
    print(provider.id, source.names(provider.id))
    for model in provider.models:
        for name in (model.id, model.id.upper(), f"{model.id}-20250807", f"{model.id}-latest", f"x-{model.id}"):
            if found := source.find(provider.id, name):
                dated = [*found.periods, *found.variants]
                print(provider.id, name, found.id, found.context_window,
                      *((*one[:-1], sorted(one.card.items())) for one in dated))
                days |= {one.start for one in dated if one.start > 0}
models = catalogue.models("anthropic") + catalogue.models("openai")
for provider, model in product(("anthropic", "openai", "azure", "bedrock", "vertex_ai"), models):
    with suppress(PriceNotFoundError):
        print(provider, model, *(catalogue.rates(provider, model, day) for day in sorted(days, key=str)))
"""


def test_prices_are_the_same_whether_or_not_the_package_was_imported_before():
    code = [sys.executable, "-c", ALL_PRICES]
    running = [subprocess.Popen([*code, *told], stdout=subprocess.PIPE, text=True) for told in ([], ["import it"])]
    read, imported = (process.communicate()[0].splitlines() for process in running)
    assert [process.returncode for process in running] == [0, 0]
    assert (read.pop(0), imported.pop(0)) == ("llm_cost_middleware.pricing.genai.types", "genai_prices.types")
    assert len(read) > 3_000
    assert [pair for pair in zip(read, imported, strict=True) if pair[0] != pair[1]] == []


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
