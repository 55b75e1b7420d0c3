"""A vocabulary counts as tiktoken does, before its table is built and after."""

from __future__ import annotations

import sys
import threading
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_cost_middleware.pricing.vocabulary import Vocabulary, _encoding, _recipe, _shape, tiktoken_encoding

NAMES = ("o200k_base", "cl100k_base")
TEXTS = {
    "nothing": "",
    "words": "It was the best of times, it'S the worst; we'LL see: unbelievably zyxtlpq! 1234567 + 3.14\r\n\r\n  end  ",
    "scripts": "Größe café naïve Привет мир 안녕하세요 세계 สวัสดีชาวโลก 敏捷的棕色狐狸跳过了懒狗。🦊👨‍👩‍👧",
    "run": "x" * 3_000 + " " * 3_000 + "=" * 3_000,
    "special": "<|endoftext|><|im_start|>",
    "halves": "a\ud800b\udfff \ud83e, \ud83e\udd8a",
    "signs": "\u017f'\u017f\uff0c",
    "spaces": " a\u00a0\u2003b\x1c\x85c\ufeff",
}


def vocabulary(name):
    pytest.importorskip("tiktoken")
    return Vocabulary(_recipe(name))


@pytest.fixture(scope="module", params=NAMES)
def both(request):
    return vocabulary(request.param), tiktoken_encoding(request.param)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_has_as_many_tokens_as_tiktoken_says(both, text):
    counted, known = both
    assert [counted.count(text), counted.count(text)] == [len(known.encode_ordinary(text))] * 2
    assert counted._table is None


def test_every_character_has(both):
    """Each in places where it decides how a text is cut into pieces."""
    counted, known = both
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    old = [one for one in characters if not counted._is_new(_shape(one))]
    assert len(old) > 250_000
    for at in range(0, len(old), 512):
        text = "".join(f"a{c}b'L{c} {c}1{c}\n{c}  {c}B" for c in old[at : at + 512 : 7])
        assert counted.count(text) == len(known.encode_ordinary(text)), hex(ord(old[at]))
    assert counted._table is None


@pytest.mark.parametrize("text", ["\U000323b0:A", "\u0a0e", "\ud83e\u0a0e"])
def test_what_this_python_may_cut_otherwise_is_counted_by_tiktoken_itself_and_said_to_take_long(text):
    """Letters of a new Unicode, code points without a meaning."""
    for name in NAMES:
        counted = vocabulary(name)
        assert counted.effort(text) > 16_384
        assert counted.count(text) == len(tiktoken_encoding(name).encode_ordinary(text))
        assert counted.effort(text) == len(text)


def test_a_vocabulary_that_cuts_texts_in_a_way_not_known_here_is_counted_by_tiktoken_from_the_first():
    recipe = {**_recipe("cl100k_base"), "pat_str": r"\p{Han}+|\w+|\W"}
    counted, text = Vocabulary(recipe), "敏捷的 fox_1, 2!"
    assert counted.is_due
    assert counted.effort(text) > 16_384
    assert counted.count(text) == len(_encoding(recipe).encode_ordinary(text))
    assert not counted.is_due


def test_no_table_of_ranks_is_so_large_that_its_growth_takes_long(both):
    """An event loop waits for each step of a thread that reads them."""
    assert max(map(len, both[0]._ranks.values())) < 40_000 < sum(map(len, both[0]._ranks.values()))


def test_a_table_needs_no_file_that_was_there_once(monkeypatch):
    counted = vocabulary("o200k_base")
    monkeypatch.setattr("llm_cost_middleware.pricing.vocabulary._folders", lambda: ())
    monkeypatch.setattr("llm_cost_middleware.pricing.vocabulary._WORTH_A_TABLE", 1)
    before = counted.count("unbelievably zyxtlpq")
    counted.build_if_due()
    assert counted._table is not None
    assert counted.count("unbelievably zyxtlpq") == before


def test_text_of_few_letters_has(both):
    counted, known = both

    @settings(max_examples=300, deadline=None)
    @given(st.text("abe tTn'\n.,0é敏", max_size=200) | st.text(st.characters(exclude_categories=["Cn", "Cs"])))
    def law(text):
        assert counted.count(text) == len(known.encode_ordinary(text))

    law()


def test_a_table_is_built_when_counting_without_it_has_cost_as_much_and_counts_the_same():
    counted, known, rng = vocabulary("cl100k_base"), tiktoken_encoding("cl100k_base"), Random(7)
    said = 0
    while not counted.is_due:
        text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=2_000))
        assert counted.count(text) == len(known.encode_ordinary(text))
        said += len(text)
    assert said >= 65_536
    before = counted.effort(text)
    threads = [threading.Thread(target=counted.build_if_due) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert counted.count(text) == len(known.encode_ordinary(text))
    for thread in threads:
        thread.join()
    assert not counted.is_due
    assert counted.effort(text) < before
    assert all(counted.count(text) == len(known.encode_ordinary(text)) for text in TEXTS.values())


def test_no_text_is_kept_and_what_is_remembered_has_an_end(monkeypatch):
    monkeypatch.setattr("llm_cost_middleware.pricing.vocabulary._KNOWN", 50)
    counted, rng = vocabulary("o200k_base"), Random(7)
    counted.count(" ".join("".join(rng.choices("bcdfgx", k=9)) for _ in range(1_000)))
    assert 0 < len(counted._known) <= 50
    assert {type(one) for pair in counted._known.items() for one in pair} == {int}


def test_text_without_words_is_said_to_take_longer():
    counted = vocabulary("o200k_base")
    assert counted.effort("敏捷的" * 100) > 5 * counted.effort("The fox. " * 33)


@pytest.mark.parametrize("run", [" ", '"'])
def test_a_run_of_spaces_or_quotes_is_said_to_take_as_long_as_one_long_word(run):
    """It is merged as one piece: no words, which are counted in a moment."""
    counted = vocabulary("o200k_base")
    alone, word, words = (counted.effort(text) for text in (5_000 * run, 5_000 * "a", 1_250 * f"abc{run}"))
    assert alone == word > 10 * words
