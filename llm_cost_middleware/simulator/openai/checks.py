"""Request checks that OpenAI's two endpoints share, with their error messages."""

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.simulator.catalogue import SimModel, catalogue
from llm_cost_middleware.simulator.fields import find_key, is_count
from llm_cost_middleware.simulator.refusals import Refusal, openai_error
from llm_cost_middleware.simulator.rules import rule_book

_FOREIGN = frozenset({"cache_control"})
TIERS = {"flex": "flex", "priority": "priority", "fast": "priority"}
_HOTTEST = 2
EFFORT_TOKENS = {"none": 0, "minimal": 0, "low": 64, "medium": 128, "high": 256, "xhigh": 512, "max": 1024}
"""Reasoning tokens that an answer spends on each effort that a request states."""


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> Refusal:
    """Return a refusal with status 400."""
    return openai_error(400, message, kind="invalid_request_error", param=param, code=code)


def unknown_parameter(where: str) -> Refusal:
    """Return a parameter that the endpoint does not know."""
    return bad_request(f"Unknown parameter: '{where}'.", param=where, code="unknown_parameter")


def unsupported(name: str, advice: str = "") -> Refusal:
    """Return a parameter that this model does not take."""
    message = f"Unsupported parameter: '{name}' is not supported with this model.{advice}"
    return bad_request(message, param=name, code="unsupported_parameter")


def missing(name: str) -> Refusal:
    """Return a required parameter that is not there."""
    return bad_request(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def find_model(body: Mapping[str, Any], endpoint: str) -> SimModel:
    """Return the model asked for; 404 at chat/completions, 400 at responses, as recorded."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise bad_request("you must provide a model parameter")
    model = catalogue().get(name)
    if model is not None and model.provider == "openai":
        if not model.max_output and endpoint != "embeddings":
            raise openai_error(404, f"This is not a chat model and thus not supported in the v1/{endpoint} endpoint.")
        return model
    if endpoint == "responses":
        raise bad_request(f"The requested model '{name}' does not exist.", param="model", code="model_not_found")
    message = f"The model `{name}` does not exist or you do not have access to it."
    raise openai_error(404, message, kind="invalid_request_error", code="model_not_found")


def check_foreign(body: Mapping[str, Any]) -> None:
    """Another provider's cache marks are unknown parameters, wherever they hide."""
    for field in ("messages", "input", "tools"):
        found = find_key(body.get(field), _FOREIGN, field)
        if found:
            raise unknown_parameter(found[0])


def check_limit(body: Mapping[str, Any], name: str, model: SimModel, least: int = 1) -> None:
    """Return the output limit is a whole number within the model's own."""
    limit = body.get(name)
    if limit is None:
        return
    if not is_count(limit):
        raise bad_request(f"Invalid type for '{name}': expected an integer.", param=name, code="invalid_type")
    if limit < least:
        raise bad_request(
            f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {limit} instead.",
            param=name,
            code="integer_below_min_value",
        )
    if limit > model.max_output:
        raise bad_request(
            f"{name} is too large: {limit}. This model supports at most {model.max_output} completion tokens, whereas "
            f"you provided {limit}.",
            param=name,
            code="invalid_value",
        )


def check_temperature(body: Mapping[str, Any]) -> None:
    """Temperature within its range."""
    temperature = body.get("temperature")
    if temperature is not None and temperature < 0:
        raise bad_request(
            "Invalid 'temperature': decimal below minimum value. Expected a value >= 0, but got "
            f"{temperature} instead.",
            param="temperature",
            code="decimal_below_min_value",
        )
    if temperature is not None and temperature > _HOTTEST:
        raise bad_request(
            f"Invalid 'temperature': decimal above maximum value. Expected a value <= {_HOTTEST}, but got "
            f"{temperature} instead.",
            param="temperature",
            code="decimal_above_max_value",
        )


def check_rules(body: Mapping[str, Any], model: SimModel, endpoint: str) -> None:
    """What the rules of the provider refuse of this model."""
    broken = rule_book("openai").check(body, model.id, endpoint, called=body["model"])
    if broken is not None:
        raise bad_request(broken.message, param=broken.parameter, code=broken.rule.code)


def check_effort(effort: object, where: str) -> None:
    """Only a known effort."""
    if effort is not None and effort not in EFFORT_TOKENS:
        raise bad_request(f"Invalid value: '{effort}'.", param=where, code="invalid_value")


def check_cache_options(body: Mapping[str, Any], model: SimModel) -> None:
    """Explicit breakpoints and their options came with GPT-5.6."""
    marked = "prompt_cache_options" in body and "prompt_cache_options"
    for field in ("messages", "input"):
        found = find_key(body.get(field), frozenset({"prompt_cache_breakpoint"}), field)
        marked = marked or (found and found[0]) or ""
    if marked and model.cache != "breakpoints":
        raise unsupported(marked)
    options = body.get("prompt_cache_options") or {}
    if options.get("mode", "implicit") not in {"implicit", "explicit"}:
        raise bad_request(
            "Invalid value for 'prompt_cache_options.mode'.", param="prompt_cache_options.mode", code="invalid_value"
        )
    if options.get("ttl", "30m") not in {"30m", "12h"}:
        raise bad_request(
            "Invalid value for 'prompt_cache_options.ttl'.", param="prompt_cache_options.ttl", code="invalid_value"
        )
    if body.get("prompt_cache_retention", "24h") not in {"24h", "in_memory", None}:
        raise bad_request(
            "Invalid value for 'prompt_cache_retention'.", param="prompt_cache_retention", code="invalid_value"
        )


def tier_of(body: Mapping[str, Any], model: SimModel) -> str:
    """Return the service tier that serves the request; flex and priority only where the model has them."""
    tier = body.get("service_tier")
    if tier not in {None, "auto", "default", "flex", "scale", "priority", "fast"}:
        raise bad_request(f"Invalid value: '{tier}'.", param="service_tier", code="invalid_value")
    name = TIERS.get(tier or "", "standard")
    if name != "standard" and name not in model.rates:
        raise bad_request(
            f"Invalid service_tier argument: '{tier}' is not available for this model.", param="service_tier"
        )
    return name


def lifetime_of(body: Mapping[str, Any], model: SimModel) -> str:
    """Return the lifetime of the request's cache entries, by its name in the API."""
    if model.cache == "breakpoints":
        return str((body.get("prompt_cache_options") or {}).get("ttl") or "30m")
    return str(body.get("prompt_cache_retention") or "24h")
