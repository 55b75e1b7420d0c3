"""Requests that can wait go as batches: held, sent once, collected in order, and booked as they are billed."""

from __future__ import annotations

import anthropic
import openai
import pytest
from batch_bodies import chat_bodies, claude_bodies, response_bodies

from llm_cost_middleware.batches import BatchItemError, BatchPendingError
from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError, ScopePausedError
from llm_cost_middleware.simulator import Answer, BatchPace, Fault

HOUR_S = 3_600
DAY_S = 24 * HOUR_S


def mixed():
    """Requests of both providers, three endpoints and four models, interleaved."""
    groups = claude_bodies(12), chat_bodies(12), response_bodies(12), claude_bodies(12, model="claude-sonnet-4-6")
    return [body for bodies in zip(*groups, strict=True) for body in bodies]


def echoed(answer):
    """The text of an answer of any kind."""
    if hasattr(answer, "choices"):
        return answer.choices[0].message.content
    return answer.output_text if hasattr(answer, "output_text") else answer.content[0].text


def test_requests_of_both_providers_come_back_in_order_as_the_sdks_own_objects_at_half_price(desk):
    desk.sim.responder = lambda request: Answer(text=request.last_user_text)
    desk.sim.batch_pace = BatchPace(delay_s=HOUR_S)
    pipeline, bodies = desk.pipeline(), mixed()
    answers = pipeline.batch(bodies, client=desk.clients)
    assert answers.lanes == {"batch": 48}
    kinds = anthropic.types.Message, openai.types.chat.ChatCompletion, openai.types.responses.Response
    assert [type(answer) for answer in answers[:4]] == [*kinds, kinds[0]]
    assert [echoed(answer) for answer in answers] == [
        body.get("input") or body["messages"][0]["content"] for body in bodies
    ]
    desk.agree(pipeline)
    assert {line.tier for line in desk.sim.bill.lines} == {"batch"}
    assert len(desk.created()) == 4
    assert answers.cost == pipeline.ledger.balance("global").settled_nanousd.usd == pipeline.tracker.total_cost
    assert [record.cost_nanousd for record in answers.records] != []
    assert {one.state for one in pipeline.batches()} == {"settled"}


async def test_asynchronous_clients_get_the_same(desk):
    desk.sim.batch_pace = BatchPace(delay_s=HOUR_S)
    pipeline = desk.pipeline()
    async with desk.aclaude, desk.agpt:
        answers = await pipeline.abatch([*mixed(), *response_bodies(1, model="gpt-5")], client=desk.aclients)
    assert answers.lanes == {"batch": 48, "standard": 1}
    desk.agree(pipeline)


def test_too_few_requests_or_too_little_patience_make_ordinary_calls_and_say_why(desk):
    pipeline = desk.pipeline()
    few = pipeline.batch(claude_bodies(3), client=desk.claude)
    soon = pipeline.batch(claude_bodies(12), client=desk.claude, patience="1h")
    none = pipeline.batch(claude_bodies(12), client=desk.claude, patience=None)
    assert few.lanes == {"standard": 3}
    assert "too few for a batch" in few.results[0].reason
    assert {one.reason for one in (*soon.results, *none.results)} == {
        "a batch may take a day, and the answers are wanted sooner"
    }
    assert few.batch_id == "" == soon.batch_id
    assert desk.created() == []
    desk.agree(pipeline)


def test_what_no_batch_takes_is_called_by_itself(desk):
    pipeline = desk.pipeline()
    bodies = [*chat_bodies(12), *chat_bodies(1, service_tier="priority")]
    answers = pipeline.batch(bodies, client=desk.gpt)
    assert answers.lanes == {"batch": 12, "standard": 1}
    assert answers.results[12].reason == "its caller chose a service tier"
    desk.agree(pipeline)


