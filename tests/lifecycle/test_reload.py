"""A changed configuration in a running pipeline: budgets and prices by themselves, the rest by ``reload``."""

import os

import pytest

from llm_cost_middleware import BudgetExceededError, ConfigurationError, CostConfig, CostPipeline
from llm_cost_middleware.context import read_context
from llm_cost_middleware.errors import AttributionError
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BOTH = frozenset({"openai", "anthropic"})
ASK = CallRequest(
    "openai", "gpt-5-mini", (Message("user", (Part("text", "hi"),)),), endpoint="chat.completions", max_tokens=100,
    model_pinned=True,
)  # fmt: skip
SMART = ASK._replace(model="smart", model_pinned=False)
TIERS = """
[[tiers]]
name = "only"
models = ["openai/{model}"]
"""


class Running:
    """A pipeline of a file, with a clock of its own."""

    def __init__(self, folder, text):
        self.path, self.clock, self.sent, self.written = folder / "llm-cost.toml", FakeClock(1_790_000_000), [], 0
        self.write(text)
        self.pipeline = CostPipeline(CostConfig.from_toml(self.path), clock=self.clock)

    def write(self, text):
        self.path.write_text(text)
        self.written += 1
        os.utime(self.path, (1_790_000_000 + self.written,) * 2)  # however coarse the times of this file system are

    def call(self, request=ASK, **said):
        def send(attempt):
            self.sent.append(attempt.target.model)
            usage = UsageReport(items=(BilledItem(TokenUsage(uncached_input=1000, output=100)),), complete=True)
            return CallResult("ok", usage)

        return self.pipeline.run(request._replace(context=read_context(said)), send, providers=BOTH)

    @property
    def cost(self):
        return float(self.pipeline.records()[-1].cost_usd)


@pytest.fixture
def running(tmp_path):
    opened = []

    def start(text=""):
        opened.append(Running(tmp_path, text))
        return opened[-1]

    yield start
    for each in opened:
        each.pipeline.close()


def budget(limit):
    return f'[[budgets]]\nscope = "global"\nlimit = "{limit}"\n'


def test_changed_budgets_and_prices_are_taken_up_within_two_seconds(running):
    run = running(budget("10"))
    run.call()
    before = run.cost
    run.write(budget("0.000001"))
    run.clock.advance(1)
    with pytest.raises(BudgetExceededError):
        run.call()
    run.write(budget("10") + '[prices."openai/gpt-5-mini"]\ninput_mtok = 100\noutput_mtok = 100\n')
    run.clock.advance(1)
    run.call()
    assert run.cost == pytest.approx(1100 * 100e-6)
    assert run.cost > before
    run.write("")
    run.clock.advance(1)
    run.call()
    assert run.cost == before
    assert run.pipeline.ledger.budgets() == ()


@pytest.mark.parametrize("text", ["[[budgets]\n", budget("-1"), '[prices."openai/x"]\nnonsense = 1\n'])
def test_a_file_that_is_being_edited_changes_nothing(running, text):
    run = running(budget("0.000001"))
    run.write(text)
    run.clock.advance(1)
    with pytest.raises(BudgetExceededError):
        run.call()
    run.path.unlink()
    run.clock.advance(1)
    with pytest.raises(BudgetExceededError):
        run.call()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (budget("9"), "budgets of {} were taken up"),
        (budget("9") + '[prices."openai/x"]\ninput_mtok = 1\n', "budgets and prices of {} were taken up"),
        (budget("10") + "# only a remark", "{} changed"),
        (TIERS.format(model="gpt-5.1") + budget("9"),
         "budgets of {} were taken up; for tiers it takes pipeline.reload() or a restart"),
        (budget("10") + '[output]\non_insufficient = []\n[metrics]\nprometheus_port = 9\n'
         '[ledger]\nurl = "sqlite:///other.db"\n',
         "{} changed; for output it takes pipeline.reload() or a restart; for ledger.url, metrics it takes a restart"),
    ],
)  # fmt: skip
def test_it_is_said_what_was_taken_up_and_what_waits(running, caplog, text, told):
    run = running(budget("10"))
    run.write(text)
    run.clock.advance(1)
    run.call()
    assert [
        record.message for record in caplog.records if "changed" in record.message or "taken up" in record.message
    ] == [told.format(run.path)]


