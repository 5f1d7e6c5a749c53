"""decontaminate: samples that share runs of words with a benchmark."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.base import FilterError
from filters.similarity.word_runs import words_of
from helpers.filter_tables import results, verdicts

ITEM = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many in all?"
SHORT = "What is the capital of the moon?"


@pytest.fixture
def benchmark(tmp_path: Path) -> dict[str, Any]:
    """A benchmark with a long item, a short one, and one that is too short to count."""
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps({"question": text, "id": 3}) + "\n" for text in (ITEM, SHORT, "yes")))
    return {"benchmarks": [{"name": "bench", "path": str(path), "fields": ["question"]}]}


@pytest.mark.parametrize(
    ("completion", "item", "rule"),
    [
        (f"Here it is: {ITEM} Well.", 0, "13 words"),
        (ITEM.upper().replace(",", " --"), 0, "13 words"),
        ("xx sold clips to 48 of her friends in April AND then she sold yy", 0, "13 words"),
        ("He asked: what is THE capital of the moon", 1, "all of its 7 words"),
        ("\uff37hat is the capital of the moon? " + SHORT, 1, "all of its 7 words"),
    ],
)
def test_contaminated_samples_are_dropped_with_their_span(
    benchmark: dict[str, Any], completion: str, item: int, rule: str
) -> None:
    """Case and punctuation do not matter; the span is part of the text and holds the run."""
    (verdict,) = verdicts("decontaminate", benchmark, {"completion": completion})
    detail = verdict["detail"]

    assert verdict["result"] == "contaminated"
    assert (detail["item"], detail["rule"], detail["benchmark"]) == (item, rule, "bench")
    span = completion[detail["start"] : detail["end"]]
    assert span.startswith(detail["span"][:20])
    assert set(words_of(span)) <= set(words_of(ITEM + SHORT))


@pytest.mark.parametrize(
    "completion",
    [
        "sold clips to 48 of her friends in April and then she bought others",
        "What is the capital of France?",
        "yes",
        "",
        "clips " * 50,
    ],
)
def test_clean_samples_stay(benchmark: dict[str, Any], completion: str) -> None:
    """Twelve words in a row are not thirteen; every text contains a word like yes."""
    assert results("decontaminate", benchmark, {"completion": completion}) == ["keep"]


def test_many_short_runs_are_contamination_without_a_long_one(benchmark: dict[str, Any]) -> None:
    """If the text holds the required share of the item's runs of eight words."""
    words = ITEM.split()
    text = " ".join([*words[:12], "uh", *words[4:16], "uh", *words[10:22]])

    assert results("decontaminate", {**benchmark, "share": 0.7}, {"completion": text}) == ["contaminated"]
    assert results("decontaminate", {**benchmark, "share": 1.0}, {"completion": text}) == ["keep"]
    assert results("decontaminate", {**benchmark, "share": 0.7}, {"completion": " ".join(words[:12])}) == ["keep"]


def test_prompts_are_searched_too(benchmark: dict[str, Any]) -> None:
    """`scan` limits the search to prompts or to completions."""
    row = {"completion": "72", "messages": [{"role": "user", "content": ITEM}]}

    by_scan = [verdicts("decontaminate", {**benchmark, "scan": scan}, row)[0] for scan in ("both", "prompt", "completion")]
    assert [verdict["result"] for verdict in by_scan] == ["contaminated", "contaminated", "keep"]
    assert by_scan[0]["detail"]["where"] == "prompt"


def test_the_key_depends_on_what_the_benchmark_holds(benchmark: dict[str, Any], tmp_path: Path) -> None:
    """Verdicts against two versions of a file are different verdicts; unreadable files are refused."""
    before = filters.build("decontaminate", benchmark).key
    with (tmp_path / "bench.jsonl").open("a") as file:
        file.write(json.dumps({"question": "And one more item that has enough words?"}) + "\n")
    assert filters.build("decontaminate", benchmark).key != before
    with pytest.raises(FilterError, match="no field 'questoin'"):
        filters.build("decontaminate", {"benchmarks": [{**benchmark["benchmarks"][0], "fields": ["questoin"]}]})
    with pytest.raises(FilterError, match="no such file"):
        filters.build("decontaminate", {"benchmarks": [{"name": "b", "path": str(tmp_path / "none.txt")}]})
    with pytest.raises(FilterError, match="no item has 50 words"):
        filters.build("decontaminate", {**benchmark, "min_words": 50})


@given(st.lists(st.sampled_from("abcdefgh"), min_size=13, max_size=40), st.integers(0, 27))
def test_any_run_of_thirteen_words_is_found(tmp_path_factory: pytest.TempPathFactory, words: list[str], first: int) -> None:
    """Wherever it lies in the item; but not after one word of every run has changed."""
    path = tmp_path_factory.mktemp("b") / "b.txt"
    path.write_text(" ".join(f"{word}{number}" for number, word in enumerate(words)) + "\n")
    first = first % (len(words) - 12)
    run = [f"{word}{number}" for number, word in enumerate(words)][first : first + 13]
    parameters = {"benchmarks": [{"name": "b", "path": str(path)}], "share": 1.0}
    broken = [word if number % 6 else "other" for number, word in enumerate(run)]

    assert results("decontaminate", parameters, {"completion": " ".join(["x", *run, "y"])}, {"completion": " ".join(broken)}) == [
        "contaminated",
        "keep",
    ]


@pytest.mark.slow
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=4, max_size=9), min_size=1, max_size=4), st.data())
def test_a_plain_set_of_runs_gives_the_same_verdicts(
    tmp_path_factory: pytest.TempPathFactory, items: list[list[str]], data: st.DataObject
) -> None:
    """If one shared run is enough; also with runs that repeat within an item, and with many texts in a batch."""
    path = tmp_path_factory.mktemp("b") / "b.txt"
    path.write_text("".join(" ".join(item) + "\n" for item in items))
    texts = data.draw(st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=1, max_size=6))
    parameters = {"benchmarks": [{"name": "b", "path": str(path)}], "long_run": 4, "short_run": 4, "min_words": 4}

    def runs(words: list[str]) -> set[str]:
        return {"".join(words[first : first + 4]) for first in range(len(words) - 3)}

    wanted = ["contaminated" if any(runs(text) & runs(item) for item in items) else "keep" for text in texts]
    assert results("decontaminate", parameters, *({"completion": " ".join(text)} for text in texts * 60)) == wanted * 60
