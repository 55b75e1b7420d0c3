"""The configuration: strict, frozen, the same from every source."""

import inspect
import pickle
import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from llm_cost_middleware import Budget, ConfigurationError, CostConfig, CostPipeline
from llm_cost_middleware.cli.init import template, todays
from llm_cost_middleware.config import _tell_unused
from llm_cost_middleware.errors import InvalidAmountError, InvalidScopeError, UnknownKeyError
from llm_cost_middleware.integrations.litellm import router_config
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import ModelRef


def test_the_template_is_the_defaults():
    # it lists tiers, so routing starts, by the policy that comes with them
    assert CostConfig.from_mapping(tomllib.loads(template())) == CostConfig(routing={"policy": "cascade"})


def test_what_init_writes_is_the_defaults_but_for_a_ledger_file_and_the_tiers_of_today():
    written = CostConfig.from_mapping(tomllib.loads(todays()))
    assert written.ledger.url == "sqlite:///llm-cost.db"
    default = CostConfig()
    assert replace(written, ledger=default.ledger, tiers=default.tiers, routing=default.routing) == default
    assert written.routes
    catalogue, now = Catalogue(), datetime(2026, 11, 26, tzinfo=UTC).timestamp()
    for today, packaged in zip(written.tiers, CostConfig().tiers, strict=True):
        for newer, older in zip(today.models, packaged.models, strict=True):
            assert newer.provider == older.provider
            assert catalogue.limits(*newer).max_output  # a model that everything here knows
            level, old = (catalogue.rates(*model, at=now).level(1_000) for model in (newer, older))
            assert level.uncached_input <= old.uncached_input
            assert level.output <= old.output


def test_the_defaults_reach_both_providers_and_limit_nothing():
    config = CostConfig()
    assert config.budgets == ()
    assert {model.provider for tier in config.tiers for model in tier.models} == {"anthropic", "openai"}
    assert config.providers["openai"].api_key_env == "OPENAI_API_KEY"


def test_sections_are_read_from_mappings():
    config = CostConfig(
        ledger={"url": "sqlite:///x.db", "hold_ttl_s": 60},
        budgets=[{"scope": "user:*", "limit": 5, "window": "day"}, Budget("global", "25")],
        tiers=[{"name": "only", "models": ["openai/gpt-5-mini"]}],
        routing={"text_threshold": 5},
        providers={"openai": {"base_url": "http://127.0.0.1:1/v1"}},
        output={"default_max_tokens": 100, "on_insufficient": ["raise"]},
        retry={"max_attempts": 2},
        cache={"mode": "off"},
    )
    assert config.ledger.hold_ttl_s == 60
    assert config.budgets[0].limit == Decimal(5)
    assert config.tiers[0].models == (ModelRef("openai", "gpt-5-mini"),)
    assert config.providers["openai"].api_key_env == "OPENAI_API_KEY"
    assert config.routing.text_threshold == 5
    assert config.output.on_insufficient == ("raise",)


