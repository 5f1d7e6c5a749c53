"""Makes a finished run of any size without an engine, from random words."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Role, Scope
from schemas.manifest import RunManifest
from schemas.recipe import Recipe
from schemas.sample import PROMPTS, SAMPLES, VERDICTS, to_json
from thresher.pool.store import Store, shard_name

PROMPTS_OF, DRAWS, TOKENS = 128, 16, 119
WORDS = np.array([hashlib.sha256(b"%d" % number).hexdigest()[: 2 + number % 9] for number in range(30_000)])


def made_run(root: Path, rows: int, *, first: int = 0, views: tuple[str, ...] = ("sft", "rollouts"), salt: str = "") -> Store:
    """Write a run of `rows` samples (a multiple of 2,048), 16 per prompt, half of them hits, with 119 tokens each and their
    log-probabilities. Prompts are numbered from shard `first` on."""
    store, shards = Store(root), rows // (PROMPTS_OF * DRAWS)
    recipe = Recipe.model_validate(
        {
            "name": "made",
            "prompts": [{"family": "made", "source": {"kind": "jsonl", "path": "x.jsonl"}}],
            "sampling": {"samples_per_prompt": DRAWS, "anchor": False},
            "filters": [{"name": "exact_answer"}],
            "dedupe": None,
            "near_miss": None,
            "dataset": {"views": list(views), "license": "mit"},
            "run": {"shard_samples": PROMPTS_OF * DRAWS},
        }
    )
    model = {"name": "m", "revision": "abc", "licence": "mit", "chat_template_sha256": "f" * 64, "prompt_format": "chat"}
    key = hashlib.sha256(f"{first}{salt}{rows}".encode()).hexdigest()[:32]
    store.write_model(
        "run.json",
        RunManifest(
            name="made",
            origin="sampled",
            sampling_key=key,
            recipe=recipe.model_dump(mode="json"),
            model=model,
            thresher_version="0",
        ),
    )
    groups = []
    for shard in range(shards):
        prompts, samples, verdicts = _shard(first + shard, salt)
        groups.append(prompts)
        name = shard_name(shard)
        count, tokens = samples.num_rows, samples.num_rows * TOKENS
        facts: dict[str, Any] = {"samples": count, "anchors": 0, "prompt_tokens": 10 * PROMPTS_OF, "seconds": 1.0}
        facts["completion_tokens"] = tokens
        store.write_table(f"samples/{name}", samples, key=key, facts=facts)
        filter_facts: dict[str, Any] = {
            "label": "exact_answer",
            "name": "exact_answer",
            "version": "1",
            "key": "k",
            "parameters": {},
        }
        filter_facts |= {"families": None, "scope": Scope.SAMPLE.value, "role": Role.VERIFIER.value, "seconds": 0.1}
        store.write_table(f"verdicts/{name}", verdicts, key=f"v{shard}", facts={"filters": [filter_facts]})
    facts = {"shards": shards, "prompts": shards * PROMPTS_OF, "families": {"made": shards * PROMPTS_OF}}
    store.write_groups("prompts", PROMPTS, groups, key=key, facts=facts)
    return store


def _names(kind: str, shard: int, count: int) -> pa.Array:
    raw = np.frombuffer(hashlib.shake_256(f"{kind}{shard}".encode()).digest(16 * count), np.uint8).reshape(count, 16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.stack([digits[raw >> 4], digits[raw & 15]], axis=2).reshape(count, 32)
    return pa.array(np.ascontiguousarray(text).view("S32").ravel().astype(str))


def _shard(shard: int, salt: str) -> tuple[pa.Table, pa.Table, pa.Table]:
    draw = np.random.default_rng([shard, len(salt)])
    rows = PROMPTS_OF * DRAWS
    prompt_ids = _names(f"p{salt}", shard, PROMPTS_OF)
    prompt_of_row = np.repeat(np.arange(PROMPTS_OF), DRAWS)
    questions = [f"Question {shard}-{number}: {' '.join(draw.choice(WORDS, 40))}?" for number in range(PROMPTS_OF)]
    prompts = pa.Table.from_pylist(
        [
            {
                "prompt_id": name,
                "family": "made",
                "messages": [{"role": "user", "content": text}],
                "reference": to_json("42"),
                "metadata": to_json({"level": number % 5}),
            }
            for number, (name, text) in enumerate(zip(prompt_ids.to_pylist(), questions, strict=True))
        ],
        PROMPTS,
    )
    ids = draw.integers(0, 49_000, (rows, TOKENS), dtype=np.int32)
    logprobs = -draw.exponential(0.7, (rows, TOKENS)).astype(np.float32)
    offsets = pa.array(np.arange(0, rows * TOKENS + 1, TOKENS, dtype=np.int32))
    texts = WORDS[ids[:, :90] % len(WORDS)]
    prompt_offsets = pa.array(np.arange(0, rows * 10 + 1, 10, dtype=np.int32))
    columns: dict[str, Any] = {
        **{
            name: prompts[name].take(pa.array(prompt_of_row))
            for name in ("prompt_id", "family", "messages", "reference", "metadata")
        },
        "sample_id": _names(f"s{salt}", shard, rows),
        "index": pa.array(np.tile(np.arange(DRAWS, dtype=np.int32), PROMPTS_OF)),
        "anchor": pa.array(np.zeros(rows, bool)),
        "completion": pa.array([" ".join(row) for row in texts.tolist()]),
        "prompt_ids": pa.ListArray.from_arrays(prompt_offsets, pa.array(ids[:, :10].ravel())),
        "completion_ids": pa.ListArray.from_arrays(offsets, pa.array(ids.ravel())),
        "logprobs": pa.ListArray.from_arrays(offsets, pa.array(logprobs.ravel())),
        "cumulative_logprob": pa.array(logprobs.sum(1, dtype=np.float64)),
        "engine_seed": pa.array(np.full(rows, 7, np.int64)),
    }
    for name, value in {
        "finish_reason": "stop",
        "logprobs_kind": "raw",
        "sampling": to_json({"temperature": 1.0, "stop": []}),
        "engine": "vllm",
        "engine_version": "0.32.0",
        "model": "m",
        "model_revision": "abc",
        "chat_template_sha256": "f" * 64,
    }.items():
        columns[name] = pa.repeat(value, rows)
    arrays = [columns[field.name] if field.name in columns else pa.nulls(rows, field.type) for field in SAMPLES]
    samples = pa.table(arrays, SAMPLES.names).cast(SAMPLES)
    kept = pa.array(draw.random(rows) < 0.5)
    values: dict[str, Any] = {
        "row": pa.array(np.arange(rows)),
        "sample_id": columns["sample_id"],
        "filter": pa.repeat("exact_answer", rows),
        "filter_key": pa.repeat("k", rows),
        "outcome": pc.if_else(kept, "keep", "drop"),
        "reason": pc.if_else(kept, "", "wrong_answer"),
        "score": pc.if_else(kept, 1.0, 0.0),
        "detail": pc.if_else(kept, pa.scalar(None, pa.string()), to_json({"found": "41"})),
    }
    verdicts = pa.table([values[field.name] for field in VERDICTS], VERDICTS.names).cast(VERDICTS)
    return prompts, samples, verdicts
