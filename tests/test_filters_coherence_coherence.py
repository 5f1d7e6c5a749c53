# ruff: noqa: E501, RUF001, Q003 - texts as they come
"""coherence: each kind of fault with its span, what is left alone, and the rate of false alarms on unseen text.

The clean sentences come from the documentation of installed Python packages that were not in the training data.
"""

import json
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import text_corpus
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.coherence.coherence import highest_runs
from filters.judging import judge
from helpers.filter_tables import verdicts_of

CLEAN = "The library opens at nine and closes when the last reader has gone home, which is often late in the evening."
LONGER = f"{CLEAN} Most people who work there know every shelf, and they like to tell you where the best books are."


def verdicts(*texts: str, **parameters: Any) -> list[dict[str, Any]]:
    """Verdicts on completions."""
    return verdicts_of("coherence", parameters, pa.table({"completion": list(texts)}))


def results(*texts: str, **parameters: Any) -> list[str]:
    """The reason per completion, `keep` where kept."""
    return [verdict["result"] for verdict in verdicts(*texts, **parameters)]


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
    """The span is the completion's text between start and end, or the first part of it."""
    [verdict] = verdicts(text)
    assert verdict["result"] == reason
    assert span in verdict["detail"]["span"]
    assert text[verdict["detail"]["start"] :].startswith(verdict["detail"]["span"])
    assert verdict["score"] < 1
    assert results(text, ignore=[reason]) != [reason]


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
    """And so are clean prose and texts that are too short to judge."""
    [verdict] = verdicts(text)
    assert verdict["result"] == "keep", verdict
    assert verdict["score"] == 1


def test_a_text_with_code_and_links_needs_stronger_findings() -> None:
    """It is full of names such as iPython; noise is found in both."""
    name = "We removed the dependency on iPython and the rest of what it needs to run, as you can see in the table."
    code = "Call `run` or `stop` as said in [the manual](https://example.org/manual)."
    noisy = 'We can see that the answer is thhhhsYV"Cp!}"=OEtm! because the sum of both is even.'

    assert results(name, f"{name}\n\n{code}", f"{noisy}\n\n{code}") == ["case_flip", "keep", "noise"]


def test_the_score_is_the_share_of_sound_windows_and_windows_may_be_required() -> None:
    """A long text is not dropped for one fault if two are required."""
    bad = "We can see that the answer is xqzvkjwp because the sum of both is even, as was said before in this text."
    second = bad.replace("xqzvkjwp", "vqkzzjxw")
    rest = [CLEAN, "Most people who work there know every shelf of it.", "They like to tell you where the best books are."]
    text = "\n\n".join([bad, *rest])
    [verdict] = verdicts(text)
    assert verdict["result"] == "strange_word"
    assert verdict["score"] == 0.75
    assert (verdict["detail"]["windows"], verdict["detail"]["flagged"]) == (4, 1)
    assert results(text, windows=2) == ["keep"]
    assert results(f"{bad}\n\n{CLEAN}\n\n{second}", windows=2) == ["strange_word"]


def test_samples_of_a_batch_do_not_affect_each_other() -> None:
    """A sample has the same verdict alone and between any others."""
    texts = [
        CLEAN,
        "The next step is the generatiOn of a new table from all of the rows we have.",
        "",
        "42",
        LONGER,
        "Ã©\x00é",
    ] * 3
    alone = [results(text)[0] for text in texts]
    assert results(*texts) == alone
    assert results(*reversed(texts)) == alone[::-1]


@pytest.mark.slow
@given(st.lists(st.text(max_size=200), max_size=8))
def test_any_text_has_a_verdict(texts: list[str]) -> None:
    """With halves of surrogate pairs, control characters and any script; spans lie inside the text."""
    for text, verdict in zip(texts, verdicts(*texts), strict=True):
        if verdict["result"] != "keep":
            assert 0 <= verdict["detail"]["start"] < verdict["detail"]["end"] <= len(text)


def test_of_a_very_long_text_the_beginning_is_read_up_to_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty megabytes would take gigabytes."""
    monkeypatch.setattr("filters.coherence.coherence.BATCH_CHARS", len(CLEAN) + 20)
    late = f'{CLEAN} {CLEAN} We can see thhhhsYV"Cp!}}"=OEtm! because.'

    assert results(late, CLEAN) == ["keep", "keep"]


def test_surprising_runs_of_tokens_are_found_where_the_pool_has_logprobs() -> None:
    """The highest mean of five in a row, for each sample by itself; a sample without log-probabilities is kept."""
    flat, peak = [-1.0] * 20, [-1.0] * 8 + [-12.0] * 5 + [-1.0] * 8
    logprobs = [flat, peak, None, [-20.0] * 4, flat]
    table = pa.table({"completion": [CLEAN] * 5, "logprobs": pa.array(logprobs, pa.list_(pa.float32()))})
    rows = judge(filters.build("coherence", {"surprisal": 11.0}), table).to_pylist()
    assert [row["reason"] for row in rows] == ["", "surprising", "", "", ""]
    assert json.loads(rows[1]["detail"])["token"] == 8
    assert highest_runs(np.array(peak, np.float32)) == 12
    assert highest_runs(np.array([-1.0] * 4, np.float32)) is None


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """Clean sentences in a random order."""
    clean = text_corpus.held_back()
    random.Random(0).shuffle(clean)
    assert len(clean) > 2000
    return clean


@pytest.mark.slow
def test_at_most_one_clean_sentence_in_a_hundred_is_flagged(sentences: list[str]) -> None:
    """In documents outside the training data."""
    flagged = [result for result in results(*sentences) if result != "keep"]
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
    """At random places in clean sentences. The share found may fall short by two standard errors, because the sentences depend on
    the documents that are installed."""
    texts = [text_corpus.spoilt(kind, sentences[row], sentences[-1 - row], row) for kind in kinds for row in range(1000)]
    found = sum(result != "keep" for result in results(*texts))
    assert found + 2 * (len(texts) * least * (1 - least)) ** 0.5 >= least * len(texts)