@pytest.mark.parametrize(
    ("mapping", "key", "nearest"),
    [
        ({"modus": "enforce"}, "modus", "mode"),
        ({"ledger": {"ulr": "memory://"}}, "ledger.ulr", "url"),
        ({"budgets": [{"scope": "global", "limit": 1, "windw": "day"}]}, "budgets[0].windw", "window"),
        ({"retry": {"max_attemps": 3}}, "retry.max_attemps", "max_attempts"),
        ({"routing": {"text_treshold": 3}}, "routing.text_treshold", "text_threshold"),
        ({"providers": {"antropic": {}}}, "providers.antropic", "anthropic"),
        ({"output": {"default_max_token": 3}}, "output.default_max_token", "default_max_tokens"),
        ({"cache": {"mod": "auto"}}, "cache.mod", "mode"),
        ({"tiers": [{"name": "a", "model": ["openai/x"]}]}, "tiers[0].model", "models"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest_right_one(mapping, key, nearest):
    with pytest.raises(UnknownKeyError) as caught:
        CostConfig.from_mapping(mapping)
    assert caught.value.key == key
    assert caught.value.nearest[0] == nearest
    assert f"did you mean {nearest!r}?" in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "match"),
    [
        ({"mode": "enforced"}, "mode"),
        ({"update_prices": "yes"}, "update_prices"),
        ({"ledger": {"url": 5}}, "ledger.url"),
        ({"ledger": {"on_expiry": "forget"}}, "ledger.on_expiry.*'charge', 'release'"),
        ({"ledger": {"hold_ttl_s": True}}, "ledger.hold_ttl_s"),
        ({"ledger": {"hold_ttl_s": 0}}, "ledger.hold_ttl_s"),
        ({"ledger": 5}, "ledger: must be a table"),
        ({"budgets": {"scope": "global", "limit": 1}}, "budgets: must be a list"),
        ({"budgets": [{"limit": 1}]}, r"budgets\[0\]: needs scope"),
        ({"budgets": [{"scope": "global", "limit": 1}] * 2}, "two budgets"),
        ({"budgets": [{"scope": "global", "limit": 1, "window": "fortnight"}]}, "window"),
        ({"budgets": [{"scope": "global", "limit": 1, "timezone": "Mars/Base"}]}, "timezone"),
        ({"tiers": []}, "at least one tier"),
        ({"tiers": [{"name": "a", "models": ["gpt-5"]}]}, "PROVIDER/MODEL"),
        ({"tiers": [{"name": "a", "models": ["mistral/large"]}]}, "anthropic, openai"),
        ({"tiers": [{"name": "a", "models": ["openai/x"]}, {"name": "a", "models": ["openai/y"]}]}, "differ"),
        ({"output": {"on_insufficient": ["shrug"]}}, "on_insufficient"),
        ({"output": {"on_insufficient": "raise"}}, "must be a list"),
        ({"output": {"default_max_tokens": 0}}, "default_max_tokens"),
        ({"retry": {"max_attempts": 0}}, "max_attempts"),
        ({"routing": {"policy": "magic"}}, "routing.policy"),
        ({"cache": {"ttl": "2h"}}, "cache.ttl"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(mapping, match):
    with pytest.raises(ConfigurationError, match=match):
        CostConfig.from_mapping(mapping)


@pytest.mark.parametrize("limit", [-1, float("nan"), float("inf"), "lots"])
def test_a_budget_that_is_no_amount_is_refused(limit):
    with pytest.raises(InvalidAmountError):
        CostConfig(budgets=[{"scope": "global", "limit": limit}])


@pytest.mark.parametrize(
    ("budget", "kind", "key", "shows"),
    [
        ({"limit": "five dollars"}, InvalidAmountError, "budgets[0].limit", "such as 25 or '12.50'"),
        ({"limit": -5}, InvalidAmountError, "budgets[0].limit", "such as 25 or '12.50'"),
        ({"limit": "1,50"}, InvalidAmountError, "budgets[0].limit", "such as 25 or '12.50'"),
        ({"scope": "globl"}, InvalidScopeError, "budgets[0].scope", "did you mean 'global'?"),
        ({"scope": "user"}, InvalidScopeError, "budgets[0].scope", "such as 'user:42'"),
        ({"window": "fortnight"}, ConfigurationError, "budgets[0].window", "none, hour, day, week, month"),
    ],
)
def test_a_budget_that_cannot_be_used_is_a_configuration_error_with_its_full_key(budget, kind, key, shows):
    given = {"scope": "global", "limit": 5} | budget
    with pytest.raises(kind) as caught:
        CostConfig(budgets=[given])
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):  # noqa: S301 - our own
        assert isinstance(error, ConfigurationError)
        assert error.key == key
        assert str(error).startswith(f"{key}: {next(iter(budget.values()))!r}")
        assert shows in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:s3cret@127.0.0.1:1/0",
        "redis://:s3cret@127.0.0.1:1/0",
        "redis://u:s3cret/#?[x@127.0.0.1:1/0",
        "redis://u:s3cret/x@127.0.0.1:1/0",
        "redis://u:x@s3cret@127.0.0.1:1/0",
        "rediss://127.0.0.1:1/0?password=s3cret",
        "unix:///tmp/redis.sock?password=x@s3cret",
        "mysql://u:s3cret@127.0.0.1/db",
        "u:s3cret@127.0.0.1",
    ],
)
def test_no_text_of_a_configuration_contains_the_password_of_its_ledger(url):
    config = CostConfig(ledger={"url": url}, providers={"openai": {"base_url": "https://u:s3cret@host/v1"}})
    assert config.ledger.url == url
    assert "s3cret" not in repr(config)
    assert "LedgerConfig(url=" in repr(config)
    assert "base_url='https://host/v1'" in repr(config)
    assert "s3cret" not in repr(CostConfig(ledger=url))
    if url.startswith(("mysql", "u:", "redis://u:s3cret/")):  # no server is asked
        with pytest.raises(ConfigurationError, match=r"ledger\.url") as caught:
            CostPipeline(config)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["memory://", "sqlite:///home/a@b/ledger.db", "redis://127.0.0.1:6379/0"])
