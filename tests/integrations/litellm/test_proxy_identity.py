"""What clients of the proxy write to spend another's money, to hide their own, or to break it.

Every trick at every endpoint (a sample of the product; all of it by ``--soak``), over HTTP against a real proxy. It is
refused or served; nothing stays pending, and what was served is booked at its bill under the scopes of the key that was
authenticated. One request is one hold of a bounded number of scopes.
"""

from __future__ import annotations

import json
import threading
from urllib.parse import unquote

import httpx
import pytest
from proxy_process import Providers, Proxy

from llm_cost_middleware.integrations.litellm.identity import MAX_CLIENT_TAGS
from llm_cost_middleware.simulator import Fault, fill

ASK = [{"role": "user", "content": "Count to forty."}]
BODIES = {
    "/v1/chat/completions": {"model": "gpt-5-mini", "messages": ASK, "max_completion_tokens": 40},
    "/v1/responses": {"model": "gpt-5-mini", "input": "Count to forty.", "max_output_tokens": 40},
    "/v1/messages": {"model": "claude-sonnet-4-6", "messages": ASK, "max_tokens": 40},
}
ROUTED = {"/v1/chat/completions": {"model": "smart"}, "/v1/responses": {"model": "smart"}}
MANY = [f"t{number}" for number in range(20_000)]
OWN = {"global", "key:mallory-key", "user:mallory", "team:blue"}


def metadata(value, **more):
    return {"metadata": value, **more}


def llm_cost(value):
    return metadata({"llm_cost": value})


BODY_TRICKS = {
    # --- a hold that is hidden, and ids that are replayed: ``{id}`` is one that stands in the ledger
    "hidden hold": metadata({"llm_cost_governed": "x"}),
    "hidden hold in LiteLLM's own": {"litellm_metadata": {"llm_cost_governed": "x"}},
    "hidden hold of another type": metadata({"llm_cost_governed": {"a": [None]}}),
    "replayed id": metadata({"llm_cost_governed": "{id}"}, litellm_metadata={"llm_cost_governed": "{id}"}),
    "replayed id with a signature": metadata({"llm_cost_governed": "{id}." + "0" * 64}),
    "replayed scopes and target": metadata(
        {"llm_cost_scopes": ["user:alice"], "llm_cost_target": "claude-sonnet-4-6"},
        litellm_metadata={"llm_cost_scopes": {"a": 1}, "llm_cost_target": []},
    ),
    "metadata as text": metadata(json.dumps({"llm_cost_governed": "x", "llm_cost": {"user": "alice"}})),
    # --- scopes of somebody else
    "scopes of ours": llm_cost({
        "user": "alice", "team": "red", "key": "alice-key", "end_user": "alice", "scopes": ["user:alice"],
        "force_model": "claude-sonnet-4-6", "mode": "observe",
    }),
    "scopes of ours in LiteLLM's own": {"litellm_metadata": {"llm_cost": {"user": "alice", "scopes": ["user:alice"]}}},
    "identity of LiteLLM's": metadata(
        {"user_api_key_user_id": "alice", "user_api_key_alias": "alice-key", "user_api_key_team_id": "red"},
        litellm_metadata={"user_api_key_user_id": "alice", "user_api_key_auth": {"user_id": "alice"}},
    ),
    "end user in the body": {"user": "alice"},
    "end user in the metadata": metadata({"user_id": "alice"}),
    "end user for safety": {"safety_identifier": "alice"},
    # --- nothing, and things of the wrong kind
    "null": metadata(None, litellm_metadata=None),
    "list": metadata([1, {"tags": ["a"]}]),
    "number": metadata(3),
    "text": metadata("x"),
    "nested": metadata({"a": {"b": [None, {"c": 1}]}, "tags": {"a": 1}}),
    "tags of odd types": metadata({"tags": [None, 1, True, "", "fine"]}),
    "tags without a hash": metadata({"tags": [{}, [], "fine"]}),
    "tags as text": metadata({"tags": "abc"}),
    "attributes as a list": llm_cost(["a"]),
    "attributes as text": llm_cost("x"),
    "no hashable conversation": llm_cost({"conversation": {"a": []}}),
    "no hashable site": llm_cost({"site": ["a"]}),
    "count as text": llm_cost({"item_count": "many"}),
    "count as truth": llm_cost({"item_count": True}),
    "endless amount": llm_cost({"max_cost": "1e999999999"}),
    "negative amount": llm_cost({"max_cost": -1}),
    "number of many digits": llm_cost({"max_cost": "9" * 10_000}),
    # --- too much of it
    "huge value": metadata({"x": "y" * 1_000_000}),
    "huge conversation": llm_cost({"conversation": "y" * 1_000_000}),
    "huge site": llm_cost({"site": "y" * 1_000_000}),
    "huge tag": metadata({"tags": ["y" * 1_000_000, "fine"]}),
    "many keys": metadata({f"k{number}": "v" for number in range(20_000)}),
    "many tags": metadata({"tags": MANY}),
    "many tags beside the body": {"tags": MANY},
    "many tags in LiteLLM's own": {"litellm_metadata": {"tags": MANY}},
    "many tags of ours": llm_cost({"tags": MANY}),
    "many tags everywhere": metadata(
        {"tags": MANY, "llm_cost": {"tags": [f"a{tag}" for tag in MANY]}},
        litellm_metadata={"tags": [f"b{tag}" for tag in MANY]},
    ),
}  # fmt: skip
HEADER_TRICKS = {
    "end user": {"x-litellm-end-user-id": "alice", "x-litellm-customer-id": "alice"},
    "names of ours": {"x-llm-cost-user": "alice", "llm_cost_governed": "x", "x-litellm-user-id": "alice"},
    "metadata": {"x-litellm-spend-logs-metadata": json.dumps({"llm_cost_governed": "x", "user_id": "alice"})},
    "tags": {"x-litellm-tags": ",".join(MANY[:2_000])},
}
SERVED = {
    "hidden hold",
    "hidden hold in LiteLLM's own",
    "replayed id",
    "scopes of ours",
    "identity of LiteLLM's",
    "end user in the body",
    "end user in the metadata",
    "null",
    "nested",
    "huge value",
    "many tags",
    "many tags everywhere",
}
"""Those that a plain proxy serves with these providers, so that a refusal would be ours."""
BROKEN_WITHOUT_US = {"tags without a hash"}
"""Those that LiteLLM meets with a 500 before it runs any hook (1.108: ``dict.fromkeys`` over the tags of a body)."""
EVERYWHERE = {"hidden hold", "null"}
every_endpoint = pytest.mark.parametrize("path", BODIES)


