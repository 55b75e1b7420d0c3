"""What a platform is, to the rest of the package: a provider's models under other names, prices, errors and places.

``platforms/`` holds one package a platform, each of which fills in one ``Platform``. A target there is
``PLATFORM/[PLACE/]MODEL``: ``azure/eu/gpt-5-mini``. Its text alone says what it is, whatever the configuration, so
that limits, prices and reports can be looked up for it anywhere. The names of deployments are the hosts' to translate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_cost_middleware.errors import ConfigurationError

if TYPE_CHECKING:
    from llm_cost_middleware.provider import Provider

_PACKAGES = {
    "azure": "llm_cost_middleware.platforms.azure",
    "bedrock": "llm_cost_middleware.platforms.bedrock",
    "vertex_ai": "llm_cost_middleware.platforms.vertex",
}
CLIENTS: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "anthropic": {
        "Anthropic": "anthropic", "AsyncAnthropic": "anthropic",
        "AnthropicBedrock": "bedrock", "AsyncAnthropicBedrock": "bedrock",
        "AnthropicBedrockMantle": "bedrock", "AsyncAnthropicBedrockMantle": "bedrock",
        "AnthropicVertex": "vertex_ai", "AsyncAnthropicVertex": "vertex_ai",
    },
    "openai": {
        "OpenAI": "openai", "AsyncOpenAI": "openai", "AzureOpenAI": "azure", "AsyncAzureOpenAI": "azure",
    },
})  # fmt: skip
"""By SDK: its client classes, each with the provider or the platform that it talks to."""
PLATFORMS = _PACKAGES.keys()
"""The names of the platforms, a live view."""
GLOBAL, PROVISIONED = "global", "provisioned"
"""Places that every platform has: anywhere, and capacity that is paid by the hour."""
REGIONAL = "regional"
"""The place of a name that says only that it stays in one region: the one that it was sent to, whichever that is."""


class Served(NamedTuple):
    """A model as its provider knows it, and where it is served."""

    provider: str
    model: str
    place: str = ""
    """``global``, a geography, a region, ``provisioned``; empty: not known."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform's rules, gathered."""

    name: str
    """As in targets, in scopes and in ``[platforms.NAME]``."""
    provider: str
    """Whose models it serves."""
    rules: Provider
    """The provider's rules, with what differs here; ``rules.name`` is the platform's."""
    parse: Callable[[str], Served | None]
    """A name of a model here, with or without a place, to what it stands for; ``None`` where it is none. The
    provider's own names, which answers carry, are names here, too."""
    factor: Callable[[Served], Decimal]
    """What the place costs beside the provider's list prices; of a place that is not known the most."""
    geography: Callable[[str], str]
    """The geography of a place (``eu``, ``us`` …), which may be the place itself; empty where it is not known."""
    geographies: tuple[str, ...]
    """All that ``geography`` returns but the empty one."""
    has_place: Callable[[str], bool]
    """Whether a word is a place here, or has the form of a region's name."""
    key_env: tuple[str, ...]
    """Variables of which one shows that the platform can be reached."""
    price_source: str = ""
    """The provider's id in genai-prices where it lists the platform's own prices; empty: it does not."""
    listed_as: Callable[[Served], tuple[tuple[str, Decimal], ...]] = lambda _: ()
    """Names to look for there, best first, each with the factor of its price; none found: the provider's prices."""
    deploys: bool = True
    """Models are called by the names of deployments, so that one without a deployment cannot be called."""
    takes_plain_clients: bool = False
    """The client of the provider's own SDK can be set to its address."""
    place_of: Callable[[Any], str] = lambda _: ""
    """The place that a client of its SDK is bound to; empty: the names of models say it, or nobody does."""
    reached_from: Callable[[str], tuple[str, ...]] = lambda place: (place, PROVISIONED)
    """The places that a client which is bound to one can call."""
    deployed_at: Callable[[str, str, str, str, str], str] | None = None
    """The place of a deployment by its type, its region, its place and that of those which say nothing, as stated under
    a key; ``None``: types are places."""
    deployment_of: Callable[[Any, str], str] = lambda _client, _endpoint: ""
    """The deployment that all calls of an endpoint go to, of a client of its SDK; empty: each call names its own."""
    deployment_in: Callable[[str], str] = lambda _path: ""
    """The deployment that a path names; empty: none."""
    knows_no_stream_usage: Callable[[Any], bool] = lambda _: False
    """Whether the version of the API that a client speaks refuses to be asked for the usage of a stream."""
    sent_as: Callable[[str], str] = str
    """A name of a model, without its place, as requests carry it."""
    batches: bool = True
    """Its SDK's client makes batches there."""
    is_batch_type: Callable[[str], bool] = lambda _: False
    """Whether a deployment of a type is one that answers batches, and nothing else."""
    needs: tuple[str, ...] = ()
    """Packages without which its SDK's clients cannot send."""
    packages: tuple[str, ...] = ()
    """Packages whose exceptions are the platform's alone."""
    litellm_place: Callable[[Mapping[str, Any], str], str] = lambda _params, named: named
    """Where LiteLLM sends the calls of a deployment, of its parameters and the place that its model names, as a target
    writes it; empty: nobody says; a word that is no place: they contradict one another, or name none."""
    litellm_deployment: Callable[[Mapping[str, Any], str], str] = lambda _params, named: named
    """What LiteLLM calls of a deployment, of its parameters and the model that they name: an address may hold it."""
    litellm: tuple[str, ...] = ()
    """What LiteLLM calls it, as ``custom_llm_provider``."""


