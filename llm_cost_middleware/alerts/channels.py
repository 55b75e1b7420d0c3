"""Where alerts go: the log, a webhook, and what ``apprise`` reaches. None is ever called in the thread of a call."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from html import escape
from importlib import import_module
from typing import Protocol

from llm_cost_middleware.alerts.record import dump
from llm_cost_middleware.alerts.settings import LOG, is_webhook, shown_target
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.events import AlertRaised
from llm_cost_middleware.extras import needed_for

TIMEOUT_S = 10.0
LOGGER = logging.getLogger("llm_cost_middleware.alerts")


class Channel(Protocol):
    """Tells an alert."""

    def tell(self, alert: AlertRaised) -> str:
        """Tell it; return why it could not be, without secrets, or nothing."""
        ...


def open_channel(target: str) -> Channel:
    """Return the channel of a target.

    Raises:
        MissingExtraError: ``apprise`` is needed and not installed.
        ConfigurationError: ``apprise`` knows no such URL.
    """
    if target == LOG:
        return _Log()
    return _Webhook(target) if is_webhook(target) else _Apprise(target)


class _Log:
    def tell(self, alert: AlertRaised) -> str:
        LOGGER.warning("%s: %s (%s)", alert.kind, alert.text, alert.id, extra={"llm_cost_event": alert})
        return ""


class _Webhook:
    """A POST of JSON: ``text`` is what Slack and what is compatible with it show, ``alert`` is for programs.

    In ``text`` the three characters that make Slack's markup are escaped, as Slack wants it: a name of somebody's calls
    nobody (``<!channel>``).
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def tell(self, alert: AlertRaised) -> str:
        body = {"text": escape(message(alert), quote=False), "id": alert.id, "alert": dump(alert)}
        request = urllib.request.Request(  # noqa: S310 - http and https alone: ``is_webhook``
            self._url, json.dumps(body).encode(), method="POST",
            headers={
                "Content-Type": "application/json", "User-Agent": "llm-cost-middleware",
                "Idempotency-Key": alert.id,
            },
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310 - as above
                return ""
        except urllib.error.HTTPError as error:
            error.close()
            return f"it answered {error.code}"
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None)
            return type(reason if isinstance(reason, OSError) else error).__name__
        except Exception as error:  # noqa: BLE001 - what is no HTTP at all: http.client has errors of its own
            return type(error).__name__


class _Apprise:
    def __init__(self, url: str) -> None:
        with needed_for(f"telling alerts to {shown_target(url)}"):
            apprise = import_module("apprise")
        self._messenger = apprise.Apprise()
        if not self._messenger.add(url):
            told = f"apprise cannot use {shown_target(url)}: see its list of services"
            raise ConfigurationError(told, key="alerts.to")

    def tell(self, alert: AlertRaised) -> str:
        try:
            done = self._messenger.notify(body=message(alert), title=f"llm-cost: {alert.kind} {alert.scope}")
        except Exception as error:  # noqa: BLE001 - a service of somebody else's
            return type(error).__name__
        return "" if done else "the service did not take it"


def message(alert: AlertRaised) -> str:
    """An alert for people: what happened, and the id that tells a repetition."""
    return f"{alert.text} [{alert.kind} {alert.id}]"
