"""Where an optional dependency enters: one place that turns its absence into a sentence with the way out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from llm_cost_middleware.errors import MissingExtraError

EXTRA_OF = {
    "anthropic": None, "genai_prices": None, "httpx": None, "langchain_core": None, "litellm": None,
    "msgspec": None, "openai": None, "rich": None, "typer": None,
    "langchain": "langchain", "langgraph": "langchain", "langchain_anthropic": "langchain",
    "langchain_litellm": "langchain", "langchain_openai": "langchain",
    "aiohttp": "demo",  # the simulator
    "apprise": "alerts", "boto3": "aws", "botocore": "aws", "langchain_aws": "aws",
    "google.auth": "google", "langchain_google_vertexai": "google",
    "fastapi": "proxy", "redis": "redis", "psycopg": "postgres", "opentelemetry": "otel", "prometheus_client": "otel",
    # parts of one package that several distributions share: with a host comes the first of them alone
    "opentelemetry.sdk": "otel", "opentelemetry.exporter": "otel", "opentelemetry.exporter.prometheus": "otel",
    "numpy": "learn", "pyarrow": "learn", "scipy": "learn", "sklearn": "learn",
    "hypothesis": "tools", "pytest": "tools",
}  # fmt: skip
"""The extra that brings a package, by the name it is imported by; ``None`` where a plain installation has it."""


_DISTRIBUTION = {
    "botocore": "boto3", "fastapi": "litellm", "langgraph": "langchain", "opentelemetry": "opentelemetry-api",
    "opentelemetry.exporter": "opentelemetry-exporter-prometheus",
    "prometheus_client": "opentelemetry-exporter-prometheus",
    "scipy": "scikit-learn", "sklearn": "scikit-learn",
}  # fmt: skip
"""What an extra lists that brings a package, where it is called otherwise."""


def requirement_of(package: str, extra: str | None = None) -> str:
    """What ``pip install`` is to be given for a package that is missing.

    Where something of the plain installation is missing, the package is named by itself: whoever left that out would
    get all of it by an extra of this package.

    Args:
        package: The name that it is imported by, or that of its distribution.
        extra: The extra that brings it; ``None`` where a plain installation has it.

    Returns:
        An extra of this package, or the package with the versions that this one works with.
    """
    if extra and not is_slim():
        return f"llm-cost-middleware[{extra}]"
    name = _DISTRIBUTION.get(package, package).replace("_", "-").replace(".", "-")
    try:
        listed = requires("llm-cost-middleware") or ()
    except PackageNotFoundError:  # it runs from its source
        listed = ()
    for line in listed:
        wanted, _, marker = (part.strip() for part in line.partition(";"))
        brought_by = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if re.split(r"[^\w-]", wanted, maxsplit=1)[0] == name and (brought_by[1] if brought_by else None) == extra:
            return wanted
    return name


def is_slim() -> bool:
    """Whether this package was installed without some of what a plain installation brings."""
    return any(extra is None and find_spec(package) is None for package, extra in EXTRA_OF.items())


def require(feature: str, packages: Iterable[str]) -> None:
    """Look whether packages are installed, without importing them.

    Raises:
        MissingExtraError: One of them, which an extra of ``EXTRA_OF`` brings, is not.
    """
    for package in packages:
        if find_spec(package) is None:
            extra = EXTRA_OF[package]
            raise MissingExtraError(feature, extra, package, requirement_of(package, extra))


@contextmanager
def needed_for(feature: str, *, extra: str | None = None) -> Iterator[None]:
    """Import what ``feature`` needs inside this.

    A package that is installed but fails at import is another matter: its own error passes through, for "install it"
    would be the wrong advice.

    Args:
        feature: What needs the package, for the message.
        extra: The extra to name instead of that of ``EXTRA_OF``, where a smaller one is enough.

    Raises:
        MissingExtraError: A package that an extra of ``EXTRA_OF`` brings is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # a module that is missing from a package that is there names the module: no extra would bring it
        if error.name not in EXTRA_OF:
            raise
        usual = EXTRA_OF[error.name]
        named = usual and (extra or usual)
        raise MissingExtraError(feature, named, error.name, requirement_of(error.name, named)) from None
