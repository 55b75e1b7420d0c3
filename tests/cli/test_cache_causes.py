"""Every cause that ``llm-cost cache`` names is planted, through a wrapped client and a provider that really caches."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.cli.cache import cache
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.simulator import Answer, SimClock, Simulator

MODEL = "claude-sonnet-4-6"
SYSTEM = "Answer what is asked, in the words of the house, and name the page. " * 130
SCHEMA = {"type": "object", "properties": {}}
TOOLS = [{"name": name, "description": "Looks things up. " * 40, "input_schema": SCHEMA} for name in ("find", "open")]
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
LATE = {"name": "late", "description": "Rarely used.", "input_schema": SCHEMA, "defer_loading": True}


class Watch:
    """The application's clock: the provider's, and so many seconds ahead of it."""

    def __init__(self, clock):
        self.clock, self.ahead = clock, 0.0
        self.monotonic, self.sleep = self.now, clock.advance

    def now(self):
        return self.clock.now() + self.ahead


class Shop:
    """An application: asks, with a system prompt and tools, so many seconds after the question before."""

    def __init__(self, sim, clock, url):
        import anthropic

        self.sim, self.clock, self.hooks = sim, clock, []
        http = anthropic.DefaultHttpxClient(event_hooks={"request": [self._on_its_way]})
        self.client = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k", max_retries=0, http_client=http)
        config = CostConfig(ledger={"url": url}, providers={"anthropic": {"base_url": sim.anthropic_url}})
        self.watch = Watch(clock)
        self.pipeline = CostPipeline(config, clock=self.watch)
        self.wrapped = wrap_anthropic(self.client, self.pipeline)
        self.asked = 0

    def _on_its_way(self, request):
        for hook in self.hooks:
            hook(request)

    def ask(self, system=SYSTEM, *, after=20.0, client=None, **more):
        self.clock.advance(after)
        self.asked += 1
        body = {"model": MODEL, "max_tokens": 2_000, "system": system, "tools": TOOLS, **more}
        body.setdefault("messages", [{"role": "user", "content": f"Question {self.asked}"}])
        (client or self.wrapped).messages.create(**body)

    def close(self):
        self.pipeline.close()
        self.client.close()


def on_its_way(shop):
    """Something behind this package changes the prompt: an HTTP hook here, a gateway elsewhere."""

    def change(request):
        data = request.content.replace(b"Answer what", b"Answers what")
        request.stream, request.headers["content-length"] = type(request.stream)(data), str(len(data))

    for number in range(6):
        shop.hooks = [change] if number % 2 else []
        shop.ask()


def dropped(shop):
    for _ in range(3):
        shop.ask()
    shop.sim.reset()
    shop.ask()


def another_key(shop):
    shop.ask()
    shop.ask()
    shop.ask(client=wrap_anthropic(shop.client.with_options(api_key="other"), shop.pipeline))


def written_elsewhere(shop):
    """A process with a ledger of its own writes the entry."""
    shop.ask(client=shop.client, system=[{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}])
    shop.ask()


def kept(shop):
    """Ten minutes pass here and seconds there: the provider keeps an entry beyond its lifetime."""
    shop.ask()
    shop.watch.ahead += 600.0
    shop.ask()


def expired(shop):
    """The request is held up on its way, past the end of the entry that was there when it left."""
    for _ in range(3):
        shop.ask()
    shop.hooks = [lambda request: shop.clock.advance(30.0)]
    shop.ask(after=280.0)


def the_time(shop):
    for number in range(4):
        shop.ask(system=f"It is 10:{number:02}. {SYSTEM}")


def rewritten(shop):
    for word in ("first", "second", "third"):
        shop.ask(
            system=[{"type": "text", "text": f"The {word} edition of these rules."}, {"type": "text", "text": SYSTEM}]
        )


def shuffled(shop):
    for number in range(4):
        shop.ask(tools=TOOLS[::-1] if number % 2 else TOOLS)


def fewer(shop):
    for number in range(4):
        shop.ask(tools=TOOLS[: 1 + number % 2])


def redefined(shop):
    for number in range(3):
        shop.ask(tools=[{**TOOLS[0], "description": f"Version {'abc'[number]}. " + "Looks up. " * 60}, TOOLS[1]])


def search_toggled(shop):
    for number in range(4):
        shop.ask(tools=[*TOOLS, SEARCH] if number % 2 else TOOLS)


def thinking_toggled(shop):
    for number in range(4):
        shop.ask(**({"thinking": {"type": "enabled", "budget_tokens": 1_024}} if number % 2 else {}))


def schema_changed(shop):
    for name in ("a", "b", "c"):
        schema = {"type": "object", "properties": {name: {"type": "string"}}, "additionalProperties": False}
        shop.ask(output_config={"format": {"type": "json_schema", "schema": schema}})


def history_edited(shop):
    for word in ("one", "two", "three"):
        said = [f"I asked {word} " * 300, "It said this. ", "And then? " * 300, "It said that. ", "And now?"]
        roles = ["user", "assistant"] * 3
        shop.ask(messages=[{"role": role, "content": text} for role, text in zip(roles, said, strict=False)])


def deferred_changed(shop):
    """What is deferred is not in the prompt: this is no break."""
    for number in range(4):
        shop.ask(tools=[*TOOLS, SEARCH, {**LATE, "description": f"Edition {number}"}])


def nothing_wrong(shop):
    for _ in range(6):
        shop.ask()


NAMED = [
    (on_its_way, "causes", "changed on its way"),
    (dropped, "causes", "the provider dropped it"),
    (another_key, "causes", "another API key"),
    (written_elsewhere, "causes", "outside this process had written it"),
    (kept, "causes", "the provider kept the entry for 10 minutes"),
    (expired, "causes", "the entry had expired: 5 minutes since the call before"),
    (the_time, "breaks", "differs only in numbers or dates"),
    (rewritten, "breaks", "system 0.0 changed"),
    (shuffled, "breaks", "the same tools in another order"),
    (fewer, "breaks", "tools were"),
    (redefined, "breaks", "the definition of tool 0 changed"),
    (search_toggled, "breaks", "tools were"),
    (thinking_toggled, "breaks", "parameter thinking changed"),
    (schema_changed, "breaks", "parameter output schema changed"),
    (history_edited, "breaks", "within the history"),
    (deferred_changed, "", ""),
    (nothing_wrong, "", ""),
]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    clock = SimClock()
    with Simulator(responder=lambda _: Answer(text="ok", output_tokens=1), clock=clock) as sim:
        made = Shop(sim, clock, f"sqlite:///{tmp_path}/ledger.db")
        yield made
        made.close()


@pytest.mark.parametrize(("plant", "where", "named"), NAMED, ids=[plant.__name__ for plant, *_ in NAMED])
def test_a_planted_cause_is_named(shop, tmp_path, plant, where, named):
    plant(shop)
    shop.pipeline.close()
    app = typer.Typer()
    app.command()(cache)
    found = {}
    for part, more in (("causes", ["--by-site"]), ("breaks", [])):
        result = CliRunner().invoke(app, ["--ledger", f"sqlite:///{tmp_path}/ledger.db", "--json", *more])
        assert result.exit_code == 0, result.output
        found[part] = [reason for report in json.loads(result.output) for reason in report[part]]
    if not named:
        assert found == {"causes": [], "breaks": []}
    else:
        assert [reason for reason in found[where] if named in reason], found
        other = "breaks" if where == "causes" else "causes"
        assert not found[other], found