@pytest.mark.parametrize("unanswered", ["resend", "return"])
def test_a_half_expired_batch_is_sent_again_or_returned_as_asked(desk, unanswered):
    desk.sim.batch_pace = BatchPace(delay_s=HOUR_S, stuck=0.5)
    pipeline = desk.pipeline()
    start = desk.clock.now()
    answers = pipeline.batch([*claude_bodies(12), *chat_bodies(12)], client=desk.clients, unanswered=unanswered)
    desk.agree(pipeline)
    if unanswered == "resend":
        assert answers.lanes == {"batch": 12, "standard": 12}
        assert desk.clock.now() - start <= DAY_S
        return
    reasons = [answer.reason for answer in answers if isinstance(answer, BatchItemError)]
    assert reasons == ["expired"] * 12
    assert [isinstance(answer, Exception) for answer in answers] == ([False] * 6 + [True] * 6) * 2


def test_with_patience_for_two_days_an_expired_half_goes_as_a_batch_again(desk):
    desk.sim.batch_pace = BatchPace(delay_s=HOUR_S, stuck=0.5)

    def pace_up(_):
        if desk.sim.bill.lines:
            desk.sim.batch_pace = BatchPace(delay_s=HOUR_S)

    desk.clock.at_sleep = pace_up
    pipeline = desk.pipeline()
    answers = pipeline.batch(claude_bodies(24), client=desk.claude, patience="3d")
    assert answers.lanes == {"batch": 24}
    assert [one.requests for one in pipeline.batches()] == [24, 12]
    desk.agree(pipeline)


def test_a_batch_that_fails_its_validation_costs_nothing_and_is_sent_again(desk):
    desk.sim.batch_pace = BatchPace(failure="token_limit_exceeded")
    pipeline = desk.pipeline()
    failed = pipeline.batch(chat_bodies(12), client=desk.gpt, unanswered="return")
    assert {(answer.reason, "token_limit_exceeded" in answer.detail) for answer in failed} == {("failed", True)}
    assert pipeline.ledger.balance("global").pending_nanousd == 0 == desk.sim.bill.total_nanousd
    answers = pipeline.batch(chat_bodies(12), client=desk.gpt)
    assert answers.lanes == {"standard": 12}
    desk.agree(pipeline)


def test_a_request_that_is_wrong_is_an_error_in_its_place_and_not_sent_again(desk):
    pipeline = desk.pipeline()
    bodies = claude_bodies(12)
    bodies[5]["messages"] = [{"role": "nobody", "content": "x"}]
    answers = pipeline.batch(bodies, client=desk.claude)
    assert [at for at, answer in enumerate(answers) if isinstance(answer, Exception)] == [5]
    assert answers[5].reason == "errored"
    assert len(desk.sim.bill.lines) == 11
    desk.agree(pipeline)


def test_what_does_not_fit_is_refused_before_anything_is_sent_or_sent_as_far_as_it_fits(desk):
    pipeline = desk.pipeline(budgets=[{"scope": "global", "limit": "0.001"}])
    with pytest.raises(BudgetExceededError):
        pipeline.batch([*claude_bodies(12), *claude_bodies(40, model="claude-sonnet-4-6")], client=desk.claude)
    assert desk.sim.request_count == 0
    assert pipeline.ledger.balance("global").pending_nanousd == 0
    answers = pipeline.batch(claude_bodies(40), client=desk.claude, anyway=True)
    refused = [isinstance(answer, BudgetExceededError) for answer in answers]
    assert 10 <= refused.count(False) < 40
    assert refused == sorted(refused)
    desk.agree(pipeline)


def test_a_call_that_waits_to_its_timeout_says_which_batch_to_collect(desk):
    desk.sim.batch_pace = BatchPace(delay_s=2 * HOUR_S)
    pipeline = desk.pipeline()
    with pytest.raises(BatchPendingError, match="llm-cost batches collect") as caught:
        pipeline.batch(claude_bodies(12), client=desk.claude, timeout="1h")
    batch_id = caught.value.batch_id
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.pending, caught.value.total) == (12, 12)
    assert pipeline.ledger.balance("global").pending_nanousd > 0
    assert pipeline.collect_batch(batch_id, client=desk.claude).pending == 12
    desk.clock.advance(HOUR_S)
    collected = pipeline.collect_batch(batch_id, client=desk.claude)
    assert (sorted(collected.responses), collected.pending) == (list(range(12)), 0)
    assert collected.cost_nanousd == desk.sim.bill.total_nanousd
    again = pipeline.collect_batch(pipeline.batches()[0].provider_batch_id, client=desk.claude)
    assert again.cost_nanousd == collected.cost_nanousd
    desk.agree(pipeline)


