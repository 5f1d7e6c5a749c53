"""How different hits are."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from helpers.own_samples import Rows, related_samples
from helpers.runs import filter_rows
from thresher.auditing.count_run import count
from thresher.estimators import diversity
from thresher.pool.run import open_run


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Filter rows by a recipe, changed by keywords; returns the run's directory."""

    def filtered(rows: Rows, name: str = "run", **recipe: Any) -> Path:
        return filter_rows(tmp_path, rows, recipe, name)

    return filtered


def test_the_audit_measures_how_different_hits_are(run: Callable[..., Path]) -> None:
    """Each prompt has two hits with two draws each, and two near misses for one miss."""
    (diversity,) = count(open_run(run(related_samples()))).to_dict()["diversity"]

    assert (diversity["family"], diversity["prompts_with_hits"], diversity["hits_per_prompt"]) == ("default", 6, 2)
    assert diversity["effective_solutions"] == pytest.approx(2)
    assert diversity["cluster_sizes"] == {"2": 12}
    assert diversity["near_miss_share"] == pytest.approx(2 / 3)
    assert 0.5 < diversity["distinct_1"] < diversity["distinct_2"] < 1


def test_effective_solutions_weigh_hits_by_their_draws(run: Callable[..., Path]) -> None:
    """98 draws of one answer, and one of each of two others."""
    texts = ["one and only", *["so it is"] * 98, "nobody would doubt that"]
    rows = [{"prompt": "?", "reference": "x", "completion": f"{text} A: x"} for text in texts]
    (diversity,) = count(open_run(run(rows))).to_dict()["diversity"]

    assert diversity["effective_solutions"] == pytest.approx(100 / 98**0.98)
    assert diversity["cluster_sizes"] == {"1": 2, "65-128": 1}
    assert diversity["near_miss_share"] is None


@pytest.mark.parametrize("part", [1, 40, 1 << 20])
def test_distinct_words_do_not_depend_on_how_texts_are_cut(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts whose texts are counted in several parts, in any order of their rows."""
    monkeypatch.setattr(diversity, "PART_BYTES", part)
    random = np.random.default_rng(3)
    texts = [" ".join(random.choice(["a", "b", "c", "d"], random.integers(0, 6))) for _ in range(60)]
    prompts = [f"p{number}" for number in random.integers(0, 7, 60)]
    hits = random.random(60) < 0.8
    samples = pa.table({"prompt_id": prompts, "family": ["f"] * 60, "completion": texts})
    expected = [0, 0.0, 0.0]
    for prompt in {name for name, hit in zip(prompts, hits, strict=True) if hit}:
        words = [text.split() for text, name, hit in zip(texts, prompts, hits, strict=True) if hit and name == prompt]
        single = [word for text in words for word in text]
        pairs = [pair for text in words for pair in pairwise(text)]
        expected[0] += 1
        expected[1] += len(set(single)) / len(single) if single else 1
        expected[2] += len(set(pairs)) / len(pairs) if pairs else 1

    assert diversity.distinct_of(samples, hits)["f"] == pytest.approx(expected)
