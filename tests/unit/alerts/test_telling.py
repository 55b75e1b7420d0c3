"""Alerts reach whoever is to be told, once, off the thread of the call, and again where nobody could be reached."""

import logging
import sys
import threading
import time

import pytest
from alert_receiver import Receiver

from llm_cost_middleware import BudgetExceededError, CostPipeline, CostTracker, Ledger, process
from llm_cost_middleware.alerts import AlertConfig
from llm_cost_middleware.alerts import service as services
from llm_cost_middleware.alerts.channels import open_channel
from llm_cost_middleware.alerts.service import AlertService
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import ConfigurationError, MissingExtraError
from llm_cost_middleware.events import AlertRaised, BudgetRefused
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.testing import FakeClock


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db"


def _service(url, clock, *targets, budget=True):
    ledger = Ledger.open(url, clock=clock)
    if budget:
        ledger.set_budget(Budget("global", 1, "day"))
    return AlertService([AlertConfig("threshold", targets)], ledger, Catalogue(), clock)


def _close(*all_):
    for service in all_:
        service._ledger.close()


def test_a_webhook_gets_text_for_people_and_figures_for_programs(url, clock, receiver):
    receiver.up()
    service = _service(url, clock, receiver.url)
    service._ledger.book("0.9")
    (alert,) = service.look(everything=True)
    assert service.deliver() == 1
    (body,), (headers,) = receiver.bodies, receiver.headers
    assert body["text"].startswith("global has spent 90 % ($0.90 of $1.00)")
    assert alert.id in body["text"]
    assert body["id"] == headers["Idempotency-Key"] == alert.id
    told = body["alert"]
    assert (told["limit_usd"], told["spent_usd"]) == ("1.000000000", "0.900000000")
    assert (told["scope"], told["percent"]) == ("global", 90)
    assert told["resets_at"] == alert.resets_at
    assert service.deliver() == 0
    _close(service)


