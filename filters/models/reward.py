"""Scores samples with a reward or classification model, which vLLM runs as a pooling model.

The model reads the prompt and the completion as turns of a chat, in its own template, and returns one number per label. With a
threshold, the filter drops samples that score below it. Without one, it records the score and keeps every sample.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, FilterError, Role, Scope
from filters.models.paths import LocalModel
from filters.tools import Tools
from schemas.engines import VllmEngine
from schemas.sample import Message, Verdict

_ACTIVATION = {"auto": None, "none": False, "model": True}


class Config(BaseModel):
    """Parameters of `reward`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: LocalModel
    """A reward or sequence classification model: a folder (relative to the recipe) or a Hub id."""
    engine: VllmEngine = VllmEngine()
    """Settings of vLLM. It takes its share of the GPU in addition to the sampler's, once per filter process: set
    gpu_memory_utilization on both."""
    label: int | str | None = None
    """Which output of the model is the score: its index from 0, or its name in the model's configuration (id2label). Optional
    if there is only one output."""
    activation: Literal["auto", "none", "model"] = "auto"
    """`none`: the raw output; `model`: after the model's softmax or sigmoid; `auto`: `none` for a single output, else `model`."""
    threshold: float | None = None
    """Lowest score that is kept; null keeps all samples and records the score."""
    max_chars: int = Field(default=100_000, ge=100)
    """Longer completions are undecided as `unverifiable`."""


def build(config: Config, tools: Tools) -> Filter:
    """Drop `low_reward`; undecided with `unverifiable` (too long for the model) and `filter_error`. The score is the model's."""

    def judge(table: pa.Table) -> list[Verdict]:
        scorer = tools.opened_models().scorer(config.engine, config.model)
        output = _output(config.label, scorer.labels)
        verdicts: list[Verdict | None] = []
        texts = []
        for row in table.select(["messages", "completion"]).to_pylist():
            if len(row["completion"]) > config.max_chars:
                verdicts.append(Verdict.undecided("unverifiable", why=f"longer than {config.max_chars} characters"))
                continue
            verdicts.append(None)
            texts.append((*(Message(**message) for message in row["messages"]), Message("assistant", row["completion"])))
        scores = iter(scorer.scores(texts, activation=_ACTIVATION[config.activation]))
        return [_verdict(next(scores), output, config.threshold) if verdict is None else verdict for verdict in verdicts]

    parameters = config.model_dump(mode="json")
    # Without a threshold nothing is dropped, so it is no verifier: its keep does not mean that the answer is right.
    role = Role.QUALITY if config.threshold is None else Role.VERIFIER
    columns = ("messages", "completion")
    return Filter("reward", "1", Scope.SAMPLE, role, judge, columns, parameters, certain=False, cost_us=20_000.0)


def _verdict(scores: Any, output: int, threshold: float | None) -> Verdict:
    if isinstance(scores, str):
        return Verdict.undecided("unverifiable", why=scores)
    score = float(scores[output])
    if not np.isfinite(score):
        return Verdict.undecided("filter_error", error=f"the model's score is {score}")
    if threshold is not None and score < threshold:
        return Verdict.drop("low_reward", score)
    return Verdict.keep(score)


def _output(label: int | str | None, labels: tuple[str, ...]) -> int:
    """The index of the output that is the score."""
    if label is None and len(labels) == 1:
        return 0
    if isinstance(label, int) and 0 <= label < len(labels):
        return label
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    raise FilterError(f"reward: parameters.label: the model's outputs are {', '.join(labels)}; found {label!r}; name one")