def test_a_url_without_a_password_is_shown_as_it_is(url):
    assert f"url={url!r}" in repr(CostConfig(ledger={"url": url}))


def test_a_misspelt_keyword_is_named_with_the_nearest_right_one():
    with pytest.raises(UnknownKeyError, match="buget: unknown key; did you mean 'budgets'"):
        CostConfig(buget=[])
    assert "budgets" in inspect.signature(CostConfig).parameters


def test_a_pipeline_takes_a_mapping_or_the_path_of_a_file(tmp_path, monkeypatch):
    path = tmp_path / "llm-cost.toml"
    path.write_text('[[budgets]]\nscope = "global"\nlimit = 5\n')
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    for source in (
        path,
        str(path),
        {"budgets": [{"scope": "global", "limit": 5}]},
        CostConfig(budgets=[Budget("global", 5)]),
    ):
        for make in (CostPipeline, CostPipeline.resolve):
            with make(source) as pipeline:
                assert pipeline.ledger.balance("global").limit == Decimal(5), source
        assert [entry["model_name"] for entry in router_config(source)["model_list"]]


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("nofile.toml", r"cannot read nofile\.toml"),
        (5, "expected a CostConfig.*'llm-cost.toml', not 5"),
        ([], "expected a CostConfig"),
        ({"buget": []}, "did you mean 'budgets'"),
        ({5: []}, "5: unknown key"),
        ("redis://u:s3cret@127.0.0.1:1/0", "a URL is no file; a ledger is"),
    ],
)
def test_what_is_no_pipeline_is_refused_with_the_right_form(source, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for make in (CostPipeline, CostPipeline.resolve, router_config):
        with pytest.raises(ConfigurationError, match=match) as caught:
            make(source)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", ["folder", b"mode = '\xff'"], ids=["folder", "not UTF-8"])
def test_a_file_that_cannot_be_read_is_named_with_the_reason(content, tmp_path):
    path = tmp_path / "llm-cost.toml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.mkdir()
    reason = "it is a folder; name the file in it" if content == "folder" else "it is not UTF-8"
    with pytest.raises(ConfigurationError, match=f"cannot read .*: {reason}"):
        CostConfig.find(env={"LLM_COST_CONFIG": str(path)})


def test_the_environment_overrides_the_file(tmp_path):
    path = tmp_path / "llm-cost.toml"
    path.write_text('[ledger]\nurl = "memory://"\ntenant = "a"\n')
    env = {
        "LLM_COST_LEDGER__URL": "sqlite:///x.db",
        "LLM_COST_MODE": "observe",
        "LLM_COST_RETRY__MAX_ATTEMPTS": "5",
        "LLM_COST_BUDGETS": '[{scope = "global", limit = "2.50"}]',
        "LLM_COST_PROVIDERS__OPENAI__BASE_URL": "http://127.0.0.1:1/v1",
        "LLM_COST_DATA": "ignored",
        "OTHER": "ignored",
    }
    config = CostConfig.from_toml(path, env=env)
    assert config.ledger.url == "sqlite:///x.db"
    assert config.ledger.tenant == "a"
    assert config.mode == "observe"
    assert config.retry.max_attempts == 5
    assert config.budgets[0].limit == Decimal("2.50")
    assert config.providers["openai"].base_url == "http://127.0.0.1:1/v1"


def test_a_misspelt_variable_is_named(tmp_path):
    path = tmp_path / "llm-cost.toml"
    path.write_text("")
    with pytest.raises(UnknownKeyError, match="ledger"):
        CostConfig.from_toml(path, env={"LLM_COST_LEDGR__URL": "x"})


def test_the_removed_privacy_section_is_refused_with_its_reason(tmp_path):
    path = tmp_path / "llm-cost.toml"
    path.write_text("[privacy]\nstore_text = true\n")
    with pytest.raises(ConfigurationError, match="never read, no text was ever stored"):
        CostConfig.from_toml(path, env={})


def test_a_missing_file_is_an_error_that_names_the_command_to_write_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="llm-cost init"):
        CostConfig.find(env={})


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("mode = ")
    with pytest.raises(ConfigurationError, match=r"bad\.toml is not TOML"):
        CostConfig.from_toml(path, env={})
    with pytest.raises(ConfigurationError, match="cannot read"):
        CostConfig.from_toml(tmp_path / "absent.toml", env={})


