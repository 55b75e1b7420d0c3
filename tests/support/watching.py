"""An observer that keeps every event."""

from __future__ import annotations


class Watch:
    """What a pipeline told, in order."""

    def __init__(self):
        self.events = []

    def on_event(self, event):
        self.events.append(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]
