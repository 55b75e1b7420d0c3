"""Exact counts for OpenAI's public vocabularies, offline."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from llm_cost_middleware.limits import find_limits
from llm_cost_middleware.pricing.tokenizer import count_tokens, warm_up
from llm_cost_middleware.pricing.vocabulary import find_vocabulary, tiktoken_encoding
from llm_cost_middleware.providers.openai.request import read_request


def request(content, **more):
    return read_request(
        {"model": "gpt-5", "messages": [{"role": "user", "content": content}]} | more, "chat.completions"
    )


O200K, CL100K = "fb374d419588a4632f3f557e76b4b70aebbca790", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
"""The names of their files in tiktoken's cache."""


def test_text_is_counted_exactly_and_framing_at_its_most():
    tiktoken = pytest.importorskip("tiktoken")
    words = "The quick brown fox. 敏捷的棕色狐狸 🦊 " * 50
    encoding = tiktoken_encoding("o200k_base")
    assert isinstance(encoding, tiktoken.Encoding)
    assert count_tokens(request(words), "o200k_base") == len(encoding.encode_ordinary(words)) + 64 + 8
    assert encoding.encode_ordinary("hello world") == [24912, 2375], "the published ids of o200k_base"


@pytest.mark.parametrize(
    ("content", "provider", "model"),
    [
        ("hi", "openai", "gpt-6-sol"),
        ("hi", "anthropic", "claude-opus-5"),
        ([{"type": "image_url", "image_url": {"url": "https://x/y.png"}}], "openai", "gpt-5"),
    ],
)
def test_what_cannot_be_counted_is_none(content, provider, model):
    assert count_tokens(request(content), find_limits(provider, model).encoding) is None


def test_special_tokens_in_a_prompt_are_text():
    assert count_tokens(request("<|endoftext|>" * 10), "o200k_base") > 72 + 10


def test_counting_neither_downloads_nor_imports_litellm(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    find_vocabulary.cache_clear()
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert warm_up("o200k_base")
    assert warm_up("cl100k_base")
    script = (
        "import sys, os; before = dict(os.environ);"
        "from llm_cost_middleware.pricing.tokenizer import warm_up;"
        "assert warm_up('o200k_base'); assert 'litellm' not in sys.modules; assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_without_litellm_a_vocabulary_in_the_folder_of_tiktoken_is_used_and_another_file_is_not(tmp_path):
    """Neither is there: the bound counts bytes."""
    wheels = Path(find_spec("litellm").submodule_search_locations[0], "litellm_core_utils", "tokenizers")
    shutil.copy(wheels / O200K, tmp_path)
    (tmp_path / CL100K).write_bytes(b"IQ== 0\n")
    script = (
        "import sys; sys.modules['litellm'] = None; import importlib.util as u; found = u.find_spec\n"
        "import llm_cost_middleware.pricing.tokenizer as t, llm_cost_middleware.pricing.vocabulary as v\n"
        "v.find_spec = lambda name: None if name == 'litellm' else found(name)\n"
        "print(t.warm_up('o200k_base'), t.warm_up('cl100k_base'))"
    )
    for folder, told in ((str(tmp_path), "True False"), ("", "False False"), (str(tmp_path / "none"), "False False")):
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"TIKTOKEN_CACHE_DIR": folder}, check=True, timeout=300,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout.strip() == told