@pytest.mark.parametrize("source", ["mapping", "toml", "environment"])
def test_former_names_of_the_ledgers_options_are_taken_with_a_warning(source, tmp_path, caplog):
    former, present = {"lease_s": 60, "on_lapse": "release"}, ("ledger.lease_s", "ledger.on_lapse")
    (tmp_path / "llm-cost.toml").write_text('[ledger]\nlease_s = 60\non_lapse = "release"\n')
    (tmp_path / "empty.toml").touch()
    env = {"LLM_COST_LEDGER__LEASE_S": "60", "LLM_COST_LEDGER__ON_LAPSE": "release"}
    read = {
        "mapping": lambda: CostConfig(ledger=former),
        "toml": lambda: CostConfig.from_toml(tmp_path / "llm-cost.toml", env={}),
        "environment": lambda: CostConfig.from_toml(tmp_path / "empty.toml", env=env),
    }
    with pytest.warns(DeprecationWarning, match="is now called (hold_ttl_s|on_expiry)") as caught:
        config = read[source]()
    assert (config.ledger.hold_ttl_s, config.ledger.on_expiry) == (60, "release")
    assert {str(warning.message).partition(" ")[0] for warning in caught} == set(present)
    assert all(name in caplog.text for name in present)
    assert former == {"lease_s": 60, "on_lapse": "release"}, "the caller's mapping is theirs"
    if source == "mapping":
        assert {warning.filename for warning in caught} == {__file__}, "the warning stands where the name was written"


def test_an_option_under_both_names_is_refused():
    with pytest.raises(ConfigurationError, match=r"ledger\.lease_s.*hold_ttl_s"):
        CostConfig(ledger={"lease_s": 60, "hold_ttl_s": 60})


