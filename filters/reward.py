"""The score of a reward or classification model, which vLLM runs as a pooling model.

The model reads the prompt and the completion as turns of a chat, by its own template, and puts out one number per label. With a
threshold the filter drops what is below; without, it only records the score, and keeps everything.
"""

from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from filters.asking import openers, placed
from filters.base import Filter, FilterError, Role, Scope
from schemas.recipe import ModelSpec, VllmEngine
from schemas.sample import Message, Verdict

_ACTIVATION = {"auto": None, "none": False, "model": True}


class Config(BaseModel):
    """Parameters of `reward`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: Annotated[ModelSpec, AfterValidator(placed)]
    """A reward or sequence classification model: a directory (relative to the recipe), or a Hub id."""
    engine: VllmEngine = VllmEngine()
    """vLLM's settings. It takes its share of the GPU beside the sampler's, once per filter process: set gpu_memory_utilization
    on both."""
    label: int | str | None = None
    """Which of the model's outputs is the score: its number from 0, or its name in the model's configuration (id2label). May be
    left out where there is one only."""
    activation: Literal["auto", "none", "model"] = "auto"
    """`none`: the number as it is; `model`: through the model's softmax or sigmoid; `auto`: `none` where there is one output."""
    threshold: float | None = None
    """Score from which a sample is kept; null keeps all and records the score."""
    max_chars: int = Field(default=100_000, ge=100)
    """Longer completions are undecided as `unverifiable`."""


def build(config: Config) -> Filter:
    """Drop `low_reward`; undecided with `unverifiable` (too long for the model), and `filter_error`. The score is the model's."""

    def judge(table: pa.Table) -> list[Verdict]:
        scorer = openers().scorer(config.engine, config.model)
        at = _place(config.label, scorer.labels)
        verdicts: list[Verdict | None] = []
        texts = []
        for row in table.select(["messages", "completion"]).to_pylist():
            if len(row["completion"]) > config.max_chars:
                verdicts.append(Verdict.undecided("unverifiable", why=f"longer than {config.max_chars} characters"))
                continue
            verdicts.append(None)
            texts.append((*(Message(**one) for one in row["messages"]), Message("assistant", row["completion"])))
        given = iter(scorer.scores(texts, activation=_ACTIVATION[config.activation]))
        return [_verdict(next(given), at, config.threshold) if one is None else one for one in verdicts]

    parameters = config.model_dump(mode="json")
    # Without a threshold nothing is dropped, so it is no verifier: its keep must not pass for a proof.
    role = Role.QUALITY if config.threshold is None else Role.VERIFIER
    columns = ("messages", "completion")
    return Filter("reward", "1", Scope.SAMPLE, role, judge, columns, parameters, certain=False, cost_us=20_000.0)


def _verdict(scores: Any, at: int, threshold: float | None) -> Verdict:
    if isinstance(scores, str):
        return Verdict.undecided("unverifiable", why=scores)
    score = float(scores[at])
    if not np.isfinite(score):
        return Verdict.undecided("filter_error", error=f"the model's score is {score}")
    if threshold is not None and score < threshold:
        return Verdict.drop("low_reward", score)
    return Verdict.keep(score)


def _place(label: int | str | None, labels: tuple[str, ...]) -> int:
    """The number of the output that is the score."""
    if label is None and len(labels) == 1:
        return 0
    if isinstance(label, int) and 0 <= label < len(labels):
        return label
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    raise FilterError(f"reward: parameters.label: the model's outputs are {', '.join(labels)}; found {label!r}; name one")
