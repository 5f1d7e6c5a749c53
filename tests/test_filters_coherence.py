# ruff: noqa: E501, RUF001, Q003 - texts as they come
"""coherence: each kind of fault with its span, what is left alone, and how often it is wrong on text that it has not seen.

The clean sentences are the documentation of the Python packages that are installed, of those that nothing was learned from.
"""

import json
import random
import runpy
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.coherence import highest_runs
from filters.judging import judge

CORPUS = runpy.run_path("benchmarks/text_corpus.py")
CLEAN = "The library opens at nine and closes when the last reader has gone home, which is often late in the evening."
LONGER = f"{CLEAN} Most people who work there know every shelf, and they like to tell you where the best books are."


def verdicts(*texts: str, **parameters: Any) -> list[dict[str, Any]]:
    held = pa.table({"completion": list(texts)})
    found = judge(filters.build("coherence", parameters), held).to_pylist()
    return [{**one, "detail": json.loads(one["detail"] or "{}"), "said": one["reason"] or one["outcome"]} for one in found]


def said(*texts: str, **parameters: Any) -> list[str]:
    return [one["said"] for one in verdicts(*texts, **parameters)]


@pytest.mark.parametrize(
    ("text", "reason", "span"),
    [
        ("We can see that the answer is thhhhsYV\"Cp!}\"=OEtm! because the sum of both is even.", "noise", 'thhhhsYV"Cp!}"=OEtm!'),
        ("We can see that the answer is xqzvkjwp because the sum of both is even.", "strange_word", "xqzvkjwp"),
        ("It is up to them to decide what is best for their ownYou're free to choose what you like.", "glued_words", "ownYou're"),
        ("This is where the story comes to an end.Next we look at what it means for all of us.", "glued_words", "end.Next"),
        ("The next step is the generatiOn of a new table from all of the rows we have.", "case_flip", "generatiOn"),
        ("The next step is to use the используется table from all of the rows we have.", "foreign_script", "используется"),
        ("We met in a small cafÃ© near the river and talked about what to do next.", "mojibake", "Ã©"),
        ("I think that we should go home and so on. " + "we should go home and " * 8, "loop", "we should go home and"),
        ("He laughed and laughed: hahahahahahahahahahahahahaha, and then he went home again.", "loop", "hahaha"),
        (f"{LONGER} So in the end we have to conside", "cut_word", "conside"),
    ],
)  # fmt: skip
def test_what_breaks_at_temperature_one_is_found_with_its_span(text: str, reason: str, span: str) -> None:
    """The span is the completion's text between start and end, or begins so."""
    [found] = verdicts(text)
    assert found["said"] == reason
    assert span in found["detail"]["span"]
    assert text[found["detail"]["start"] :].startswith(found["detail"]["span"])
    assert found["score"] < 1
    assert said(text, ignore=[reason]) != [reason]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "42",
        "Paris",
        "x" * 11,
        CLEAN,
        LONGER,
        "```python\nxqzvkjwp = lambda thhhhsYV: thhhhsYV[0]\n```",
        "Call it so:\n\n    xqzvkjwp = foo(bar)[0]; return {'a': 1}\n\nand that is all there is to do for you in this case.",
        "The function `xqzvkjwp` is called with the name of the table and the number of the rows that we want.",
        "We have $x_{qzvk} = \\frac{1}{2} \\sum_{i} thhhhsYV_i$, and so it is clear that the sum of both is even.",
        "def f(x):\n    return xqzvkjwp(x) + 1\n",
        "| name | thhhhsYV |\n|---|---|\n| xqzv | kjwp |\n",
        "See https://www.example.com/xqzvkjwp/thhhhsYV?a=OEtm for more of what we have said about it.",
        "Die Bibliothek öffnet um neun Uhr und schließt erst, wenn der letzte Leser nach Hause gegangen ist.",
        "La bibliothèque ouvre à neuf heures et ferme quand le dernier lecteur est rentré chez lui.",
        "Библиотека открывается в девять часов и закрывается, когда последний читатель уходит домой.",
        "图书馆九点开门，最后一位读者回家后才关门。",
        "The Greek word for it is λόγος (logos), and it is often said that \u201cслово\u201d is the Russian one.",
        "Let α and β be the angles of the triangle, and let π be the number that we all know so well.",
        "The river Dniester and the towns of Zhytomyr and Ivano-Frankivsk are in the west of the country.",
        "It was a very, very, very long day, and we were all tired and went to bed as soon as we could.",
        "1. First item\n2. Second item\n3. Third item\n4. Fourth item\n5. Fifth item\n",
        "Set TCA_ACT_FLAGS and DH/RSA/DHE-DSS in the file if you want to use what the module has to offer.",
        "She said that JavaScript and PyTorch are what she likes, and that GitHub is where she puts it all.",
        '{"name": "Anna", "age": 31, "city": "Paris"}',
    ],
)  # fmt: skip
def test_code_maths_names_and_other_languages_are_left_alone(text: str) -> None:
    """And clean prose, and what is too short to say anything of."""
    [found] = verdicts(text)
    assert found["said"] == "keep", found
    assert found["score"] == 1


