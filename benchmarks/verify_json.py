"""JSON: validations per second of one core, and wrong answers that are accepted, compared with validators behind json.loads.

python benchmarks/verifiers.py json

Records of six fields, eight samples per prompt, in batches of 4,096; all texts differ unless a row says otherwise. Times are
processor time of this process, the best of nine rounds. The peers receive the text instead of a table, and only validate.
json_shape also finds the object in the text, refuses more, compares the values with the reference, and makes columns of verdicts.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

import filters
from filters.base import Filter
from filters.judging import judge
from schemas.sample import to_json

BATCH = 4096
ROUNDS = 9
SAMPLES_PER_PROMPT = 8
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "pattern": "^[a-z.]+@[a-z.]+$"},
        "score": {"type": "number"},
        "active": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age"],
}
Way = Callable[[str], bool]

ADVERSARIAL = {
    "duplicate keys": '{"name": "Tom", "name": "Anna", "age": 31}',
    "duplicate keys, one escaped": '{"name": "Anna", "age": 31, "\\u0061ge": 31}',
    "NaN": '{"name": "Anna", "age": 31, "score": NaN}',
    "1e999": '{"name": "Anna", "age": 31, "score": 1e999}',
    "half a surrogate pair": '{"name": "\\ud800", "age": 31}',
    "a last line break before $": '{"name": "Anna", "age": 31, "email": "a@b.c\\n"}',
    "wrong value": '{"name": "Tom", "age": 31}',
    "a key too many": '{"name": "Anna", "age": 31, "city": "Rome"}',
    "two objects": '{"name": "Anna", "age": 31} {"name": "Tom", "age": 31}',
    "a list of one": '[{"name": "Anna", "age": 31}]',
    "true for an integer": '{"name": "Anna", "age": true}',
    "inner object of a broken one": '{"x": None, "y": {"name": "Anna", "age": 31}}',
}
"""Answers that must not be kept if {"name": "Anna", "age": 31} is wanted."""


def rows() -> list[dict[str, Any]]:
    """Tables: throughput by load, throughput of the peers, and the wrong answers that each accepts."""
    built = filters.build("json_shape", {"schema": SCHEMA})
    loads = _loads()
    peers = _peers()
    plain = loads["whole text"]["completion"].to_pylist()
    ways: dict[str, Callable[[], Any]] = {name: partial(_all, way, plain) for name, way in peers.items()}
    for name, table in loads.items():
        ways |= {f"judge: {name}": partial(built.judge, table), f"judging: {name}": partial(judge, built, table)}
    speeds = _speeds(ways)
    table_rows: list[dict[str, Any]] = []
    for name, table in loads.items():
        speed = speeds[f"judging: {name}"]
        table_rows.append(
            {
                "json_shape on": name,
                "kept": f"{judge(built, table)['outcome'].to_pylist().count('keep') / BATCH:.0%}",
                "judge/s/core": round(speeds[f"judge: {name}"]),
                "judging/s/core": round(speed),
                "x jsonschema-rs": speed / speeds["jsonschema-rs"],
                "x jsonschema": speed / speeds["jsonschema"],
            }
        )
    for name in peers:
        ratio = speeds[name] / speeds["jsonschema-rs"]
        speed = round(speeds[name])
        table_rows.append({"json.loads and, on whole text": name, "validations/s/core": speed, "x jsonschema-rs": ratio})
    return table_rows + _accepted(built, peers)


def _accepted(built: Filter, peers: dict[str, Way]) -> list[dict[str, Any]]:
    wanted = to_json({"name": "Anna", "age": 31})
    columns = {"completion": list(ADVERSARIAL.values()), "reference": [wanted] * len(ADVERSARIAL)}
    verdicts = judge(built, pa.table(columns)).to_pylist()
    return [
        {
            "wrong answer": name,
            "json_shape": verdict["reason"] or "ACCEPTED",
            **{peer: "ACCEPTED" if _accepts(way, text) else "-" for peer, way in peers.items()},
        }
        for (name, text), verdict in zip(ADVERSARIAL.items(), verdicts, strict=True)
    ]


def _accepts(way: Way, text: str) -> bool:
    try:
        return way(text)
    except Exception:  # noqa: BLE001 - a peer that raises does not accept
        return False


def _peers() -> dict[str, Way]:
    """Validators of parsed values, each behind json.loads; fastjsonschema uses draft 7, in which the schema means the same."""
    import jsonschema
    import jsonschema_rs

    slow, rust = jsonschema.Draft202012Validator(SCHEMA), jsonschema_rs.Draft202012Validator(SCHEMA)
    ways: dict[str, Way] = {
        "jsonschema": lambda text: bool(slow.is_valid(json.loads(text))),
        "jsonschema-rs": lambda text: rust.is_valid(json.loads(text)),
    }
    try:
        import fastjsonschema
    except ImportError:
        return ways
    compiled = fastjsonschema.compile(SCHEMA)

    def fast(text: str) -> bool:
        try:
            compiled(json.loads(text))
        except fastjsonschema.JsonSchemaValueException:
            return False
        return True

    return {**ways, "fastjsonschema": fast}


def _all(way: Way, texts: list[str]) -> None:
    for text in texts:
        way(text)


def _speeds(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Rows per second of each contender's best round; they take turns, so that a slow minute of the machine affects all."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.process_time()
            way()
            best[name] = min(best[name], time.process_time() - start)
    return {name: BATCH / seconds for name, seconds in best.items()}


def _loads() -> dict[str, pa.Table]:
    draw = random.Random(0)
    records = [
        {
            "name": draw.choice(("Anna", "Tom", "Eve")) + str(draw.randint(0, 9999)),
            "age": draw.randint(2, 99),
            "email": "anna.b@example.org",
            "score": round(draw.random() * 100, 2),
            "active": draw.random() < 0.5,
            "tags": draw.sample(["red", "green", "blue"], 2),
        }
        for _ in range(BATCH)
    ]
    shared = [records[row // SAMPLES_PER_PROMPT] for row in range(BATCH)]
    # Eight layouts of the same object, so that no text repeats.
    spaced = [(("," + " " * (row % 4)), (":" + " " * (row % SAMPLES_PER_PROMPT // 4))) for row in range(BATCH)]
    texts = [json.dumps(record, separators=gaps) for record, gaps in zip(shared, spaced, strict=True)]
    wrong = [
        json.dumps({**record, "age": row}) if row % 2 else text
        for row, (record, text) in enumerate(zip(shared, texts, strict=True))
    ]
    return {
        "whole text": _table(texts, shared),
        "fenced": _table([f"```json\n{text}\n```" for text in texts], shared),
        "in prose": _table([f"Here it is: {text} Done." for text in texts], shared),
        "whole text, half wrong": _table(wrong, shared),
        "whole text, one sample per prompt": _table([json.dumps(record) for record in records], records),
        "whole text, answers repeat": _table([json.dumps(record) for record in shared], shared),
        "no JSON": _table([f"I do not know who number {row} is." for row in range(BATCH)], shared),
    }


def _table(completions: list[str], references: list[dict[str, Any]]) -> pa.Table:
    return pa.table({"completion": completions, "reference": [to_json(reference) for reference in references]})
