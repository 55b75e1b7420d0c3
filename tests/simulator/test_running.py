"""How it starts, overlaps, forgets and ends."""

import asyncio
import json
import re
import threading
import time
import warnings
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from llm_cost_middleware.cli.help import topics
from llm_cost_middleware.simulator import Fault, SimClock, Simulator, SimulatorProcess

MINI = "gpt-5-mini"


def test_it_leaves_no_thread_and_no_open_socket_behind():
    before = set(threading.enumerate())
    files = _open_files()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            with Simulator() as sim:
                assert httpx.get(sim.url).status_code == 404
    # Threads of tests before this one may end meanwhile.
    assert set(threading.enumerate()) <= before
    assert _open_files() <= files


def _open_files():
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_clients_of_every_platform_reach_it_as_its_topic_says(sim, user):
    (_, block) = re.findall(r"^```python\n(.*?)^```", topics()["simulator"], re.MULTILINE | re.DOTALL)
    names = {"sim": sim, "messages": user("hello"), "anthropic": anthropic, "openai": openai}
    exec(compile(block, "topic", "exec"), names)  # noqa: S102 - our own text
    for name in ("azure", "bedrock", "vertex"):
        names[name].close()
    assert [line.provider for line in sim.bill.lines] == ["openai", "anthropic", "anthropic"]
    paths = ("/openai/deployments/", "/model/", "/v1/projects/")
    assert [request.path.startswith(path) for request, path in zip(sim.requests, paths, strict=True)] == [True] * 3


def test_a_taken_port_is_an_error_at_start(sim):
    with pytest.raises(OSError, match="address already in use"):
        Simulator(port=sim.port).start()


def test_stopping_does_not_wait_for_a_request_that_hangs(user):
    with Simulator() as sim:
        sim.script(Fault.hang())
        client = openai.OpenAI(base_url=sim.openai_url, api_key="k", max_retries=0)
        waiting = threading.Thread(target=_ask, args=(client, user))
        waiting.start()
        while not sim.requests:
            time.sleep(0.01)
    waiting.join(60)
    assert not waiting.is_alive()
    client.close()


def _ask(client, user):
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model=MINI, messages=user("x"))


async def test_fifty_concurrent_calls_overlap_and_are_all_billed(user):
    with Simulator(latency_s=1) as sim:
        started = time.monotonic()
        async with anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="k", max_retries=0) as client:
            replies = await asyncio.gather(
                *(
                    client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=user(f"call {at:02}"))
                    for at in range(50)
                )
            )
        took = time.monotonic() - started
    assert took < 50 * 1  # one after the other would be longer, however fast the machine
    assert sorted(reply.id for reply in replies) == sorted(line.request_id for line in sim.bill.lines)
    assert len({reply.id for reply in replies}) == 50


def test_what_reached_the_wire_can_be_read(sim, gpt, user):
    sim.clock.set(1_000_000)
    gpt.chat.completions.create(model=MINI, messages=user("hello"), extra_headers={"x-mine": "1"})
    (request,) = sim.requests
    assert (request.path, request.method, request.at, request.status) == (
        "/v1/chat/completions",
        "POST",
        1_000_000,
        200,
    )
    assert request.body["messages"] == user("hello")
    assert (request.headers["x-mine"], request.headers["authorization"]) == ("1", "Bearer key")
    assert request.request_id == sim.bill.lines[0].request_id


def test_memory_can_be_bounded(user):
    with Simulator(keep_bodies=False, keep=3) as sim, openai.OpenAI(base_url=sim.openai_url, api_key="k") as client:
        sim.script(Fault.status(400), match=lambda request: request.body["messages"][0]["content"] == "2")
        for at in range(5):
            if at == 2:
                with pytest.raises(openai.BadRequestError):
                    client.chat.completions.create(model=MINI, messages=user(str(at)))
            else:
                client.chat.completions.create(model=MINI, messages=user(str(at)))
    assert [request.body for request in sim.requests] == [None, None, None]
    assert (sim.request_count, len(sim.bill.lines)) == (5, 4)


def test_ids_repeat_with_the_seed_and_differ_without(user):
    def first(seed):
        with Simulator(seed=seed) as sim, openai.OpenAI(base_url=sim.openai_url, api_key="k") as client:
            return client.chat.completions.create(model=MINI, messages=user("x")).id

    assert first(1) == first(1) != first(2)


def test_the_clock_stands_still_until_it_is_moved():
    clock = SimClock(100.0)
    assert (clock.now(), clock.advance(5), clock.now()) == (100.0, 105.0, 105.0)
    clock.set(7)
    assert clock.now() == 7


def test_a_simulator_of_its_own_process_is_read_and_scripted_from_here(user):
    with (
        SimulatorProcess(["--responder", "fill", "--worst-case-tokenizer", "--no-bodies"]) as sim,
        openai.OpenAI(base_url=sim.openai_url, api_key="secret-key", max_retries=0) as gpt,
        anthropic.Anthropic(base_url=sim.anthropic_url, api_key="secret-key", max_retries=0) as claude,
    ):
        sim.script(Fault.status(429, retry_after=3), times=1, model=MINI, path="/chat/completions")
        claude.messages.create(model="claude-haiku-4-5", max_tokens=20, messages=user("hello there"))
        with pytest.raises(openai.RateLimitError) as caught:
            gpt.chat.completions.create(model=MINI, messages=user("x"))
        assert caught.value.response.headers["retry-after"] == "3"
        reply = gpt.chat.completions.create(model=MINI, messages=user("x"), max_completion_tokens=30)
        assert sim.lines[1].request_id == reply.id
        # Claude: 11 bytes are 19 worst-case tokens, 26 with the frame, at 1; 20 at 5. GPT: 7 at 0.25, 30 at 2.
        assert sim.total_nanousd == 26_000 + 100_000 + 1_750 + 60_000
        assert [request["status"] for request in sim.requests] == [200, 429, 200]
        assert "secret-key" not in json.dumps(sim.requests)
        before = sim.advance(0)
        assert sim.advance(60) == before + 60
        sim.call("responder", {"name": "echo"})
        assert claude.messages.create(model="claude-haiku-4-5", max_tokens=99, messages=user("x")).content[0].text
        sim.reset()
        assert (sim.total_nanousd, sim.request_count) == (0, 0)


def test_a_process_that_cannot_start_raises(capfd):
    with pytest.raises(RuntimeError, match="status 2"):
        SimulatorProcess(["--responder", "nobody"]).start()
    assert "invalid choice" in capfd.readouterr().err