def test_ctrl_c_loses_nothing(desk):
    desk.sim.batch_pace = BatchPace(delay_s=HOUR_S)
    pipeline = desk.pipeline()

    def interrupt(_):
        raise KeyboardInterrupt

    desk.clock.at_sleep = interrupt
    with pytest.raises(KeyboardInterrupt) as caught:
        pipeline.batch([*claude_bodies(12), *chat_bodies(12)], client=desk.clients)
    (one, other) = pipeline.batches()
    assert one.batch_id == other.batch_id
    assert any(one.batch_id in note for note in caught.value.__notes__)
    desk.clock.at_sleep = None
    desk.clock.advance(HOUR_S)
    collected = pipeline.collect_batch(one.batch_id, client=desk.clients)
    assert (len(collected.responses), collected.pending) == (24, 0)
    desk.agree(pipeline)


def test_a_batch_is_cancelled_and_what_it_answered_is_booked(desk):
    desk.sim.batch_pace = BatchPace(delay_s=4 * HOUR_S)
    pipeline = desk.pipeline()
    with pytest.raises(BatchPendingError) as caught:
        pipeline.batch([*claude_bodies(12), *chat_bodies(12)], client=desk.clients, timeout="2h")
    name = caught.value.batch_id
    pipeline.cancel_batch(name, client=desk.clients)
    collected = pipeline.collect_batch(name, client=desk.clients)
    assert (len(collected.responses), len(collected.errors), collected.pending) == (12, 12, 0)
    assert {error.reason for error in collected.errors.values()} == {"canceled"}
    desk.agree(pipeline)


@pytest.mark.parametrize("fault", [Fault.reset(billed=True), Fault.reset(), Fault.status(500), Fault.status(429)])
def test_a_batch_whose_creation_was_lost_is_found_again_and_never_made_twice(desk, fault):
    desk.sim.batch_pace = BatchPace(delay_s=HOUR_S)
    pipeline = desk.pipeline()
    for bodies, client in ((claude_bodies(12), desk.claude), (chat_bodies(12), desk.gpt)):
        desk.sim.script(fault, match=lambda one: one.method == "POST" and one.path.endswith("/batches"))
        answers = pipeline.batch(bodies, client=client)
        assert answers.lanes == {"batch": 12}
    assert len(desk.sim.bill.lines) == 24
    desk.agree(pipeline)


def test_a_paused_scope_and_a_refused_creation_leave_no_hold(desk):
    pipeline = desk.pipeline()
    desk.sim.script(Fault.status(400), match=lambda one: one.path.endswith("/batches"))
    answers = pipeline.batch(claude_bodies(12), client=desk.claude, unanswered="return")
    assert {answer.reason for answer in answers} == {"failed"}
    assert pipeline.ledger.balance("global").pending_nanousd == 0
    pipeline.ledger.pause("global", reason="stop")
    with pytest.raises(ScopePausedError):
        pipeline.batch(claude_bodies(12), client=desk.claude)
    assert pipeline.ledger.balance("global").pending_nanousd == 0
    assert {one.state for one in pipeline.batches()} == {"given back"}


def test_the_hold_of_a_batch_lives_as_long_as_the_batch_and_its_collection(desk):
    desk.sim.batch_pace = BatchPace(delay_s=DAY_S - 60)
    pipeline = desk.pipeline(ledger={"hold_ttl_s": 60})
    with pytest.raises(BatchPendingError) as caught:
        pipeline.batch(claude_bodies(12), client=desk.claude, timeout=60)
    desk.clock.advance(DAY_S + 20 * HOUR_S)
    pipeline.ledger.sweep()
    assert pipeline.ledger.balance("global").pending_nanousd > 0
    pipeline.collect_batch(caught.value.batch_id, client=desk.claude)
    desk.agree(pipeline)


