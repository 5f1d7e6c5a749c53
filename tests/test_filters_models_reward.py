"""reward: the scores that transformers computes, thresholds, and which output is the score."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import filters
from filters.base import FilterError, Role
from filters.judging import judge
from filters.tools import Asker, Embedder, Reader, Scorer, Tools
from helpers.capitals import SMALL, asked_table, capitals
from helpers.filter_tables import pool_table
from schemas.engines import Engine, ModelSpec, VllmEngine
from thresher.judging.model_engines import ModelEngines

MODELS = ModelEngines()


@pytest.fixture(autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    with MODELS:
        yield


def classifier(folder: Path, labels: Sequence[str]) -> Path:
    """A small Llama with random weights that classifies, with the embedded model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    from thresher.inputs.models import embedded_model

    tokenizer = AutoTokenizer.from_pretrained(embedded_model().path)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id or 0, id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def expected(folder: Path, table: pa.Table) -> Any:
    """The logits (rows, labels) that transformers computes for the same turns."""
    import torch
    from transformers import AutoTokenizer, LlamaForSequenceClassification

    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForSequenceClassification.from_pretrained(folder)
    logits = []
    for row in table.to_pylist():
        turns = [*row["messages"], {"role": "assistant", "content": row["completion"]}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        with torch.no_grad():
            logits.append(model(torch.tensor([tokenizer.encode(text, add_special_tokens=False)])).logits[0].numpy())
    return np.stack(logits)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_engines")
def test_scores_are_those_of_the_model(tmp_path: Path) -> None:
    """As transformers computes them. A threshold drops samples; without one nothing is dropped."""
    folder = classifier(tmp_path / "model", ["bad", "fine", "good"])
    table = capitals().slice(0, 6)
    logits = expected(folder, table)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    engine = {name: value for name, value in SMALL.items() if name not in ("kind", "max_model_len")} | {"dtype": "float32"}
    base: dict[str, Any] = {"model": {"name": str(folder)}, "engine": engine}

    tools = Tools(models=MODELS)
    built = filters.build("reward", {**base, "label": "good"}, tools)
    rows = judge(built, table).to_pylist()
    assert built.role is Role.QUALITY
    assert [row["outcome"] for row in rows] == ["keep"] * 6
    assert [row["score"] for row in rows] == pytest.approx(shares[:, 2].tolist(), abs=1e-3)

    raw = judge(filters.build("reward", {**base, "label": 0, "activation": "none"}, tools), table).to_pylist()
    assert [row["score"] for row in raw] == pytest.approx(logits[:, 0].tolist(), abs=2e-3)

    middle = float(np.median(shares[:, 1]))
    strict = filters.build("reward", {**base, "label": "fine", "threshold": middle}, tools)
    assert strict.role is Role.VERIFIER
    assert [row["reason"] for row in judge(strict, table).to_pylist()] == [
        "" if s >= middle else "low_reward" for s in shares[:, 1]
    ]

    with pytest.raises(FilterError, match="the model's outputs are bad, fine, good"):
        judge(filters.build("reward", base, tools), table)
    long = asked_table({"prompt": "x", "completion": "word " * 800})
    [verdict] = judge(built, long).to_pylist()
    assert verdict["reason"] == "unverifiable"
    assert "do not fit the model's context of 512" in verdict["detail"]


class Scores:
    """A model with two outputs, whose scores are written by hand."""

    labels: tuple[str, ...] = ("bad", "good")

    def scorer(self, engine: VllmEngine, model: ModelSpec) -> Scorer:
        return self

    def asker(self, engine: Engine, model: ModelSpec) -> Asker:
        raise NotImplementedError

    def embedder(self, engine: VllmEngine, model: ModelSpec) -> Embedder:
        raise NotImplementedError

    def reader(self, engine: VllmEngine, model: ModelSpec) -> Reader:
        raise NotImplementedError

    def scores(self, texts: Sequence[Any], *, activation: bool | None) -> list[Any]:
        assert activation is True
        return [np.array([0.1, 0.9]), np.array([0.8, np.nan]), "too long"][: len(texts)]


def test_an_unusable_score_is_undecided() -> None:
    tools = Tools(models=Scores())
    parameters = {"model": {"name": "small"}, "label": "good", "activation": "model", "threshold": 0.5, "max_chars": 100}
    turn = [{"role": "user", "content": "x"}]
    rows = [{"completion": text, "messages": turn} for text in ("a", "x" * 101, "b", "c")]
    verdicts = judge(filters.build("reward", parameters, tools), pool_table(*rows))

    assert verdicts["reason"].to_pylist() == ["", "unverifiable", "filter_error", "unverifiable"]


@pytest.mark.parametrize("label", [None, 2, "best"])
def test_the_output_must_be_one_of_the_models(label: Any) -> None:
    tools = Tools(models=Scores())
    built = filters.build("reward", {"model": {"name": "small"}, "label": label, "activation": "model"}, tools)

    with pytest.raises(FilterError, match=r"parameters\.label: the model's outputs are bad, good; found"):
        judge(built, capitals())
