"""Completions become rows of the journal, and those rows of the pool."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from schemas.sample import JOURNAL, PROMPTS, SAMPLES
from schemas.sampling import Sampling
from thresher import ids
from thresher.estimators.calibration import empty_sums
from thresher.inputs.models import Model
from thresher.pool.rows import Request, Series, declared, journal_rows, pool_rows, series_of
from thresher.samplers.sampler import NEUTRAL, Completion, Drawn, EngineFacts

MODEL = Model(name="m", path="m", revision="abc", licence=None, chat_template_sha256="f" * 64, context_tokens=None)
FACTS = EngineFacts(engine="replay", version="1", sequences=1, prompt_format="chat", logprobs_kind="raw")
PROMPT_ROWS = pa.Table.from_pylist(
    [
        {"prompt_id": name, "family": "a", "messages": [{"role": "user", "content": name}], "reference": None, "metadata": "{}"}
        for name in ("p0", "p1")
    ],
    PROMPTS,
)


def asked(row: int, series: Series, *indices: int) -> Request:
    return Request(row, series, indices, tuple(ids.sample_ids(f"p{row}", series.key, indices)))


def completion(text: str, *tokens: int) -> Completion:
    return Completion(
        text,
        "stop",
        token_ids=np.array(tokens, np.int32),
        logprobs=np.full(len(tokens), -0.5, np.float32),
        cumulative_logprob=-1.0,
    )


def test_a_run_has_a_series_for_each_temperature_and_one_of_anchors() -> None:
    series = series_of(Sampling.model_validate({"temperature": [0.5, 1.0]}), MODEL, "")

    assert [(part.anchor, part.parameters["temperature"]) for part in series] == [(False, 0.5), (False, 1.0), (True, 0.0)]
    assert len({part.key for part in series}) == 3
    assert series_of(Sampling(anchor=False), MODEL, "")[0].key != series_of(Sampling(anchor=False), MODEL, "night")[0].key


@pytest.mark.parametrize(
    ("changes", "expected"), [({}, ""), ({"temperature": 0.5, "top_k": 20}, "temperature 0.5, top_k 20"), ({"top_p": 1.0}, "")]
)
def test_only_parameters_that_are_not_neutral_are_declared(changes: dict[str, float], expected: str) -> None:
    assert declared({**NEUTRAL, **changes}) == expected


def test_the_likeliest_tokens_are_flat_and_null_where_there_are_none() -> None:
    """Two positions with three tokens each."""
    drawn, _ = series_of(Sampling(), MODEL, "")
    top_ids, top_logprobs = np.arange(6, dtype=np.int32).reshape(2, 3), -np.arange(6, dtype=np.float32).reshape(2, 3)
    kept = replace(completion("a", 4, 5), top_ids=top_ids, top_logprobs=top_logprobs)
    rows = journal_rows([(asked(0, drawn, 0, 1), Drawn(0, (kept, completion("b"))))], ["p0"], model=MODEL, facts=FACTS)

    assert rows["top_ids"].to_pylist() == [[0, 1, 2, 3, 4, 5], None]
    assert rows["top_logprobs"].to_pylist() == [[0, -1, -2, -3, -4, -5], None]


def test_the_kind_of_log_probabilities_and_masked_tokens_are_those_of_the_draw() -> None:
    structured = Sampling.model_validate({"structured": {"choice": ["a"]}})
    drawn, _ = series_of(structured, MODEL, "")
    group = Drawn(0, (completion("a", 1, 2), completion("b", 3)), calibration=empty_sums(), masked=3)
    rows = journal_rows([(asked(0, drawn, 0, 1), group)], ["p0"], model=MODEL, facts=FACTS)

    assert rows["logprobs_kind"].to_pylist() == ["structured"] * 2
    assert (rows["calibrated_tokens"].to_pylist(), rows["masked_tokens"].to_pylist()) == ([0, None], [3, None])
    assert declared(drawn.parameters) == "structured output (choice)"
    assert drawn.key != series_of(Sampling(), MODEL, "")[0].key


def test_pool_rows_are_in_the_order_of_prompts_and_indices_each_sample_once() -> None:
    drawn, anchors = series_of(Sampling(), MODEL, "")
    first = [
        (asked(1, drawn, 1, 0), Drawn(0, (completion("b", 1, 2), completion("a")))),
        (asked(1, anchors, -1), Drawn(1, (completion("greedy", 3),))),
    ]
    second = [
        (asked(1, drawn, 1), Drawn(2, (completion("again", 4),))),
        (asked(0, drawn, 0), Drawn(3, (), error="it died")),
    ]
    journal = pa.concat_tables([journal_rows(part, ["p0", "p1"], model=MODEL, facts=FACTS) for part in (first, second)])

    rows = pool_rows(PROMPT_ROWS, journal)

    assert journal.schema.equals(JOURNAL)
    assert rows.schema.equals(SAMPLES)
    assert [(row["prompt_id"], row["index"], row["completion"], row["error"]) for row in rows.to_pylist()] == [
        ("p0", 0, "", "it died"),
        ("p1", -1, "greedy", None),
        ("p1", 0, "a", None),
        ("p1", 1, "b", None),
    ]
    assert rows["completion_ids"].to_pylist() == [None, [3], [], [1, 2]]
    assert json.loads(rows["sampling"][1].as_py())["temperature"] == 0.0
    assert set(rows["model_revision"].to_pylist()) == {"abc"}
