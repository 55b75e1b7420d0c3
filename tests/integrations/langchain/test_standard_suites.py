"""LangChain's own suites for chat models, on guarded ones: no failure, and no skip that the plain class has not.

The plain classes go through the same suites, and fail what they fail (their connections outlive the event loop that
opened them); what counts of them is what they skip.
"""

from __future__ import annotations

import base64

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Simulator, auto

HAIKU, SONNET, MINI, GPT = "claude-haiku-4-5-20251001", "claude-sonnet-4-6", "gpt-4.1-mini", "gpt-4.1"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n%%EOF"
pytestmark = pytest.mark.filterwarnings("default")  # the suites' warnings are their own


class Suite:
    """What a suite needs to know of a class. The provider and the pipeline live as long as the suite."""

    plain: type
    name: str
    other: str
    judged = True
    """Whether a failure is ours."""
    routed_to: str | None = None
    """The only model of the only tier: where everything goes that is not pinned. ``None``: the class as it is."""

    @pytest.fixture(autouse=True, scope="class")
    def provider(self, request):
        suite = request.cls
        with Simulator(responder=auto) as sim, pytest.MonkeyPatch.context() as patch:
            for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
                patch.setenv(name, "k")
            suite.urls = {ChatAnthropic: sim.anthropic_url, ChatOpenAI: sim.openai_url}
            if suite.routed_to is None:
                suite.chat_model_class = suite.plain
                yield
                return
            config = CostConfig(
                providers={"anthropic": {"base_url": sim.anthropic_url}, "openai": {"base_url": sim.openai_url}},
                tiers=[{"name": "only", "models": [suite.routed_to]}],
                budgets=[{"scope": "global", "limit": "100"}],
            )
            with CostPipeline(config) as pipeline:
                suite.chat_model_class = type(guard(suite.plain(model=suite.name, api_key="k"), pipeline))
                yield
                balance = pipeline.ledger.balance("global")
                assert balance.pending == 0
                assert int(balance.settled.scaleb(9)) >= sim.bill.total_nanousd
                assert {record.status for record in pipeline.records()} <= {"exact"}

    @pytest.fixture(autouse=True)
    def pictures(self, monkeypatch):
        """The suites fetch the images and documents that they send; here these come from no network."""
        monkeypatch.setattr(httpx, "get", lambda url, **_: httpx.Response(200, content=PDF if "pdf" in url else PIXEL))

    chat_model_class = None

    @property
    def chat_model_params(self):
        return {"model": self.name, "api_key": "k", "base_url": self.urls[self.plain]}

    supports_model_override = supports_image_inputs = supports_image_urls = supports_pdf_inputs = True
    supports_image_tool_message = supports_pdf_tool_message = True

    @property
    def model_override_value(self):
        return self.other

    @property
    def supports_json_mode(self):
        return self.plain is ChatOpenAI

    @property
    def supports_anthropic_inputs(self):
        return self.plain is ChatAnthropic


class OnClaude(Suite):
    plain, name, other = ChatAnthropic, HAIKU, SONNET


class OnOpenAI(Suite):
    plain, name, other = ChatOpenAI, MINI, GPT


class Offline:
    """Unit suites build models and call nobody; their snapshots want a fixed address."""

    @property
    def chat_model_params(self):
        return {"model": self.name, "api_key": "k", "base_url": "http://localhost:9"}

    @property
    def init_from_env_params(self):
        provider = "ANTHROPIC" if self.plain is ChatAnthropic else "OPENAI"
        field = f"{provider.lower()}_api_key"
        return {f"{provider}_API_KEY": "from the environment"}, {"model": self.name}, {field: "from the environment"}


class TestPlainClaudeUnit(Offline, OnClaude, ChatModelUnitTests):
    judged = False


class TestPlainOpenAIUnit(Offline, OnOpenAI, ChatModelUnitTests):
    judged = False


@pytest.mark.usefixtures("forget_connections")
class TestPlainClaude(OnClaude, ChatModelIntegrationTests):
    judged = False


@pytest.mark.usefixtures("forget_connections")
class TestPlainOpenAI(OnOpenAI, ChatModelIntegrationTests):
    judged = False


class TestClaudeUnit(Offline, OnClaude, ChatModelUnitTests):
    routed_to = f"anthropic/{HAIKU}"


class TestOpenAIUnit(Offline, OnOpenAI, ChatModelUnitTests):
    routed_to = f"openai/{MINI}"


class TestClaude(OnClaude, ChatModelIntegrationTests):
    routed_to = f"anthropic/{HAIKU}"


class TestOpenAI(OnOpenAI, ChatModelIntegrationTests):
    routed_to = f"openai/{MINI}"


class TestClaudeRoutedToOpenAI(OnClaude, ChatModelIntegrationTests):
    routed_to = f"openai/{MINI}"


class TestOpenAIRoutedToClaude(OnOpenAI, ChatModelIntegrationTests):
    routed_to = f"anthropic/{HAIKU}"


@pytest.mark.parametrize(
    ("guarded", "plain"),
    [
        (TestClaudeUnit, TestPlainClaudeUnit),
        (TestOpenAIUnit, TestPlainOpenAIUnit),
        (TestClaude, TestPlainClaude),
        (TestOpenAI, TestPlainOpenAI),
        (TestClaudeRoutedToOpenAI, TestPlainClaude),
        (TestOpenAIRoutedToClaude, TestPlainOpenAI),
    ],
)
def test_a_guarded_class_does_all_that_its_plain_class_does(guarded, plain, outcomes):
    ours, theirs = outcomes(guarded), outcomes(plain)
    if not ours or not theirs:
        pytest.skip("it compares the suites of one run: run the whole file")
    assert ours.keys() == theirs.keys()
    assert set(ours.values()) <= {"passed", "skipped"}
    undone = {name for name, outcome in ours.items() if outcome != "passed"}
    assert undone <= {name for name, outcome in theirs.items() if outcome == "skipped"}
