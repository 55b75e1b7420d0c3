"""Many streams at once: each is held, none is lost, and the ledger is the bill."""

from pathlib import Path


def test_streams_that_are_open_together_are_booked_at_their_bill(soak, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from thousand_streams import play

    found = play(1_000 if soak else 25)
    assert found.is_right, found
    assert found.chunks > found.opened
