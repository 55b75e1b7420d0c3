"""The page's files, and the page as one file that needs no other."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

ASSETS = {
    "/assets/uplot.css": ("uplot/uPlot.min.css", "text/css; charset=utf-8"),
    "/assets/page.css": ("page.css", "text/css; charset=utf-8"),
    "/assets/uplot.js": ("uplot/uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/assets/elements.js": ("elements.js", "text/javascript; charset=utf-8"),
    "/assets/chart.js": ("chart.js", "text/javascript; charset=utf-8"),
    "/assets/sections.js": ("sections.js", "text/javascript; charset=utf-8"),
    "/assets/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
"""Where the server has each file, the file, and what it is; in the order in which the page needs them."""
SERVED_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'"
)


@cache
def asset(path: str) -> bytes:
    """Return a file of the page by where the server has it. Raises ``KeyError``."""
    return files("llm_cost_middleware.dashboard").joinpath("assets", ASSETS[path][0]).read_bytes()


@cache
def served() -> bytes:
    """Return the page that fetches its files and answers from its server."""
    styles = "".join(f'<link rel="stylesheet" href="{path[1:]}">\n' for path in ASSETS if path.endswith(".css"))
    scripts = "".join(f'<script src="{path[1:]}" defer></script>\n' for path in ASSETS if path.endswith(".js"))
    return _filled(title="What calls cost", policy="", styles=styles, scripts=scripts, data="").encode()


def standalone(document: dict[str, Any], title: str = "What calls cost") -> str:
    """Return the page as one file that asks nothing of any host: its scripts, its styles and a document.

    Args:
        document: ``Source.document``. Names in it are data: they stand in a JSON block, and scripts write them as text.
        title: Of the window.
    """
    styles, scripts = (
        ["\n" + asset(path).decode() for path in ASSETS if path.endswith(kind)] for kind in (".css", ".js")
    )
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    told = json.dumps(document, separators=(",", ":"), allow_nan=False)
    # Nothing in it may end the block or begin a comment, whatever a name holds; json.dumps leaves ASCII alone.
    block = told.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return _filled(
        title=title,
        policy=f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        styles="".join(f"<style>{text}</style>\n" for text in styles),
        scripts="".join(f"<script>{text}</script>\n" for text in scripts),
        data=f'<script type="application/json" id="document">{block}</script>\n',
    )


def _filled(*, title: str, **parts: str) -> str:
    text = files("llm_cost_middleware.dashboard").joinpath("assets", "page.html").read_text(encoding="utf-8")
    return Template(text).substitute(title=escape(title), **parts)


def _hashes(texts: list[str]) -> str:
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)
