"""Writes a finished run by hand, as the steps would: prompts, samples, verdicts.

A plan is a list of (family, what each sample is, what the anchor is or None). What a sample is decides its fate:
right and good are hits, again repeats a hit, wrong is wrong, cut is truncated, open cannot be judged, near repeats a hit of
another prompt (for the filter over the corpus), torn could not be read.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.manifest import RunManifest
from schemas.recipe import Recipe
from schemas.sample import PROMPTS, SAMPLES, VERDICTS, to_json
from thresher import ids
from thresher.pool.store import Store, shard_name

PLAN = [
    ("sums", ["right", "again", "wrong", "cut"], "right"),
    ("sums", ["wrong", "wrong", "wrong", "wrong"], "wrong"),
    ("sums", ["right", "good", "near", "open"], "wrong"),
    ("words", ["wrong", "open", "right", "cut"], "open"),
    ("words", ["open", "open", "open", "open"], "cut"),
]
METADATA = {"a": "123", "b": None, "c": [1, {"d": "x"}], "e": "null", "f": 0.1, "g": '{"h": 1}', "ü": "é\n"}

FILTERS = [
    {"label": "finished", "role": "quality", "scope": "sample", "says": {"cut": ("drop", "truncated")}},
    {
        "label": "answer",
        "role": "verifier",
        "scope": "sample",
        "says": {"wrong": ("drop", "wrong_answer"), "open": ("undecided", "no_reference")},
    },
    {"label": "exact_duplicate", "role": "duplicate", "scope": "prompt", "says": {"again": ("drop", "duplicate")}},
]
CORPUS = {"label": "near", "role": "duplicate", "scope": "corpus", "says": {"near": ("drop", "near_duplicate")}}
READABLE = {
    "label": "readable",
    "role": "quality",
    "scope": "sample",
    "says": {"torn": ("undecided", "unreadable_row")},
}


def small_run(
    root: Path,
    plan: Any = PLAN,
    *,
    origin: str = "sampled",
    prompt_format: str = "chat",
    filters: Any = FILTERS,
    corpus: bool = False,
    shard_prompts: int = 2,
    dataset: Any = None,
    metadata: Any = METADATA,
    sampling: Any = None,
    stop_after: Any = None,
    first: int = 0,
) -> Any:
    """Write the run and return its store; `stop_after` leaves it unfinished after so many shards. Questions are numbered from
    `first`."""
    store = Store(root)
    if origin == "brought":
        filters = [READABLE, *filters]
    each = max(len(whats) for _, whats, _ in plan)
    recipe = Recipe(
        name="small",
        prompts=[
            {"family": family, "source": {"kind": "jsonl", "path": "x.jsonl"}}
            for family in dict.fromkeys(family for family, _, _ in plan)
        ],
        sampling={"samples_per_prompt": each, "anchor": any(a for *_, a in plan), **(sampling or {})},
        filters=[{"name": f["label"], "families": f.get("families")} for f in filters if f is not READABLE]
        + ([{"name": "near"}] if corpus else []),
        dedupe=None,
        near_miss=None,
        dataset=dataset or {"license": "cc-by-4.0"},
    )
    model = {"name": "m", "revision": "abc", "licence": "apache-2.0", "chat_template_sha256": "f" * 64}
    manifest = RunManifest(
        name="small",
        origin=origin,
        sampling_key="key",
        recipe=recipe.model_dump(mode="json"),
        model={**(model if origin == "sampled" else {"samples": "mine.jsonl"}), "prompt_format": prompt_format},
        thresher_version="0",
    )
    store.write_model("run.json", manifest)
    groups = [
        _shard(list(enumerate(plan, first))[at : at + shard_prompts], origin, metadata, recipe)
        for at in range(0, len(plan), shard_prompts)
    ]
    families = {family: sum(one == family for one, _, _ in plan) for family, _, _ in plan}
    facts = {"shards": len(groups), "prompts": len(plan), "families": families}
    store.write_groups("prompts", PROMPTS, [prompts for prompts, _, _ in groups], key="key", facts=facts)
    for shard, (_, samples, whats) in enumerate(groups[:stop_after]):
        write_shard(store, shard, samples, whats=whats, filters=filters, corpus=corpus)
    return store


def write_shard(store: Store, shard: Any, samples: Any, *, whats: Any, filters: Any = FILTERS, corpus: bool = False) -> None:
    anchors = sum(samples["anchor"].to_pylist())
    facts = {"samples": len(whats) - anchors, "anchors": anchors, "prompt_tokens": 10, "completion_tokens": 30}
    name = f"samples/{shard_name(shard)}"
    store.write_table(name, samples, key="key", facts=facts | {"seconds": 1.5, "engine_seed": 7})
    alive = np.ones(len(whats), bool)
    tables, made = [VERDICTS.empty_table()], []
    for one in filters:
        tables.append(verdicts(samples, whats, alive, one))
        made.append(filter_facts(one))
    store.write_table(f"verdicts/{shard_name(shard)}", pa.concat_tables(tables), key=f"v{shard}", facts={"filters": made})
    if corpus:
        table = verdicts(samples, whats, alive, CORPUS)
        store.write_table(f"corpus/00-{shard_name(shard)}", table, key="c", facts={"filters": [filter_facts(CORPUS)]})


def filter_facts(one: Any) -> Any:
    named = {name: one.get(name) for name in ("label", "role", "scope", "families")}
    return {**named, "name": one["label"], "version": "1", "key": "k", "parameters": {}, "seconds": 0.25}


def verdicts(samples: Any, whats: Any, alive: Any, one: Any) -> Any:
    """The rows of one filter; `alive` is updated."""
    rows = []
    for row, (what, sample) in enumerate(zip(whats, samples.select(["sample_id", "family", "anchor"]).to_pylist(), strict=True)):
        there = one.get("families") is None or sample["family"] in one["families"]
        if not alive[row] or not there or (sample["anchor"] and one["scope"] != "sample"):
            continue
        outcome, reason = one["says"].get(what, ("keep", ""))
        alive[row] = outcome == "keep"
        rows.append(
            {
                "row": row,
                "sample_id": sample["sample_id"],
                "filter": one["label"],
                "filter_key": "k",
                "outcome": outcome,
                "reason": reason,
                "score": 0.5 if outcome == "keep" else None,
                "detail": to_json({"found": what}) if outcome != "keep" else None,
            }
        )
    return pa.Table.from_pylist(rows, VERDICTS)


def _shard(planned: Any, origin: Any, metadata: Any, recipe: Callable[..., Path]) -> Any:
    prompts, samples, whats = [], [], []
    for number, (family, drawn, anchor) in planned:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Question {number}?"}]
        reference = to_json([str(number), {"n": number}, None, "null", 1.5][number % 5])
        prompt = {
            "prompt_id": ids.digest("p", number),
            "family": family,
            "messages": messages,
            "reference": None if reference == "null" else reference,
            "metadata": json.dumps(metadata),
        }
        prompts.append(prompt)
        for index, what in ([] if anchor is None else [(-1, anchor)]) + list(enumerate(drawn)):
            whats.append(what)
            samples.append(prompt | _sample(number, index, what, origin, recipe))
    return (
        pa.Table.from_pylist(prompts, PROMPTS),
        pa.Table.from_pylist([{name: one.get(name) for name in SAMPLES.names} for one in samples], SAMPLES),
        whats,
    )


def _sample(number: Any, index: Any, what: Any, origin: Any, recipe: Callable[..., Path]) -> Any:
    sample = {
        "sample_id": ids.digest("s", number, index),
        "index": index,
        "anchor": index == -1,
        "completion": f"{what} answer {index} to {number}",
        "finish_reason": "length" if what == "cut" else "stop",
    }
    if origin == "brought":
        return sample | {"source_row": 100 * number + index, "unreadable": "no completion" if what == "torn" else None}
    tokens = 3 + index
    return sample | {
        "prompt_ids": [1, 2],
        "completion_ids": list(range(tokens)),
        "logprobs": [-0.5] * tokens,
        "cumulative_logprob": -0.5 * tokens,
        "logprobs_kind": "raw",
        "sampling": to_json({"temperature": recipe.sampling.temperature, "stop": []}),
        "engine": "replay",
        "engine_version": "1",
        "engine_seed": 7,
        "model": "m",
        "model_revision": "abc",
        "chat_template_sha256": "f" * 64,
    }
