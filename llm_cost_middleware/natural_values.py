"""Values as people write them, read once for Python, TOML, the environment and the command line alike.

Each reader takes what has one meaning and returns the one form the package works with; what has none, or two, is a
``ConfigurationError`` that shows the right form. Amounts of money are read in ``money``, scopes in ``budget.model``.

========== ============================================================================== ==========================
reader     takes                                                                          returns
========== ============================================================================== ==========================
number     ``int``, ``float``, ``Decimal``, ``Fraction``, numpy's numbers, their text     ``float`` or ``int``
share      a number above 0 and up to 1, ``"80%"``                                        ``float``
seconds    a number of seconds, ``timedelta``, ``"90s"``, ``"15m"``, ``"2h"``, ``"7d"``   ``float``
patience   as ``seconds``, ``None`` for none                                              ``float`` or ``None``
window     ``None``, ``"day"``, ``"daily"``, ``"7d"``, ``timedelta``, a number of seconds canonical ``str``
timezone   an IANA name, ``ZoneInfo``, ``datetime.timezone.utc``, ``None``                canonical ``str``
url        a URL of a ledger, ``Path``, the text of a path                                URL
========== ============================================================================== ==========================
"""

from __future__ import annotations

import math
import os
import re
from datetime import UTC, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from numbers import Number
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from llm_cost_middleware.errors import ConfigurationError

Duration = float | str | timedelta
"""A length of time as people write it: seconds, ``"15m"``, a ``timedelta``."""
_LONG = 40
"""Characters from which on a text is no misspelt word."""
ENDLESS = "none"
"""The window that never ends."""
CALENDAR = ("hour", "day", "week", "month")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "week", "weeks"), "w"),
}
_WINDOWS = {
    **dict.fromkeys((ENDLESS, "total", "lifetime", "forever", "ever", "never", "all"), ENDLESS),
    **{name: name for name in CALENDAR},
    "hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "minute": "60s",
}  # fmt: skip
_YEARS = frozenset({"year", "years", "yearly", "annual", "annually", "y"})
_MONTHS = frozenset({"month", "months", "mo", "mon"})
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\Z")
_OFFSET = re.compile(r"(?:utc|gmt)?([+-])(\d{1,2}):?(\d{2})?\Z", re.IGNORECASE)
_LONGEST_S = 10**9
_FILES = (".db", ".sqlite", ".sqlite3")


def read_number(value: object, key: str, *, form: str = "a number, such as 3") -> float:
    """Return a number. Raises ``ConfigurationError`` for what is none, for NaN, and for a ``bool``."""
    found: float | None = None
    if isinstance(value, str):
        try:
            found = float(Decimal(value.strip()))
        except InvalidOperation:
            found = None
    elif isinstance(value, Number) and not isinstance(value, bool | complex):  # Decimal, Fraction, numpy's numbers
        # By its text: a 32-bit float is the number that was written, not the double nearest to it.
        found = float(value) if isinstance(value, int | float | Decimal) else _by_text(value)
    if found is None or math.isnan(found):
        raise ConfigurationError(f"must be {form}, not {value!r}", key=key)
    return found


def _by_text(value: Any) -> float | None:
    try:
        return float(value) if hasattr(value, "denominator") else float(str(value))
    except (ValueError, TypeError, OverflowError):
        return None


def read_whole(value: object, key: str, *, form: str = "a whole number, such as 3") -> int:
    """Return a whole number. Raises ``ConfigurationError``."""
    found = value if type(value) is int else read_number(value, key, form=form)
    if found != found // 1 or math.isinf(found):
        raise ConfigurationError(f"must be {form}, not {value!r}", key=key)
    return int(found)


def read_flag(value: object, key: str) -> bool:
    """Return true or false: the two, or their words in any case. Raises ``ConfigurationError``."""
    word = value.strip().lower() if isinstance(value, str) else None
    if word in {"true", "false"}:
        return word == "true"
    if isinstance(value, bool) or type(value).__name__ in {"bool_", "bool"}:  # numpy's own
        return bool(value)
    raise ConfigurationError(f"must be true or false, not {value!r}", key=key)


def read_share(value: object, key: str) -> float:
    """Return a share above 0 and up to 1, from a number or a percentage. Raises ``ConfigurationError``."""
    form = "a share above 0 and at most 1, such as 0.8 or '80%'"
    if isinstance(value, list | tuple | set | frozenset):
        raise ConfigurationError(f"must be one number, {form}, not {value!r}", key=key)
    stated = isinstance(value, str) and value.strip().endswith("%")
    share = read_number(str(value).strip()[:-1], key, form=form) / 100 if stated else read_number(value, key, form=form)
    if 0 < share <= 1:
        return share
    meant = f"; for {share:g} % write {share / 100:g}" if 1 < share <= 100 and not stated else ""  # noqa: PLR2004 - a per cent
    raise ConfigurationError(f"must be {form}, not {value!r}{meant}", key=key)


def read_seconds(value: object, key: str, *, endless: bool = False) -> float:
    """Return a length of time in seconds.

    Args:
        value: A number of seconds, a ``timedelta``, or text with a unit: ``90s``, ``15m``, ``2h``, ``7d``, ``1w``.
        key: The name of the value, for the error.
        endless: Read ``None`` as no limit, infinity.

    Raises:
        ConfigurationError: None of these, or negative.
    """
    form = "seconds, such as 90, a timedelta, or '90s', '15m', '2h', '7d'"
    if value is None and endless:
        return math.inf
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, str) and (match := _LENGTH.match(value.strip().lower())) and match[2]:
        unit = "m" if match[2] == "m" else _UNITS.get(match[2])
        if unit is None:
            raise ConfigurationError(f"must be {form}, not {value!r}", key=key)
        found = float(match[1]) * _SECONDS[unit]
    else:
        found = read_number(value, key, form=form)
    if found < 0:
        raise ConfigurationError(f"must be {form}, not {value!r}", key=key)
    return found


