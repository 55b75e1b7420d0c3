"""Call sites: which of the application's own tasks a call belongs to.

Most of what can be learned about a call is its task: the task label alone reaches an APGR of 0.68 (MMLU) to 0.90
(mixed tasks), where 0.5 is chance. An application gives it for free: the name it passes, else its system prompt,
tools, output schema and tags.

Sites are a hierarchy: a site, the sites alike (the same template with other names), those of the same task (tools,
schema and tags), and all. What is known of a wider group stands in where the narrower one has few calls or none.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

from llm_cost_middleware.request import CallRequest
from llm_cost_middleware.routing.features import GROUP_PREFIXES

PLAIN = "plain"
"""Site of a call without a name, instructions, tools, schema or tags."""

_HEAD = 400  # characters of the instructions; later ones are assumed to vary (examples, retrieved text)
_VARIABLE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{12,}\b|\d+", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://\S+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DATE = re.compile(
    r"\b(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
    r"|January|February|March|April|May|June|July|August|September|October|November|December)\b"
)
_CAPITAL = r"[A-Z\u00c0-\u00de\u0391-\u03a9\u0410-\u042f][\w'\u2019-]*"
# particles belong to the name around them
_NAMES = re.compile(rf"{_CAPITAL}(?: +(?:(?:&|and|von|van|de|del|di|la|of) +)?{_CAPITAL})*")
_TITLES = ("Dr. ", "Mr. ", "Mrs. ", "Ms. ", "Prof. ")
_OF_SOMEBODY = frozenset((
    "user", "customer", "client", "name", "company", "patient", "author", "contact", "account", "tenant",
    "organization", "employee", "student",
))  # fmt: skip
_CACHED = 4_096  # fingerprints; a new one takes 30 µs, a known one 1, and all the rest of a decision 25


class CallSite(NamedTuple):
    """A call's site, and the wider groups that it belongs to."""

    name: str
    """The caller's own, else a fingerprint."""
    groups: tuple[str, ...] = ()
    """Keys of the sites alike and of the same task, the narrower one first; empty for a plain call."""


_PLAIN = CallSite(PLAIN)
_sites: dict[int, CallSite] = {}


def call_site(request: CallRequest) -> str:
    """Return the caller's own name for the site, else a fingerprint that is stable over dates, counters, ids and names.

    The fingerprint is of the first 400 characters of the instructions with every number, id, address, date and name
    blanked, the names of the tools, the output schema and the tags. It is not reversible, and no text is kept.
    """
    return request.context.call_site or read_site(request).name


def read_site(request: CallRequest) -> CallSite:
    """Return the site of a call and the groups above it.

    A name is told from other words by its capital inside a sentence, in quotes, or as the value of a field such as
    "customer". What that misses (a name that begins a sentence) is blanked in the group of sites alike.
    """
    context, schema, called = request.context, request.output_schema, request.tools
    tags, named = context.tags, context.call_site
    system = "".join([part.text for part in request.messages[0].parts]) if request.contents.systems else ""
    if not (system or called or schema or tags):
        return CallSite(named) if named else _PLAIN
    tools = tuple([tool.name for tool in called])
    key = hash((system, tools, schema, tags, named))
    site = _sites.get(key)
    if site is None:
        if len(_sites) >= _CACHED:
            _sites.clear()  # instructions that never repeat would otherwise grow it for ever
        head = _DATE.sub("#", system[:_HEAD])
        if "@" in head or "://" in head:
            head = _ADDRESS.sub("#", head)
        head = _VARIABLE.sub("#", head)
        blanked = _NAMES.sub(_blank_name, head)
        tagged = sorted(_VARIABLE.sub("#", tag) for tag in tags)
        task = ("\x1f".join(sorted(tools)), schema, "\x1f".join(tagged))
        parts = (_NAMES.sub(_blank_any, head), *task), task
        groups = tuple(prefix + _digest(part) for prefix, part in zip(GROUP_PREFIXES, parts, strict=True))
        site = _sites[key] = CallSite(named or _digest((blanked, *task)), groups)
    return site


def _blank_any(found: re.Match[str]) -> str:
    # JSON, SQL and NEVER are no names
    return found[0] if found[0].isupper() else "@"


def _blank_name(found: re.Match[str]) -> str:
    text, start = found.string, found.start()
    before = text[max(0, start - 2) : start]
    if not before or (before[-1] not in " (\"'\u201c"):
        return found[0]
    if before == ": ":
        line = text[text.rfind("\n", 0, start) + 1 : start - 2]
        inside = not _OF_SOMEBODY.isdisjoint(line.lower().split())
    else:
        inside = before[-1] != " " or before[0] not in ".!?\n\u2022*#>- " or text.endswith(_TITLES, 0, start)
    return _blank_any(found) if inside else found[0]


def _digest(identity: tuple[str, ...]) -> str:
    return blake2b("\x1e".join(identity).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
