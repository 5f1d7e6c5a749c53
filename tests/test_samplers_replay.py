"""Completions from a table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.sample import Message
from thresher.errors import SourceError
from thresher.samplers.replay import GROUPS_PER_TAKE, ReplaySampler
from thresher.samplers.sampler import NEUTRAL, Group

ROWS: list[dict[str, Any]] = [
    {"prompt": "Capital?", "completion": "Paris"},
    {"prompt": "Capital?", "completion": "Rome is", "finish_reason": "length"},
    {"prompt": "Other?", "completion": "x"},
]


def write_jsonl(path: Path) -> Path:
    path = path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist([{"finish_reason": None, **row} for row in ROWS]), path / "answers.parquet")
    return path / "answers.parquet"


def group(prompt: str, indices: tuple[int, ...], temperature: float = 1.0, number: int = 0) -> Group:
    parameters = {**NEUTRAL, "temperature": temperature}
    return Group(number, (Message("user", prompt),), len(indices), parameters, (), indices)


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_sample_i_gets_completion_i_and_a_greedy_one_the_last(write: Callable[[Path], Path], tmp_path: Path) -> None:
    with ReplaySampler(write(tmp_path)) as sampler, sampler.stream() as stream:
        stream.submit([group("Capital?", (0, 1, 2)), group("Capital?", (0,), temperature=0.0, number=1)])
        samples, greedy = stream.take(1)

    assert [(completion.text, completion.finish_reason) for completion in samples.completions] == [
        ("Paris", "stop"),
        ("Rome is", "length"),
        ("Paris", "stop"),
    ]
    assert ([completion.text for completion in greedy.completions], greedy.number, greedy.source) == (["Rome is"], 1, "table")


def test_groups_are_returned_in_portions(tmp_path: Path) -> None:
    with ReplaySampler(write_jsonl(tmp_path)) as sampler, sampler.stream() as stream:
        stream.submit([group("Other?", (0,), number=number) for number in range(GROUPS_PER_TAKE + 1)])

        assert [len(stream.take(0)) for _ in range(3)] == [GROUPS_PER_TAKE, 1, 0]


def test_a_missing_prompt_is_named(tmp_path: Path) -> None:
    with ReplaySampler(write_jsonl(tmp_path)) as sampler, sampler.stream() as stream:
        stream.submit([group("Nothing?", (0,))])
        with pytest.raises(SourceError, match="no completion for the prompt 'Nothing\\?'; add a row for it"):
            stream.take(0)


def test_a_row_without_the_fields_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"prompt": "a", "answer": "b"}\n')
    with pytest.raises(SourceError, match=r"answers.jsonl.* wanted the texts prompt and completion, found the fields"):
        ReplaySampler(path)