@pytest.mark.parametrize("by_environment", [False, True])
def test_a_file_that_a_pipeline_without_arguments_does_not_read_is_told_of_once(
    by_environment, tmp_path, monkeypatch, caplog
):
    name = f"{tmp_path}/mine.toml" if by_environment else "llm-cost.toml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    _tell_unused.cache_clear()
    with CostPipeline():
        assert "is not used" not in caplog.text
    (tmp_path / name).write_text("mode = 'observe'")
    if by_environment:
        monkeypatch.setenv("LLM_COST_CONFIG", name)
    with CostPipeline(CostConfig.find()), CostPipeline({}):
        assert "is not used" not in caplog.text
    for _ in range(2):
        with CostPipeline() as pipeline:
            assert pipeline.config.mode == "enforce"
    (said,) = [one.message for one in caplog.records if "is not used" in one.message]
    assert said.startswith(name)
    assert "CostConfig.find()" in said


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("LLM_COST_LEDGR__URL", "x", "did you mean 'ledger'"),
        ("LLM_COST_LEDGER__URI", "x", "did you mean 'url'"),
        ("LLM_COST_LEDGER__DURABILITY", "ful", "did you mean 'full'"),
        ("LLM_COST_MODE", "observ", "did you mean 'observe'"),
        ("LLM_COST_RETRY__MAX_ATTEMPTS", "many", "whole number"), ("LLM_COST_CACHE", "3", "cache"),
        ("LLM_COST_OUTPUT__ON_INSUFFICIENT", '["rais"]', "raise"),
        ("LLM_COST_BUDGETS", '[{scope = "globl"}]', "budgets"),
        ("LLM_COST_ATTRIBUTION__ON_MISSING", "den", "deny"),
    ],
)  # fmt: skip
def test_an_error_of_the_environment_names_its_variable(tmp_path, variable, value, told):
    path = tmp_path / "llm-cost.toml"
    path.write_text("[ledger]\nurl = 'memory://'\n")
    with pytest.raises(ConfigurationError) as caught:
        CostConfig.from_toml(path, env={variable: value, "LLM_COST_RETRY__FALLBACK": "true"})
    assert f"(set by the environment variable {variable})" in str(caught.value)
    assert told in str(caught.value)


def test_an_error_of_the_file_names_no_variable(tmp_path):
    path = tmp_path / "llm-cost.toml"
    path.write_text("mode = 'observ'\n")
    with pytest.raises(ConfigurationError) as caught:
        CostConfig.from_toml(path, env={"LLM_COST_LEDGER__URL": "memory://"})
    assert "environment" not in str(caught.value)


def test_the_environment_alone_is_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = CostConfig.find(env={"LLM_COST_LEDGER__URL": "sqlite:///x.db", "LLM_COST_MODE": "observe"})
    assert (found.ledger.url, found.mode, found.file) == ("sqlite:///x.db", "observe", None)
    with pytest.raises(ConfigurationError, match=r"enfroce.*set by the environment variable LLM_COST_MODE"):
        CostConfig.find(env={"LLM_COST_MODE": "enfroce"})
    with pytest.raises(ConfigurationError, match="llm-cost init`"):
        CostConfig.find(env={"LLM_COST_DASHBOARD_TOKEN": "a token of 16 characters"})
    with pytest.raises(ConfigurationError, match=r"zz.toml does not exist. Write one with `llm-cost init zz.toml`"):
        CostConfig.find(env={"LLM_COST_CONFIG": "zz.toml", "LLM_COST_MODE": "observe"})


def test_a_token_of_the_dashboard_is_no_key(tmp_path):
    (tmp_path / "a.toml").write_text("")
    assert CostConfig.from_toml(tmp_path / "a.toml", env={"LLM_COST_DASHBOARD_TOKEN": "t" * 16})


@pytest.mark.parametrize("section", [{"providers": {"openai": {}}}, {"platforms": {"azure": {}}}])
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("localhost:80", "did you mean 'http://localhost:80'?"), ("api.example.com", "did you mean"),
        ("ftp://x", "https://host/v1"), ("https://", "https://host/v1"), (" ", "https://host/v1"),
        ("", None), ("http://localhost:80", None), ("HTTPS://api.example.com/v1", None),
    ],
)  # fmt: skip
def test_an_address_is_an_address(section, url, told):
    ((kind, names),) = section.items()
    config = {kind: {name: {"base_url": url} for name in names}}
    if told is None:
        CostConfig(**config)
        return
    with pytest.raises(ConfigurationError, match=re.escape(told)) as caught:
        CostConfig(**config)
    assert "base_url" in str(caught.value)
