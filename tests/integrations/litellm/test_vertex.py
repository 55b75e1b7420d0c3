"""Groups of Vertex in a ``CostAwareRouter``: the ledger says what Google bills, in mixed groups, too."""

from __future__ import annotations

import pytest

pytest.importorskip("google.auth", reason="google-auth is of the extra google")

from llm_cost_middleware.errors import NoEligibleModelError, UnsupportedRequestError

pytestmark = pytest.mark.litellm
HAIKU = "claude-haiku-4-5@20251001"
MESSAGES = [{"role": "user", "content": "Hello there, how are you?"}]


@pytest.fixture
def entry(vertex):
    """Make an entry of a ``model_list``."""
    return lambda name, place="europe-west1", **params: vertex(name, place, HAIKU, **params)


@pytest.mark.parametrize(
    ("written", "given", "booked", "inside"),
    [
        ("europe-west1", "us-east5", "europe-west1", True),
        ("us-east5", "eu", "us-east5", False),
        ("eu", None, "eu", True),
        ("europe-west1", "global", "europe-west1", True),  # a tenth dearer than what is given
        ("europe-west2", "europe-west1", "europe-west2", False),  # London
        ("global", "eu", "global", False),
    ],
)
def test_what_an_address_says_is_where_a_deployment_is_whatever_its_location_says(
    make_harness, entry, sim, written, given, booked, inside
):
    deployment = entry("claude", written, vertex_location=given)
    free, ruled = make_harness(), make_harness(routing={"regions": ["eu"]})
    free.router([deployment]).completion("claude", MESSAGES, max_tokens=100)
    assert [record.model for record in free.pipeline.records()] == [f"{booked}/{HAIKU}"]
    free.agree()
    router = ruled.router([deployment])
    if inside:
        router.completion("claude", MESSAGES, max_tokens=100)
    else:
        with pytest.raises(NoEligibleModelError, match="not served in eu"):
            router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 1 + inside


def test_a_call_that_names_another_location_than_its_deployment_is_refused(make_harness, entry, sim):
    router = make_harness(routing={"regions": ["eu"]}).router([entry("claude")])
    for more in ({"vertex_location": "us-east5"}, {"vertex_ai_location": "us"}, {"api_base": f"{sim.vertex_url}/x"}):
        with pytest.raises(UnsupportedRequestError, match=next(iter(more))):
            router.completion("claude", MESSAGES, max_tokens=100, **more)
    assert sim.request_count == 0
