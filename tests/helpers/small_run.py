"""A finished run, written by hand as the steps would write it: prompts, samples, verdicts.

A plan is a list of (family, the fate of each sample, the fate of the anchor or None). Fates:
right and good are hits, again repeats a hit, wrong is wrong, cut is truncated, open cannot be judged, near repeats a hit of
another prompt (for the filter over the corpus), torn could not be read.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.manifest import RunManifest
from schemas.recipe import Recipe
from schemas.sample import PROMPTS, SAMPLES, VERDICTS, to_json
from thresher import ids
from thresher.pool import judged
from thresher.pool.run import Run, open_run
from thresher.pool.store import Store, shard_name

Planned = tuple[str, Sequence[str], str | None]
Plan = Sequence[Planned]
Filters = Sequence[dict[str, Any]]

PLAN: list[Planned] = [
    ("sums", ["right", "again", "wrong", "cut"], "right"),
    ("sums", ["wrong", "wrong", "wrong", "wrong"], "wrong"),
    ("sums", ["right", "good", "near", "open"], "wrong"),
    ("words", ["wrong", "open", "right", "cut"], "open"),
    ("words", ["open", "open", "open", "open"], "cut"),
]
SIX_DRAWS: list[Planned] = [
    (family, [*["right"] * right, *["wrong"] * (6 - right - cut - undecided), *["cut"] * cut, *["open"] * undecided], anchor)
    for family, right, cut, undecided, anchor in [
        ("sums", 6, 0, 0, "right"),
        ("sums", 2, 1, 0, "wrong"),
        ("sums", 0, 0, 2, "right"),
        ("words", 1, 2, 1, "right"),
        ("words", 0, 6, 0, "wrong"),
    ]
]
"""Six samples of each prompt, of known numbers of fates."""
GOOD: list[Planned] = [("sums", ["right", "right", "wrong", "cut"], None)] * 12
"""Half of what is decided passes."""
BAD: list[Planned] = [("sums", ["wrong", "wrong", "wrong", "right" if number % 2 else "wrong"], None) for number in range(12)]
"""An eighth passes: the pass rate has drifted."""
METADATA: dict[str, Any] = {"a": "123", "b": None, "c": [1, {"d": "x"}], "e": "null", "f": 0.1, "g": '{"h": 1}', "ü": "é\n"}

FILTERS: Filters = [
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
    root: Path | str,
    plan: Plan = PLAN,
    *,
    origin: str = "sampled",
    prompt_format: str = "chat",
    filters: Filters = FILTERS,
    corpus: bool = False,
    shard_prompts: int = 2,
    dataset: dict[str, Any] | None = None,
    metadata: dict[str, Any] = METADATA,
    sampling: dict[str, Any] | None = None,
    stop_after: int | None = None,
    first: int = 0,
) -> Run:
    """Write the run and return it, opened; `stop_after` leaves it unfinished after so many shards. Questions are numbered from
    `first`."""
    store = Store(root)
    if origin == "brought":
        filters = [READABLE, *filters]
    each = max(len(fates) for _, fates, _ in plan)
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
        recipe=recipe,
        model={**(model if origin == "sampled" else {"samples": "mine.jsonl"}), "prompt_format": prompt_format},
        thresher_version="0",
    )
    store.write_model("run.json", manifest)
    groups = [
        _shard(list(enumerate(plan, first))[row : row + shard_prompts], origin, metadata, recipe)
        for row in range(0, len(plan), shard_prompts)
    ]
    families = {family: sum(name == family for name, _, _ in plan) for family, _, _ in plan}
    facts = {"shards": len(groups), "prompts": len(plan), "families": families}
    store.write_groups("prompts", PROMPTS, [prompts for prompts, _, _ in groups], key="key", facts=facts)
    for shard, (_, samples, fates) in enumerate(groups[:stop_after]):
        write_shard(store, shard, samples, fates=fates, filters=filters, corpus=corpus)
    return open_run(store)


def write_shard(
    store: Store, shard: int, samples: pa.Table, *, fates: list[str], filters: Filters = FILTERS, corpus: bool = False
) -> None:
    anchors = sum(samples["anchor"].to_pylist())
    facts = {"samples": len(fates) - anchors, "anchors": anchors, "prompt_tokens": 10, "completion_tokens": 30}
    name = f"samples/{shard_name(shard)}"
    store.write_table(name, samples, key="key", facts=facts | {"seconds": 1.5, "engine_seed": 7})
    alive = np.ones(len(fates), bool)
    tables = [VERDICTS.empty_table(), *(verdicts(samples, fates, alive, rule) for rule in filters)]
    store.write_table(
        f"verdicts/{shard_name(shard)}",
        pa.concat_tables(tables),
        key=f"v{shard}",
        facts={"filters": [*map(filter_facts, filters)]},
    )
    if corpus:
        table = verdicts(samples, fates, alive, CORPUS)
        store.write_table(f"corpus/00-{shard_name(shard)}", table, key="c", facts={"filters": [filter_facts(CORPUS)]})


def filter_facts(rule: dict[str, Any]) -> dict[str, Any]:
    named = {name: rule.get(name) for name in ("label", "role", "scope", "families")}
    return {**named, "name": rule["label"], "version": "1", "key": "k", "parameters": {}, "seconds": 0.25}


def verdicts(samples: pa.Table, fates: list[str], alive: NDArray[np.bool_], rule: dict[str, Any]) -> pa.Table:
    """The rows of one filter; `alive` is updated."""
    rows = []
    for row, (fate, sample) in enumerate(zip(fates, samples.select(["sample_id", "family", "anchor"]).to_pylist(), strict=True)):
        applies = rule.get("families") is None or sample["family"] in rule["families"]
        if not alive[row] or not applies or (sample["anchor"] and rule["scope"] != "sample"):
            continue
        outcome, reason = rule["says"].get(fate, ("keep", ""))
        alive[row] = outcome == "keep"
        rows.append(
            {
                "row": row,
                "sample_id": sample["sample_id"],
                "filter": rule["label"],
                "filter_key": "k",
                "outcome": outcome,
                "reason": reason,
                "score": 0.5 if outcome == "keep" else None,
                "detail": to_json({"found": fate}) if outcome != "keep" else None,
            }
        )
    return pa.Table.from_pylist(rows, VERDICTS)


def _shard(
    planned: list[tuple[int, tuple[str, Sequence[str], str | None]]], origin: str, metadata: dict[str, Any], recipe: Recipe
) -> tuple[pa.Table, pa.Table, list[str]]:
    prompts: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    fates: list[str] = []
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
        for index, fate in ([] if anchor is None else [(-1, anchor)]) + list(enumerate(drawn)):
            fates.append(fate)
            sample = _sample(number, index, fate, origin, recipe)
            samples.append(prompt | {"answer": sample["completion"]} | sample)
    return (
        pa.Table.from_pylist(prompts, PROMPTS),
        pa.Table.from_pylist([{name: sample.get(name) for name in SAMPLES.names} for sample in samples], SAMPLES),
        fates,
    )


def _sample(number: int, index: int, fate: str, origin: str, recipe: Recipe) -> dict[str, Any]:
    sample: dict[str, Any] = {
        "sample_id": ids.digest("s", number, index),
        "index": index,
        "anchor": index == -1,
        "completion": f"{fate} answer {index} to {number}",
        "finish_reason": "length" if fate == "cut" else "stop",
    }
    if origin == "brought":
        return sample | {"source_row": 100 * number + index, "unreadable": "no completion" if fate == "torn" else None}
    tokens, kept = 3 + index, recipe.sampling.keep_top_logprobs
    if kept:
        sample |= {"top_ids": list(range(kept)) * tokens, "top_logprobs": [-0.5 - rank for rank in range(kept)] * tokens}
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


def judged_rows(run: Run) -> list[dict[str, Any]]:
    """Every sample as the pool judges it, with its shard, in the order of shards."""
    tables = [
        table.append_column("shard", pa.array([shard] * table.num_rows))
        for shard, table in enumerate(judged.each_judged(run.store))
    ]
    return pa.concat_tables(tables).to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types