@cache
def find_platform(name: str) -> Platform | None:
    """The rules of a platform by its name; ``None`` for a name that is not one of ``PLATFORMS``."""
    if name not in PLATFORMS:
        return None
    platform: Platform = import_module(_PACKAGES[name]).PLATFORM
    return platform


def own_clients(provider: str) -> frozenset[str]:
    """The client classes of a provider's SDK that talk to the provider itself."""
    return frozenset(name for name, service in CLIENTS[provider].items() if service == provider)


def platform_clients(provider: str) -> Mapping[str, str]:
    """Its client classes that talk to a platform, each with the platform's name."""
    return {name: service for name, service in CLIENTS[provider].items() if service != provider}


def maker_of(name: str) -> str:
    """The provider whose models go by a name of a provider or a platform; of a provider, itself."""
    platform = find_platform(name) if name in PLATFORMS else None
    return name if platform is None else platform.provider


@lru_cache(maxsize=1024)  # callers choose the names
def served_model(provider: str, model: str) -> Served:
    """What a target stands for: a provider's own as it is, a platform's as its provider knows it."""
    platform = find_platform(provider)
    if platform is None:
        return Served(provider, model)
    return platform.parse(model.removeprefix(f"{provider}/")) or Served(platform.provider, model)


def geography_of(provider: str, model: str) -> str:
    """Where a target is served; empty where it is not known, as of a provider's own service."""
    platform = find_platform(provider)
    if platform is None:
        return ""
    place = served_model(provider, model).place
    return platform.geography(place) if place else ""


def is_inside(provider: str, model: str, regions: tuple[str, ...]) -> bool:
    """Whether a target is served in one of the regions or geographies; never where its place is not known.

    A provider's own service is ``global``.
    """
    place = GLOBAL if find_platform(provider) is None else served_model(provider, model).place
    return place in regions or geography_of(provider, model) in regions


def why_outside(provider: str, model: str, regions: tuple[str, ...]) -> str:
    """Why a target that is not inside regions is refused: it is elsewhere, or nothing says where it is."""
    where = " or ".join(regions)
    if find_platform(provider) is None or served_model(provider, model).place not in ("", REGIONAL):
        return f"is not served in {where}"
    return f"is not known to be served in {where}: say it by [platforms.{provider}] place, or of its deployment"


def read_regions(names: Iterable[str]) -> tuple[str, ...]:
    """``[routing] regions``: geographies and regions of platforms, in any case.

    Raises:
        ConfigurationError: There is no such place anywhere; it names the nearest that there is.
    """
    read = tuple(name.lower() for name in names)
    platforms = [platform for name in PLATFORMS if read and (platform := find_platform(name)) is not None]
    known = sorted({place for platform in platforms for place in platform.geographies})
    for name in read:
        if name == PROVISIONED or not any(name in known or platform.has_place(name) for platform in platforms):
            near = get_close_matches(name.strip(), known, n=1) or [one for one in known if name.startswith(one)][-1:]
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(
                f"{name!r} is no region of a platform (such as eu-west-1, swedencentral, europe-west1), and none of "
                f"{', '.join(known)}{hint}", key="routing.regions",
            )  # fmt: skip
    return read


def names_of_target(provider: str, model: str) -> tuple[str, ...]:
    """The names by which a target may be meant: its own, and the one that is sent where that names no place.

    ``eu-west-1/anthropic.claude-opus-5`` is what ``anthropic.claude-opus-5`` is in one region: a price or a limit that
    was stated for all of them holds there.
    """
    place, slash, bare = model.rpartition("/")
    platform = find_platform(provider) if slash else None
    if platform is None or place in (PROVISIONED, platform.geography(place)):
        return (model,)
    plain = platform.parse(bare)
    return (model, bare) if plain is not None and plain.place == REGIONAL else (model,)


def at_place(name: str, place: str) -> str:
    """The name of a model at a place: ``eu/gpt-5-mini``."""
    return f"{place}/{name}" if place else name


def answered_name(provider: str, answered: str | None, requested: str | None) -> str | None:
    """The model to price an answer as: the one that it names, at the place of the target that was asked."""
    if provider not in PLATFORMS or not requested:
        return answered or requested
    platform = find_platform(provider)
    asked = platform.parse(requested.removeprefix(f"{provider}/")) if platform is not None else None
    named = platform.parse(answered) if platform is not None and answered else None
    if asked is None:  # a name with a price of its owner's
        return requested
    if named is None or named.place or named.model == asked.model or asked.place == PROVISIONED:
        return answered if named is not None and named.place else requested
    return at_place(named.model, asked.place)


def platform_of_packages(packages: Iterable[str]) -> str | None:
    """The platform whose exceptions are those of one of the packages; ``None`` where it is nobody's alone."""
    names = frozenset(packages)
    return next((name for name in PLATFORMS if (p := find_platform(name)) and not names.isdisjoint(p.packages)), None)


def platform_in_litellm(name: str) -> Platform | None:
    """The platform that LiteLLM calls by a name, as ``custom_llm_provider``; ``None`` for any other."""
    return next((p for known in PLATFORMS if (p := find_platform(known)) is not None and name in p.litellm), None)
