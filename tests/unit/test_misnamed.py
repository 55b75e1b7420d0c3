"""A name that nobody has and that is let through is told, with the nearest that there is; once."""

import logging

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.events import Unattributed
from llm_cost_middleware.request import CallContext

RULE = {"require": ["team"], "names": {"team": ["search", "ads"]}, "on_missing": "warn"}


class Watch:
    def __init__(self):
        self.events = []

    def on_event(self, event):
        self.events.append(event)


def test_a_misspelt_name_is_told_with_the_nearest(caplog):
    watch = Watch()
    with (
        CostPipeline(CostConfig(ledger="memory://misnamed", attribution=RULE), observers=[watch]) as pipeline,
        caplog.at_level(logging.WARNING, "llm_cost_middleware"),
    ):
        for name in ("serach", "serach", "nobody-like-it", "search"):
            found = pipeline._flow.attribute(CallContext(scopes=(f"team:{name}",)), send=True)
            assert found.scopes == ("team:search" if name == "search" else "team:unassigned",)
    told = [record.getMessage() for record in caplog.records if "booked under" in record.getMessage()]
    assert told == [
        "there is no team 'serach'; did you mean 'search'? (its calls are booked under team:unassigned)",
        "there is no team 'nobody-like-it'; known are search, ads (its calls are booked under team:unassigned)",
    ]
    events = [event for event in watch.events if isinstance(event, Unattributed)]
    assert [event.nearest for event in events] == ["search", "search", ""]
    assert not any("serach" in str(event) for event in events)
