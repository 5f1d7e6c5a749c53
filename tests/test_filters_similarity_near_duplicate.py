"""near_duplicate as a filter: verdicts, details, and which copy stays."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from filters.judging import judge, judge_corpus
from filters.similarity import near_duplicate
from filters.tools import Tools
from helpers.hit_tables import hit_table, verdict_rows
from schemas.engines import ModelSpec
from schemas.repeats import DedupeSpec, SemanticSpec

LONG = "We take the first number and add the second number to it, step by step, until nothing is left, and so we find {}."


def in_prompt(table: pa.Table, **spec: Any) -> list[dict[str, Any]]:
    return verdict_rows(judge(near_duplicate.within_prompt(DedupeSpec(**spec)), table))


def in_run(*tables: pa.Table, **spec: Any) -> list[dict[str, Any]]:
    filter_ = near_duplicate.within_run(DedupeSpec(**spec))
    return [row for verdicts in judge_corpus(filter_, tables) for row in verdict_rows(verdicts)]


def repeats(verdicts: list[dict[str, Any]]) -> list[str | None]:
    """The id that each dropped sample repeats."""
    return [row["detail"]["duplicate_of"] if row["outcome"] == "drop" else None for row in verdicts]


def test_a_duplicate_names_what_it_repeats_and_the_similarity() -> None:
    """Words for words, or nearly; the copy that stays has the number of draws."""
    verdicts = in_prompt(
        hit_table(LONG.format("out"), LONG.format("it"), LONG.format("it").upper(), "Something else altogether.")
    )

    assert [(row["outcome"], row["reason"]) for row in verdicts] == [
        ("drop", "near_duplicate"),
        ("keep", ""),
        ("drop", "exact_duplicate"),
        ("keep", ""),
    ]
    assert repeats(verdicts) == ["s1", None, "s1", None]
    assert verdicts[0]["detail"]["similarity"] == verdicts[0]["score"] == pytest.approx(22 / 24, abs=1e-4)
    assert verdicts[0]["detail"]["scope"] == "prompt"
    assert [row["detail"] for row in verdicts if row["outcome"] == "keep"] == [{"multiplicity": 3}, None]


def test_the_shortest_stays_unless_another_has_a_higher_score() -> None:
    """In the order of `keep`."""
    texts = (LONG.format("it"), LONG.format("this"), LONG.format("at last"))

    assert repeats(in_prompt(hit_table(*texts))) == [None, "s0", "s0"]
    assert repeats(in_prompt(hit_table(*texts, score=[0.1, 0.9, None]))) == ["s1", None, "s1"]
    assert repeats(in_prompt(hit_table(*texts, score=[0.1, 0.9, None]), keep=("shortest",))) == [None, "s0", "s0"]


def test_the_likeliest_of_equal_length_stays_and_then_the_smallest_id() -> None:
    """A missing log-probability is the least likely."""
    texts = (LONG.format("it"), LONG.format("us"), LONG.format("me"))

    assert repeats(in_prompt(hit_table(*texts, cumulative_logprob=[-9.0, -3.0, None]))) == ["s1", None, "s1"]
    assert repeats(in_prompt(hit_table(*texts))) == [None, "s0", "s0"]
    assert repeats(in_prompt(hit_table(*texts, sample_id=["c", "b", "a"]))) == ["a", "a", None]


def test_samples_that_differ_in_a_number_are_no_duplicates() -> None:
    """Unless a verifier accepted both for one reference, or `guard` ignores numbers."""
    texts = (LONG.format("41"), LONG.format("42"), LONG.format("42").upper())

    assert repeats(in_prompt(hit_table(*texts))) == [None, None, "s1"]
    assert repeats(in_prompt(hit_table(*texts), guard="none")) == [None, "s0", "s0"]
    assert repeats(in_prompt(hit_table(*texts, accepted=["7"] * 3))) == [None, "s0", "s0"]
    assert repeats(in_prompt(hit_table(*texts, accepted=["7"] * 3), guard="numbers")) == [None, None, "s1"]
    assert repeats(in_prompt(hit_table(*texts, accepted=["7", "8", "8"]), guard="answer")) == [None, None, "s1"]


def test_equal_texts_of_two_prompts_are_no_duplicates() -> None:
    """Within a prompt, only samples of that prompt are compared."""
    assert repeats(in_prompt(hit_table("same", "same", prompt_id=["p", "q"]))) == [None, None]


def test_within_the_run_only_long_completions_repeat_those_of_other_prompts() -> None:
    """Across batches. Two prompts may have the same short answer."""
    long = LONG.format("out") + " " + LONG.format("this")
    first, second = (
        hit_table("Paris", long, prompt_id=["p", "p"]),
        hit_table("Paris", long + " Yes", "Paris", prompt_id=["q", "q", "q"]),
    )
    second = second.set_column(0, "sample_id", pa.array(["t0", "t1", "t2"]))

    assert repeats(in_run(first, second)) == [None, None, None, "s1", "t0"]
    assert repeats(in_run(first, second, run_characters=0)) == [None, None, "s0", "s1", "s0"]


def test_draws_add_up_over_filters() -> None:
    """A dropped sample adds the draws that fell on it before."""
    long = LONG.format("out") + " " + LONG.format("this")
    verdicts = in_run(hit_table(long, long + " Yes", multiplicity=[3, 4]))

    assert verdicts[0]["detail"] == {"multiplicity": 7}


@pytest.mark.parametrize("completions", [("", ""), ("", " \n"), ("?", "?"), ("a", "A")], ids=repr)
def test_empty_and_one_word_answers(completions: tuple[str, str]) -> None:
    """Equal ones are duplicates."""
    assert repeats(in_prompt(hit_table(*completions))) == [None, "s0"]


def test_answers_that_only_call_tools_are_compared_by_their_calls() -> None:
    """They have no text in which they could differ."""
    calls = ['[{"name": "weather", "arguments": {"city": "Paris"}}]', '[{"name": "weather", "arguments": {"city": "Rome"}}]']
    table = hit_table("", "", "", "", tool_calls=[*calls, calls[0], None])
    table = table.append_column("answer", table["completion"])

    assert repeats(in_prompt(table)) == [None, None, "s0", None]


def test_a_run_without_hits_has_no_verdicts() -> None:
    """With empty batches or without any."""
    assert in_run() == []
    assert in_run(hit_table(), hit_table()) == []


def test_keys_depend_on_the_settings() -> None:
    """Verdicts with one key were made with one threshold."""
    filters = [near_duplicate.within_prompt(DedupeSpec(within_prompt=threshold)) for threshold in (0.7, 0.8)]

    assert filters[0].key != filters[1].key


def test_the_closest_embedding_is_repeated() -> None:
    """If it is similar enough and the answers agree; texts without an embedding are kept."""
    vectors = {"a": [1.0, 0.0], "b": [0.99, 0.14], "c": [0.0, 1.0], "d": [1.0, 0.0]}

    class Embedder:
        def embeddings(self, texts: Sequence[str]) -> list[Any]:
            return [np.array(vectors[text]) if text in vectors else "too long" for text in texts]

    class Models:
        def embedder(self, *_: Any) -> Embedder:
            return Embedder()

    table = hit_table("a", "b", "c", "d", "x" * 9, accepted=["7", "7", "7", "8", "7"])
    with Tools(models=cast("Any", Models())) as tools:
        spec = DedupeSpec(semantic=SemanticSpec(model=ModelSpec(name="embedder")))
        verdicts = verdict_rows(judge(near_duplicate.semantic(spec, tools), table))

    assert repeats(verdicts) == [None, "s0", None, None, None]
    assert verdicts[1]["reason"] == "semantic_duplicate"
