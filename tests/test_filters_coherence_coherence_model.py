"""coherence with a language model: what it confirms, what it finds, and what it cannot read."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import coherence as benchmark
import coherence_corpus
import numpy as np
import pyarrow as pa
import pytest
from test_filters_coherence_surprise import TEXT, reading

import filters
from filters.judging import judge
from filters.tools import Asker, Embedder, Reader, Reading, Scorer, Tools
from helpers.filter_tables import pool_table
from schemas.engines import Engine, ModelSpec, VllmEngine
from thresher.judging.model_engines import ModelEngines

FLIPPED = "The next step is the generatiOn of a new table from all of the rows we have."


class Readings:
    """A model whose readings are written by hand; what it lacks does not fit."""

    def __init__(self, known: dict[str, Reading]) -> None:
        self.known, self.asked = known, list[str]()

    def reader(self, engine: VllmEngine, model: ModelSpec) -> Reader:
        assert model.name == "smollm2-135m-instruct"
        return self

    def readings(self, texts: Sequence[str]) -> list[Reading | str]:
        self.asked += texts
        return [self.known.get(text, "too many tokens") for text in texts]

    def asker(self, engine: Engine, model: ModelSpec) -> Asker:
        raise NotImplementedError

    def scorer(self, engine: VllmEngine, model: ModelSpec) -> Scorer:
        raise NotImplementedError

    def embedder(self, engine: VllmEngine, model: ModelSpec) -> Embedder:
        raise NotImplementedError


def verdicts(model: Readings, *texts: str, **parameters: Any) -> list[dict[str, Any]]:
    built = filters.build("coherence_model", parameters, Tools(models=model))
    table: pa.Table = judge(built, pool_table(*({"completion": text} for text in texts)))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_a_rule_and_the_model_have_to_agree() -> None:
    """The rule alone finds the capital either way."""
    surprised, calm = Readings({FLIPPED: reading(FLIPPED, {"generatiOn": 14.0})}), Readings({FLIPPED: reading(FLIPPED, {})})

    assert [row["reason"] for row in verdicts(surprised, FLIPPED)] == ["case_flip"]
    assert [row["outcome"] for row in verdicts(calm, FLIPPED)] == ["keep"]
    assert [row["outcome"] for row in verdicts(surprised, FLIPPED, ignore=["case_flip"])] == ["keep"]


def test_a_word_that_was_cut_inside_a_text_is_found() -> None:
    """With its place."""
    model = Readings({TEXT: reading(TEXT, {"anot": 24.0, "is": 9.0, "for": 6.0}, ("is",))})
    [row] = verdicts(model, TEXT)
    detail = json.loads(row["detail"])

    assert row["reason"] == "cut_word"
    assert (detail["span"], TEXT[detail["start"] : detail["end"]]) == ("anot", "anot")


def test_what_the_model_cannot_read_is_undecided() -> None:
    """Texts over `max_chars` are not given to it; the others are judged."""
    model = Readings({"": Reading.empty(), FLIPPED: reading(FLIPPED, {"generatiOn": 14.0})})
    rows = verdicts(model, "x" * 101, "unknown", "", FLIPPED, max_chars=100)

    assert [row["outcome"] for row in rows] == ["undecided", "undecided", "keep", "drop"]
    assert [row["reason"] for row in rows] == ["unverifiable", "unverifiable", "", "case_flip"]
    assert [json.loads(row["detail"])["why"] for row in rows[:2]] == ["longer than 100 characters", "too many tokens"]
    assert model.asked == ["unknown", "", FLIPPED]


@pytest.fixture(scope="module")
def engines() -> Iterator[ModelEngines]:
    with ModelEngines() as opened:
        yield opened


ENGINE = {"kind": "vllm", "max_model_len": 1024, "enforce_eager": True, "kv_cache_gib": 1, "dtype": "float32"}


@pytest.mark.slow
def test_the_embedded_model_finds_five_of_the_six_corruptions_of_the_seed_text(engines: ModelEngines) -> None:
    """And a text has the same verdict alone, and after others."""
    built = filters.build("coherence_model", {"engine": ENGINE}, Tools(models=engines))
    texts = list(benchmark.SEED.values())
    together = judge(built, pool_table(*({"completion": text} for text in texts))).to_pylist()
    alone = [judge(built, pool_table({"completion": text})).to_pylist()[0] for text in texts[::-1]][::-1]

    assert [row["reason"] for row in together] == ["noise", "cut_word", "glued_words", "case_flip", "cut_word", ""]
    assert [(row["reason"], row["score"]) for row in alone] == [(row["reason"], row["score"]) for row in together]


@pytest.mark.slow
def test_few_clean_paragraphs_are_flagged_and_words_that_were_cut_are_found(engines: ModelEngines) -> None:
    """On a part of those that benchmarks/coherence.py reads: at most two standard errors above 1 % of the clean ones."""
    built = filters.build("coherence_model", {"engine": ENGINE}, Tools(models=engines))
    clean = [text for texts in coherence_corpus.paragraphs("test").values() for text in texts[::30]]
    cut = [text for kind, _, text in coherence_corpus.corruptions("test", 20) if kind.endswith("cut")]
    flagged, found = (np.array(benchmark.reasons(built, texts)) != "" for texts in (clean, cut))

    assert len(clean) > 60
    assert flagged.sum() <= 0.01 * len(clean) + 2 * (len(clean) * 0.01 * 0.99) ** 0.5
    assert found.mean() >= 0.2