@pytest.mark.parametrize("fault", ["down", 500, 404, 429])
def test_a_receiver_that_was_down_gets_each_alert_once_it_is_back(url, clock, receiver, caplog, fault):
    service = _service(url, clock, receiver.url, "log")
    if fault != "down":
        receiver.up().status = fault
    service._ledger.book("0.9")
    (alert,) = service.look(everything=True)
    assert service.deliver() == 1  # the log
    tries = 0
    for _ in range(100):
        clock.advance(1)
        tries += bool(service._waits) and clock.monotonic() >= next(iter(service._waits.values()))[0]
        service.deliver()
    assert 4 <= tries <= 8  # it waits longer and longer
    warned = [one for one in caplog.records if "do not reach" in one.getMessage() and one.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "SECRET" not in caplog.text
    _close(service)
    if fault == "down":
        receiver.up()
    receiver.status = 200
    clock.advance(3 * 86_400)  # its window is long over, and its process too
    another = _service(url, clock, receiver.url, budget=False)
    assert another.deliver() == 1
    assert receiver.ids == [alert.id]
    assert another.deliver() == 0
    _close(another)


def test_who_cannot_be_reached_for_a_week_is_given_up(url, clock, receiver):
    service = _service(url, clock, receiver.url)
    service._ledger.book("0.9")
    service.look(everything=True)
    clock.advance(8 * 86_400)
    receiver.up()
    assert service.deliver() == 0
    _close(service)


def test_one_process_of_two_looks_and_tells(url, clock, receiver):
    receiver.up()
    first, second = _service(url, clock, receiver.url), _service(url, clock, receiver.url, budget=False)
    first._ledger.book("0.9")
    raised = [*first.look(), *second.look()]
    assert len(raised) == 1
    assert second.look(everything=True) == []
    told = [second.deliver(), first.deliver()]
    assert told == [1, 0]
    assert receiver.ids == [raised[0].id]
    _close(first, second)


def test_two_rules_that_tell_two_people_of_one_thing_make_one_id(url, clock):
    with Receiver() as one, Receiver() as two:
        one.up(), two.up()
        ledger = Ledger.open(url, clock=clock)
        ledger.set_budget(Budget("global", 1, "day"))
        ledger.book("0.9")
        rules = [AlertConfig("threshold", one.url), AlertConfig("threshold", [two.url], scope="global")]
        service = AlertService(rules, ledger, Catalogue(), clock)
        assert len(service.look(everything=True)) == 1
        assert service.deliver() == 2
        assert one.ids == two.ids
        _close(service)


def test_an_erased_name_is_in_no_alert_any_more(url, clock, receiver):
    service = _service(url, clock, receiver.url, budget=False)
    service._ledger.set_budget(Budget("user:*", 1, "day"))
    service._ledger.book("0.9", ["user:alice"])
    (alert,) = service.look(everything=True)
    assert "user:alice" in alert.text
    alias = service._ledger.erase("user:alice").alias
    assert not [line for line in service._ledger.journal.read("alert") if b"alice" in line.data]
    _close(service)
    receiver.up()
    another = _service(url, clock, receiver.url, budget=False)
    assert another.deliver() == 1
    assert "alice" not in str(receiver.bodies)
    assert receiver.bodies[0]["text"].startswith(f"{alias} has spent")
    _close(another)


def test_a_name_calls_nobody_in_slack(url, clock, receiver):
    receiver.up()
    text = "openai/<!channel>&<https://example.com|click> is called"
    alert = AlertRaised("", 0.0, "i", "unpriced", "global", "day", text, "openai/<!channel>")
    assert open_channel(receiver.url).tell(alert) == ""
    assert receiver.bodies[0]["text"].startswith(
        "openai/&lt;!channel&gt;&amp;&lt;https://example.com|click&gt; is called"
    )
    assert receiver.bodies[0]["alert"]["text"] == text


def test_ledgers_have_ids_of_their_own(tmp_path, clock):
    ids = set()
    for name in ("a", "b"):
        service = _service(f"sqlite:///{tmp_path}/{name}.db", clock, "log")
        service._ledger.book("0.9")
        ids |= {alert.id for alert in service.look(everything=True)}
        _close(service)
    assert len(ids) == 2


def test_a_call_never_waits_for_a_receiver_that_does_not_answer(clients, url, monkeypatch):
    entered, release = threading.Event(), threading.Event()

    class Stuck:
        def tell(self, alert):
            entered.set()
            release.wait(20)
            return ""

    monkeypatch.setattr(services, "open_channel", lambda target: Stuck())
    config = {
        "ledger": {"url": url}, "budgets": [{"scope": "global", "limit": 1, "window": "day", "warn_at": 0.000001}],
        "alerts": [{"when": "threshold", "to": ["https://example.com"]}],
    }  # fmt: skip
    threads = set()
    seen = lambda event: threads.add((type(event).__name__, threading.current_thread().name))
    with CostPipeline(config, observers=seen) as pipeline:
        process("hello", pipeline, CostTracker(), client=clients["openai"])
        assert entered.wait(20)
        process("hello", pipeline, CostTracker(), client=clients["openai"])  # while it is stuck
        assert not release.is_set()
        release.set()
    assert ("AlertRaised", "llm-cost-alerts") in threads
    assert ("ThresholdCrossed", threading.current_thread().name) in threads


def _watching():
    return {thread for thread in threading.enumerate() if thread.name == "llm-cost-alerts"}


def test_what_happened_last_is_told_when_the_pipeline_is_closed(clients, url, receiver):
    before = _watching()  # those of other tests end when their pipelines are collected
    receiver.up()
    config = {
        "ledger": {"url": url}, "budgets": [{"scope": "user:x", "limit": "0.0000001", "window": "day"}],
        "alerts": [{"when": "refusal", "to": [receiver.url]}],
    }  # fmt: skip
    with CostPipeline(config) as pipeline, pytest.raises(BudgetExceededError):
        from llm_cost_middleware import cost_context

        with cost_context(user="x"):
            process("hello", pipeline, CostTracker(), client=clients["openai"])
    assert len(receiver.ids) == 1
    assert _watching() <= before


def test_what_happens_while_the_last_look_is_taken_is_told(clock, caplog):
    """Observed from inside of that look: closing finds the facts read already."""

    def refused(scope):
        service.on_event(BudgetRefused("c", clock.now(), "openai/gpt-5-mini", scope, NanoUSD(5), enforced=True))

    def emit(alert):
        if alert.scope == "team:a":
            refused("team:b")
            service.close()

    with Ledger.open("memory://", clock=clock) as ledger, caplog.at_level(logging.WARNING):
        service = AlertService([AlertConfig("refusal", ["log"])], ledger, Catalogue(), clock, emit)
        service.start()
        thread = service._thread
        refused("team:a")
        thread.join(20)
        assert not thread.is_alive()
    assert [scope in caplog.text for scope in ("team:a", "team:b")] == [True, True]


def test_a_ledger_that_is_away_is_told_once_and_looked_at_again(url, clock, caplog):
    service = _service(url, clock, "log")
    service._ledger.book("0.9")
    fine, service._record.catch_up = service._record.catch_up, lambda: 1 / 0
    for _ in range(3):
        service.step(woken=True)
    failed = [one for one in caplog.records if "could not be looked for" in one.getMessage()]
    assert [one.levelno for one in failed if one.levelno > logging.DEBUG] == [logging.WARNING]
    service._record.catch_up = fine
    service.step(woken=True)
    assert "global has spent 90 %" in caplog.text
    _close(service)


def test_rules_are_exchanged_under_a_running_pipeline(url, receiver):
    receiver.up()
    with CostPipeline({"ledger": {"url": url}}) as pipeline:
        pipeline.ledger.set_budget("global", 1)
        pipeline.ledger.book("0.9")
        pipeline.reload({"ledger": {"url": url}, "alerts": [{"when": "threshold", "to": receiver.url}]})
        deadline = time.monotonic() + 20
        while not receiver.ids and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(receiver.ids) == 1


def test_a_service_is_collected_that_nobody_closed(url):
    import gc
    import weakref

    pipeline = CostPipeline({"alerts": [{"when": "threshold"}]})
    service = weakref.ref(pipeline._listeners.alerts)
    service()._wake.set()
    del pipeline
    deadline = time.monotonic() + 20
    while service() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
        gc.collect()
    assert service() is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise, in Python 3.11: imghdr
def test_services_of_apprise_are_reached(url, clock, receiver):
    pytest.importorskip("apprise", reason="needs the alerts extra: apprise")
    receiver.up()
    target = f"json://127.0.0.1:{receiver.port}/"
    alert = AlertRaised("", 0.0, "id1", "rate", "team:a", "hour", "much is spent")
    assert open_channel(target).tell(alert) == ""
    with pytest.raises(ConfigurationError, match="cannot use nosuch://…"):
        open_channel("nosuch://SECRET")
    (body,) = receiver.bodies
    assert "much is spent [rate id1]" in body["message"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_service_of_apprise_may_be_a_target():
    """Also those that look like a misspelt https://, or begin with a digit."""
    apprise = pytest.importorskip("apprise", reason="needs the alerts extra: apprise")
    services = apprise.Apprise().details()["schemas"]
    names = {name for each in services for key in ("protocols", "secure_protocols") for name in each[key] or ()}
    assert {"mailto", "httpsms", "46elks"} <= names
    for name in names:
        assert AlertConfig("refusal", to=[f"{name}://there/at"]).to == (f"{name}://there/at",)


def test_without_apprise_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(MissingExtraError, match="alerts"):
        CostPipeline({"alerts": [{"when": "drift", "to": ["slack://a/b/c"]}]})