def sampled(tricks):
    """Pairs of a trick and an endpoint: each trick at one endpoint, in turn; the others in the long form."""
    for number, trick in enumerate(tricks):
        for place, path in enumerate(BODIES):
            short = trick in EVERYWHERE or (number + place) % len(BODIES) == 0
            yield pytest.param(trick, path, marks=() if short else pytest.mark.soak)


def filled(value, call_id):
    """A trick with the id of a call that happened."""
    if isinstance(value, dict):
        return {name: filled(item, call_id) for name, item in value.items()}
    return value.replace("{id}", call_id) if isinstance(value, str) else value


def post(proxy, path, body, *, key="mallory", headers=()):
    """One request. Returns its answer and the rows that it left, once nothing is pending any more."""
    (booked, billed), rows, sent = proxy.since(), len(proxy.rows()), proxy.sim.request_count
    headers = {"authorization": f"Bearer sk-{key}", **dict(headers)}
    answer = httpx.post(proxy.url + path, json={**BODIES[path], **body}, headers=headers, timeout=120)
    after = proxy.since()
    left = proxy.rows()[rows:]
    assert after[0] - booked == after[1] - billed  # what was refused cost nothing
    # the work of a request, however much it brings along: one hold, one end of it, one request to the provider
    assert [row.kind for row in left] in ([], ["reserve", "settle"], ["reserve", "void"])
    assert proxy.sim.request_count - sent == (answer.status_code == 200)
    assert (after[1] > billed) == (answer.status_code == 200)
    return answer, left


def scopes_of(rows):
    """The scopes of a request but for its model, and apart from them its tags."""
    (names,) = {row.scopes for row in rows}
    kinds = {"provider", "model", "site"}
    tags = [unquote(name.partition(":")[2]) for name in names if name.startswith("tag:")]
    return {name for name in names if name.partition(":")[0] not in {*kinds, "tag"}} | {"global"}, tags


@pytest.mark.parametrize(("trick", "path"), list(sampled(BODY_TRICKS)))
def test_a_trick_in_the_body_is_refused_or_booked_to_who_sent_it(trick, path, proxy):
    call_id = proxy.rows()[-1].id.rpartition(".")[0] if proxy.rows() else "x"
    answer, rows = post(proxy, path, filled(BODY_TRICKS[trick], call_id))
    assert answer.status_code < (501 if trick in BROKEN_WITHOUT_US else 500), answer.text[:500]
    if trick in SERVED:
        assert answer.status_code == 200, answer.text[:300]
    if answer.status_code == 200:
        found, tags = scopes_of(rows)
        assert found == OWN
        assert len(tags) <= MAX_CLIENT_TAGS
    else:
        assert len(answer.text) < 20_000  # an error that repeats what was sent is of its size


@pytest.mark.parametrize(("trick", "path"), list(sampled(HEADER_TRICKS)))
def test_a_trick_in_the_headers_is_booked_to_who_sent_it(trick, path, proxy):
    answer, rows = post(proxy, path, {}, headers=HEADER_TRICKS[trick])
    assert answer.status_code == 200, answer.text[:300]
    found, tags = scopes_of(rows)
    assert found == OWN
    assert len(tags) <= MAX_CLIENT_TAGS


