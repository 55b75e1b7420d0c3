"""A fresh simulator and real clients for each test of the simulator."""

from collections.abc import Iterator

import anthropic
import openai
import pytest

from llm_cost_middleware.simulator import Simulator


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def claude(sim: Simulator) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=sim.anthropic_url, api_key="key", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def gpt(sim: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=sim.openai_url, api_key="key", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def user():
    """One user message."""
    return lambda text: [{"role": "user", "content": text}]