def test_the_score_is_the_share_of_sound_windows_and_windows_may_be_required() -> None:
    """A long text is not dropped for one fault, where two are asked for."""
    bad = "We can see that the answer is xqzvkjwp because the sum of both is even, as was said before in this text."
    other = bad.replace("xqzvkjwp", "vqkzzjxw")
    rest = [CLEAN, "Most people who work there know every shelf of it.", "They like to tell you where the best books are."]
    text = "\n\n".join([bad, *rest])
    [one] = verdicts(text)
    assert one["said"] == "strange_word"
    assert one["score"] == 0.75
    assert (one["detail"]["windows"], one["detail"]["flagged"]) == (4, 1)
    assert said(text, windows=2) == ["keep"]
    assert said(f"{bad}\n\n{CLEAN}\n\n{other}", windows=2) == ["strange_word"]


def test_samples_of_a_batch_do_not_touch_one_another() -> None:
    """Whatever stands before and after, the verdict is the same."""
    texts = [
        CLEAN,
        "The next step is the generatiOn of a new table from all of the rows we have.",
        "",
        "42",
        LONGER,
        "Ã©\x00é",
    ] * 3
    alone = [said(text)[0] for text in texts]
    assert said(*texts) == alone
    assert said(*reversed(texts)) == alone[::-1]


@pytest.mark.slow
@given(st.lists(st.text(max_size=200), max_size=8))
def test_any_text_has_a_verdict(texts: list[str]) -> None:
    """Halves of surrogate pairs, control characters, scripts: spans lie inside of the text."""
    for text, found in zip(texts, verdicts(*texts), strict=True):
        if found["said"] != "keep":
            assert 0 <= found["detail"]["start"] < found["detail"]["end"] <= len(text)


def test_surprising_runs_of_tokens_are_found_where_the_pool_has_logprobs() -> None:
    """The highest mean of five in a row, of each sample by itself; null where there are none."""
    flat, peak = [-1.0] * 20, [-1.0] * 8 + [-12.0] * 5 + [-1.0] * 8
    logprobs = [flat, peak, None, [-20.0] * 4, flat]
    held = pa.table({"completion": [CLEAN] * 5, "logprobs": pa.array(logprobs, pa.list_(pa.float32()))})
    found = judge(filters.build("coherence", {"surprisal": 11.0}), held).to_pylist()
    assert [one["reason"] for one in found] == ["", "surprising", "", "", ""]
    assert json.loads(found[1]["detail"])["token"] == 8
    assert highest_runs(np.array(peak, np.float32)) == 12
    assert highest_runs(np.array([-1.0] * 4, np.float32)) is None


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    held_back: Callable[[], list[str]] = CORPUS["held_back"]
    found = held_back()
    random.Random(0).shuffle(found)
    assert len(found) > 2000
    return found


@pytest.mark.slow
def test_one_clean_sentence_in_a_hundred_is_flagged_at_most(sentences: list[str]) -> None:
    """Of documents that the filter has never seen."""
    flagged = [one for one in said(*sentences) if one != "keep"]
    assert len(flagged) <= 0.01 * len(sentences)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "least"),
    [
        (["ascii noise"], 0.85),
        (["random letters"], 0.85),
        (["sentences glued", "glued at a full stop"], 0.85),
        (["base64"], 0.85),
        (["foreign script"], 0.85),
        (["mojibake"], 0.98),
        (["loop x6"], 0.9),
        (["case flip"], 0.75),
    ],
)
def test_splices_are_found(kinds: list[str], least: float, sentences: list[str]) -> None:
    """Put into clean sentences at random places: the share found, give or take two standard errors, for which documents are
    installed decides which sentences are drawn."""
    spoilt = CORPUS["spoilt"]
    made = [spoilt(kind, sentences[at], sentences[-1 - at], at) for kind in kinds for at in range(1000)]
    found = sum(one != "keep" for one in said(*made))
    assert found + 2 * (len(made) * least * (1 - least)) ** 0.5 >= least * len(made)
