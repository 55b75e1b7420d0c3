"""A router that knows its deployments by every kind of name, and those names."""

from __future__ import annotations

HAIKU, MINI = "anthropic/claude-haiku-4-5-20251001", "openai/gpt-5-mini"
TEAM = {"metadata": {"user_api_key_team_id": "blue"}}

NAMES = {
    "group": ("mini", {}),
    "alias": ("short", {}),
    "hidden alias": ("hidden", {}),
    "id": ("dep-1", {}),
    "id of a team's": ("team-1", TEAM),
    "model": (MINI, {}),
    "specific": (MINI, {"specific_deployment": True}),
    "wildcard": ("claude/claude-haiku-4-5-20251001", {}),
    "public name of a team": ("ours", TEAM),
}
"""Each kind of name that leads to a deployment that can be governed, and what a call says beside it."""
OTHERS = {
    "routed": ("smart", {}),
    "several": ("mini,short", {}),
    "unknown": ("nobody", {}),
    "other platform": ("elsewhere", {}),
}
"""Names that lead elsewhere, or nowhere."""


def listed(harness):
    """The router; what it reaches is told in ``NAMES`` and ``OTHERS``."""
    team = harness.deployment("internal", MINI)
    team["model_info"] = {"id": "team-1", "team_id": "blue", "team_public_model_name": "ours"}
    by_id = harness.deployment("mini", MINI)
    by_id["model_info"] = {"id": "dep-1"}
    claude = harness.deployment("claude/*", HAIKU)
    claude["litellm_params"]["model"] = "anthropic/*"
    other = harness.deployment("elsewhere", "together_ai/x")
    return harness.router(
        [by_id, team, claude, other],
        model_group_alias={"short": "mini", "hidden": {"model": "mini", "hidden": True}},
        num_retries=0,
        disable_cooldowns=True,
    )