def read_patience(value: object, key: str) -> float | None:
    """Return how long a call can wait for its answer, in seconds; ``None`` where it cannot: for ``None`` and for 0.

    Raises:
        ConfigurationError: No length of time, or one without an end.
    """
    if value is None:
        return None
    if (found := read_seconds(value, key)) > _LONGEST_S:  # infinity, too: a call without an end is never late
        form = "a length of time with an end, such as '10m', '1h', '24h', a timedelta or seconds"
        raise ConfigurationError(f"must be {form}, not {value!r}", key=key)
    return found or None


def read_window(value: object, key: str = "window") -> str:
    """Return the canonical window: ``none``, ``hour``, ``day``, ``week``, ``month`` or ``3600s`` (rolling).

    A length of time is a rolling window (``"1d"`` is ``86400s``: the last 24 hours), a word a calendar one.

    Raises:
        ConfigurationError: No window, or one that could mean two.
    """
    if value is None:
        return ENDLESS
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _WINDOWS:
            return _WINDOWS[word]
        match = _LENGTH.match(word)
        unit = match[2] if match else ""
        if word in _YEARS or unit in _YEARS:
            told = "there is no calendar year; write '31536000s' for the last 365 days, or 'month'"
            raise ConfigurationError(f"{value!r}: {told}", key=key)
        if match and unit == "m":
            told = f"a minute or a month? Write '{float(match[1]) * 60:.0f}s' for minutes, 'month' for the calendar one"
            raise ConfigurationError(f"{value!r}: {told}", key=key)
        if match and unit in _MONTHS:
            told = "months have no one length; write 'month' for the calendar one, or '2592000s' for the last 30 days"
            raise ConfigurationError(f"{value!r}: {told}", key=key)
    try:
        seconds = read_seconds(value, key)
    except ConfigurationError:
        seconds = 0.0
    if not 1 <= seconds < _LONGEST_S or seconds != seconds // 1:
        form = "none, hour, day, week, month or whole seconds such as '3600s', '24h' or '7d'"
        word = value.strip().lower() if isinstance(value, str) and len(value) < _LONG else ""
        near = get_close_matches(word, CALENDAR, n=1)
        raise ConfigurationError(f"{value!r} is not {form}{f'; did you mean {near[0]!r}?' if near else ''}", key=key)
    return f"{int(seconds)}s"


def read_timezone(value: object, key: str = "timezone") -> str:
    """Return the IANA name of a time zone; ``None`` is UTC. Raises ``ConfigurationError``."""
    if value is None or value is UTC:
        return "UTC"
    name = value
    if isinstance(value, tzinfo):
        name = getattr(value, "key", None) or getattr(value, "zone", None) or str(value)
    if not isinstance(name, str):
        raise ConfigurationError(f"{value!r} is not a known time zone; write an IANA name, 'Europe/Vienna'", key=key)
    name = name.strip()
    if name.upper() in {"UTC", "Z", "GMT", "ETC/UTC"}:  # works without a time zone database, which Windows has not
        return "UTC"
    offset = _OFFSET.match(name)
    if offset:
        sign, hours, minutes = offset.groups()
        fixed = f", or 'Etc/GMT{'-' if sign == '+' else '+'}{int(hours)}' for a fixed offset"
        told = f"{value!r} is an offset, which summer time changes; write an IANA name, such as 'Europe/Vienna'"
        raise ConfigurationError(told + ("" if minutes not in {None, "00"} else fixed), key=key)
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = next((zone for zone in available_timezones() if zone.lower() == name.lower().replace(" ", "_")), "")
        told = f"did you mean {near!r}?" if near else "write an IANA name, such as 'Europe/Vienna'"
        raise ConfigurationError(f"{value!r} is not a known time zone; {told}", key=key) from None


def read_ledger_url(value: object, key: str = "ledger.url") -> str:
    """Return the URL of a ledger; a path, or its text, is a SQLite file. Raises ``ConfigurationError``."""
    servers = "'redis://host:6379/0' or 'postgresql://host/database'"
    form = f"a URL such as 'sqlite:///llm-cost.db', {servers}, or the path of a SQLite file"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
        if isinstance(value, str):
            return f"sqlite:///{_expanded(value)}"
    if not isinstance(value, str):
        raise ConfigurationError(f"must be {form}, not {value!r}", key=key)
    text = value.strip()
    if text == ":memory:":
        raise ConfigurationError(f"{value!r} is a file of SQLite's; a ledger in memory is 'memory://'", key=key)
    if "://" not in text and _is_path(text):
        return f"sqlite:///{_expanded(text)}"
    return text


def _expanded(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~") else path


def _is_path(text: str) -> bool:
    # Not every text with a slash: ``localhost:6379/0`` is a Redis without its scheme, and no file.
    return "@" not in text and (
        text.startswith(("/", "./", "../", "~/"))
        or (text.lower().endswith(_FILES) and (":" not in text or re.match(r"[A-Za-z]:[\\/]", text) is not None))
    )