def test_a_file_that_is_gone_is_told_once(running, caplog):
    run = running(budget("10"))
    for there in (False, False, False, True, False, False):
        if there:
            run.write(budget("11"))
        else:
            run.path.unlink(missing_ok=True)
        run.clock.advance(1)
        run.call()
    told = [record.message for record in caplog.records if str(run.path) in record.message]
    gone = f"{run.path} is gone: what was read of it holds, until it is there again"
    assert told == [gone, f"budgets of {run.path} were taken up", gone]


def test_a_file_is_left_alone_where_it_is_not_watched(running):
    run = running("watch = false\n")
    run.write("watch = false\n" + budget("0.000001"))
    run.clock.advance(5)
    run.call()
    run.pipeline.reload()
    with pytest.raises(BudgetExceededError):
        run.call()


def test_tiers_policies_and_attribution_wait_for_a_reload(running, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    run = running(TIERS.format(model="gpt-5-mini"))
    run.call(SMART)
    run.write(TIERS.format(model="gpt-5.1") + '[attribution]\nrequire = ["team"]\n')
    run.clock.advance(1)
    run.call(SMART)
    run.pipeline.reload()
    with pytest.raises(AttributionError):
        run.call(SMART)
    run.call(SMART, team="search")
    assert run.sent == ["gpt-5-mini", "gpt-5-mini", "gpt-5.1"]
    assert len(run.pipeline.records()) == 3, "what was recorded stays"


def test_budgets_of_names_that_calls_do_not_have_yet_wait_for_a_reload(running, caplog):
    """Calls are written by the old rule until then: a budget by the new one would be of nobody."""
    team = '[attribution.names]\nteam = ["Search"]\n[[budgets]]\nscope = "team:Search"\nlimit = "0.000001"\n'
    run = running(team)
    run.write(f'[attribution]\nnormalise = "case"\n{team}')
    run.clock.advance(2)
    with pytest.raises(BudgetExceededError):
        run.call(team="Search")
    assert "attribution: writes names otherwise now" in caplog.text
    run.pipeline.reload()
    for name in ("Search", "SEARCH"):
        with pytest.raises(BudgetExceededError, match="team:search"):
            run.call(team=name)
    assert run.sent == []


def test_metrics_stay_as_they_began_and_every_reload_says_so(running, caplog):
    pytest.importorskip("opentelemetry.metrics", reason="metrics are of the extra otel")
    run = running(budget("10"))
    run.write(budget("9") + "[metrics]\nopentelemetry = true\n")
    for _ in range(2):
        caplog.clear()
        run.pipeline.reload()
        assert "[metrics] changed" in caplog.text
        assert not run.pipeline.config.metrics.opentelemetry
        assert run.pipeline.config.file == run.path
    assert [float(one.limit) for one in run.pipeline.ledger.budgets()] == [9]


def test_what_cannot_be_taken_up_changes_nothing(running, tmp_path):
    run = running(budget("10"))
    for new in ({"ledger": {"url": f"sqlite:///{tmp_path}/other.db"}}, {"prices": {"openai/x": {"nonsense": 1}}}):
        with pytest.raises(ConfigurationError):
            run.pipeline.reload(new)
    run.call()
    assert [float(one.limit) for one in run.pipeline.ledger.budgets()] == [10]


def test_a_pipeline_without_a_file_needs_the_new_configuration():
    with CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": 1}])) as pipeline:
        with pytest.raises(ConfigurationError, match="pass the new one"):
            pipeline.reload()
        pipeline.reload({"budgets": [{"scope": "global", "limit": 2}]})
        assert pipeline.ledger.balance("global").limit == 2
        pipeline.reload({"budgets": [{"scope": "global", "limit": 1}]})
        assert pipeline.ledger.balance("global").limit == 1, "the call says that it is the newest"