def test_a_prefix_that_many_requests_share_is_marked_for_an_hour_where_it_pays(desk):
    desk.sim.batch_pace = BatchPace(delay_s=2 * HOUR_S)
    system = "A rule that holds for all of them. " * 800
    pipeline = desk.pipeline()
    answers = pipeline.batch(claude_bodies(40, system=system), client=desk.claude)
    assert {answer.usage.cache_creation.ephemeral_1h_input_tokens > 0 for answer in answers} == {True, False}
    desk.agree(pipeline)
    marked = desk.sim.bill.total_nanousd
    plain = desk.pipeline(cache={"mode": "off"})
    plain.batch(claude_bodies(40, system=system), client=desk.claude)
    assert marked < desk.sim.bill.total_nanousd - marked


def test_the_budgets_of_the_requests_own_scopes_are_drawn_on(desk):
    pipeline = desk.pipeline()
    bodies = [{**body, "llm_cost": {"team": f"t{at % 2}"}} for at, body in enumerate(claude_bodies(24))]
    pipeline.batch(bodies, client=desk.claude)
    assert all("llm_cost" not in repr(one.body) for one in desk.sim.requests)
    parts = [pipeline.ledger.balance(f"team:t{at}").settled_nanousd for at in range(2)]
    assert sum(parts) == desk.sim.bill.total_nanousd
    assert min(parts) > 0


def test_progress_is_told(desk):
    desk.sim.batch_pace = BatchPace(delay_s=4 * HOUR_S)
    told = []
    desk.pipeline().batch(chat_bodies(12), client=desk.gpt, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)
    assert {3, 6, 9} <= {done for done, _ in told}
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("requests", "options"),
    [
        ("text", {}),
        ({"model": "claude-haiku-4-5"}, {}),
        (["text"], {}),
        ([{"messages": []}], {}),
        ([{"model": "gpt-5-mini", "messages": []}], {}),
        ([{"model": "claude-haiku-4-5", "messages": object()}], {}),
        ([], {"patience": "soon"}),
        ([], {"timeout": -1}),
        ([], {"unanswered": "maybe"}),
        ([], {"client": "client"}),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_right_form(desk, requests, options):
    with pytest.raises(ConfigurationError):
        desk.pipeline().batch(requests, **({"client": desk.claude} | options))
    assert desk.sim.request_count == 0


def test_nothing_is_nothing(desk):
    answers = desk.pipeline().batch([], client=desk.claude)
    assert (len(answers), answers.batch_id, desk.sim.request_count) == (0, "", 0)


def test_results_that_fail_to_come_are_fetched_again(desk):
    pipeline = desk.pipeline()
    for end in ("/results", "/content"):
        desk.sim.script(Fault.status(500), times=2, match=lambda one, end=end: one.path.endswith(end))
    answers = pipeline.batch([*claude_bodies(12), *chat_bodies(12)], client=desk.clients)
    assert answers.lanes == {"batch": 24}
    desk.agree(pipeline)


def test_a_batch_whose_results_are_not_kept_any_more_is_booked_at_its_hold(desk):
    desk.sim.batch_pace = BatchPace(delay_s=60)
    pipeline = desk.pipeline()
    with pytest.raises(BatchPendingError) as caught:
        pipeline.batch(claude_bodies(12), client=desk.claude, timeout=0)
    desk.clock.advance(30 * DAY_S)
    collected = pipeline.collect_batch(caught.value.batch_id, client=desk.claude)
    assert {error.reason for error in collected.errors.values()} == {"archived"}
    balance = pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd == pipeline.batches()[0].held_nanousd >= desk.sim.bill.total_nanousd > 0
    pipeline.collect_batch(caught.value.batch_id, client=desk.claude)
    assert pipeline.ledger.balance("global") == balance


@pytest.mark.parametrize("verb", ["batch", "collect_batch", "cancel_batch"])
async def test_a_client_of_the_other_kind_is_refused_before_anything_is_held(desk, verb):
    pipeline = desk.pipeline()
    what = chat_bodies(12) if verb == "batch" else "any"
    with pytest.raises(ConfigurationError, match="expected a synchronous client, not AsyncOpenAI"):
        getattr(pipeline, verb)(what, client=desk.agpt)
    with pytest.raises(ConfigurationError, match="expected an asynchronous client, not Anthropic"):
        await getattr(pipeline, f"a{verb}")(what, client=desk.claude)
    assert (desk.sim.request_count, pipeline.ledger.balance("global").pending_nanousd) == (0, 0)