@every_endpoint
def test_a_key_without_a_user_gets_none_by_naming_one(path, proxy):
    answer, rows = post(proxy, path, {"user": "alice"}, key="shared", headers=HEADER_TRICKS["end user"])
    assert answer.status_code == 200
    assert scopes_of(rows)[0] == {"global", "key:shared-key", "team:blue"}


@pytest.mark.parametrize("path", ROUTED)
def test_a_routed_request_goes_where_it_was_decided(path, proxy):
    """Not where its client says that it was decided."""
    body = {**ROUTED[path], **metadata({"llm_cost_target": "claude-sonnet-4-6"})}
    answer, rows = post(proxy, path, body)
    assert answer.status_code == 200
    assert "model:claude-haiku-4-5-20251001" in rows[0].scopes or "model:gpt-5-mini" in rows[0].scopes


@every_endpoint
def test_the_id_of_a_request_under_way_ends_it_from_no_other(path, proxy):
    """Seen in the ledger by somebody who may read it, and sent along with requests of every kind."""
    proxy.sim.script(Fault.slow(delay_s=2.0))
    sent, answers = proxy.sim.request_count, []
    victim = threading.Thread(
        target=lambda: answers.append(
            httpx.post(proxy.url + path, json=BODIES[path], headers={"authorization": "Bearer sk-victim"}, timeout=120)
        )
    )
    before = proxy.since()
    victim.start()
    proxy.wait_for_request(sent + 1)
    reserved = proxy.rows()[-1]
    assert reserved.kind == "reserve"
    ids = {"llm_cost_governed": reserved.id.rpartition(".")[0]}
    for other, body in {**BODIES, "/v1/embeddings": {"model": "text-embedding-3-small", "input": "x"}}.items():
        httpx.post(
            proxy.url + other, json={**body, **metadata(ids), "litellm_metadata": ids},
            headers={"authorization": "Bearer sk-mallory"}, timeout=120,
        )  # fmt: skip
    victim.join()
    after = proxy.since()
    assert answers[0].status_code == 200
    assert after[0] - before[0] == after[1] - before[1] > 0
    assert proxy.spent("user:victim") > 0
    assert [row.kind for row in proxy.rows() if row.id == reserved.id] == ["reserve", "settle"]


@every_endpoint
def test_a_tag_that_is_demanded_is_not_crowded_out(path, proxy):
    """Neither one that has a budget in the configuration nor one of the key itself."""
    answer, rows = post(proxy, path, metadata({"tags": [*MANY, "tight"]}))
    assert (answer.status_code, rows) == (429, ())
    assert "tag:tight" in answer.text
    answer, rows = post(proxy, path, metadata({"tags": [*MANY]}), key="tagged")
    assert answer.status_code == 200
    tags = scopes_of(rows)[1]
    assert tags[0] == "owned"
    assert len(tags) == MAX_CLIENT_TAGS + 1


@pytest.fixture(scope="module")
def trusting(tmp_path_factory, proxy):
    """A proxy whose owner trusts what its clients say of their end users."""
    with Providers(responder=fill) as sim:
        cost = '[[budgets]]\nscope = "end_user:poor"\nlimit = "0.0000001"\n[attribution]\ntrust_end_user = true\n'
        running = Proxy(tmp_path_factory.mktemp("trusting"), sim, cost=cost)
        try:
            running.start(workers=1)
            yield running
        finally:
            running.stop()


END_USERS = {
    "in the body": ({"user": "{name}"}, {}),
    "in a header": ({}, {"x-litellm-end-user-id": "{name}"}),
    "in the metadata": (metadata({"user_id": "{name}"}), {}),
}


@pytest.mark.parametrize(("how", "path"), list(sampled(END_USERS)))
def test_an_end_user_counts_where_the_configuration_trusts_clients(path, how, trusting):
    body, headers = END_USERS[how]
    named = {
        name: (
            json.loads(json.dumps(body).replace("{name}", name)),
            {header: value.replace("{name}", name) for header, value in headers.items()},
        )
        for name in ("zoe", "poor", "z" * 1_000)
    }
    answer, rows = post(trusting, path, named["zoe"][0], headers=named["zoe"][1])
    assert answer.status_code == 200
    assert scopes_of(rows)[0] == OWN | {"end_user:zoe"}
    answer, _ = post(trusting, path, named["poor"][0], headers=named["poor"][1])
    assert answer.status_code == 429
    assert "end_user:poor" in answer.text
    answer, rows = post(trusting, path, named["z" * 1_000][0], headers=named["z" * 1_000][1])
    assert answer.status_code == 200
    assert scopes_of(rows)[0] == OWN
