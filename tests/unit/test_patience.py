"""How long a call can wait, as it is said: for a block, a call, a call site, all calls."""

import subprocess
import sys
from datetime import timedelta
from fractions import Fraction

import pytest

from llm_cost_middleware import ConfigurationError, CostConfig, RoutingPolicy, cost_context
from llm_cost_middleware.context import current_context, export, read_context


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("10m", 600.0), ("1h", 3_600.0), ("24h", 86_400.0), ("1.5 hours", 5_400.0), (timedelta(days=1), 86_400.0),
        (90, 90.0), (0.5, 0.5), (Fraction(1, 2), 0.5), ("0", 0.0), (0, 0.0),
    ],
)  # fmt: skip
def test_patience_is_read_as_seconds(said, seconds):
    with cost_context(patience=said) as context:
        assert context.patience_s == seconds
        assert current_context().patience_s == seconds
    assert RoutingPolicy(patience=said).patience_s == (seconds or None)
    assert read_context({"patience": said}).patience_s == seconds


def test_the_inner_block_and_the_call_win_and_nothing_said_leaves_it():
    assert current_context().patience_s is None
    with cost_context(patience="1h"):
        with cost_context(user="1", patience=None):
            assert current_context().patience_s == 3_600
            assert read_context({"patience": "10m"}).patience_s == 600
        with cost_context(patience=0):
            assert current_context().patience_s == 0


@pytest.mark.parametrize(
    "said", [-1, "soon", "10 months", True, float("inf"), float("nan"), "40000d", [], b"1h", "1e99"]
)
def test_what_is_no_length_of_time_is_refused_with_the_right_form(said):
    doors = (
        lambda: read_context({"patience": said}),
        lambda: RoutingPolicy(patience=said),
        lambda: CostConfig(routing={"patience": said}),
        lambda: CostConfig(routing={"sites": {"a": {"patience": said}}}),
    )
    for door in doors:
        with pytest.raises(ConfigurationError, match=r"'10m'|'15m'") as refused:
            door()
        assert "patience" in refused.value.key


def test_call_sites_have_a_patience_of_their_own_by_name_or_glob():
    sites = {"nightly-*": {"patience": "1h"}, "nightly-alarm": {"patience": 0}}
    routing = CostConfig(routing={"patience": "10m", "sites": sites}).routing
    told = {site: routing.for_site(site).patience_s for site in ("nightly-classes", "nightly-alarm", "chat")}
    assert told == {"nightly-classes": 3_600.0, "nightly-alarm": None, "chat": 600.0}


def test_patience_decides_no_model_so_versions_of_policies_stay_comparable():
    assert RoutingPolicy(patience="1h").version == RoutingPolicy().version


def test_another_process_takes_patience_up_with_the_context():
    script = (
        "import sys\n"
        "from llm_cost_middleware.context import cost_context, current_context\n"
        "with cost_context.restore(sys.argv[1]): print(current_context().patience_s)\n"
    )
    with cost_context(patience="24h"):
        command = [sys.executable, "-c", script, export()]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "86400.0"


def test_the_environment_and_a_file_say_it(tmp_path):
    file = tmp_path / "llm-cost.toml"
    file.write_text('[routing]\npatience = "2h"\n[routing.sites."nightly-*"]\npatience = "1h"\n')
    config = CostConfig.from_toml(file, env={})
    assert (config.routing.patience_s, config.routing.for_site("nightly-a").patience_s) == (7_200, 3_600)
    assert CostConfig.from_toml(file, env={"LLM_COST_ROUTING__PATIENCE": "10m"}).routing.patience_s == 600


def test_what_another_process_cannot_have_exported_is_refused():
    for said in ('"1h"', "-5", "Infinity", "[]", "true"):
        with pytest.raises(ConfigurationError, match="export"):
            cost_context.restore('{"patience_s": %s}' % said)  # noqa: UP031 - braces
