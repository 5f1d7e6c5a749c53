"""What it costs to keep the likeliest tokens: bytes per token, and time to read the engine's lists and to write the pool.

    .venv/bin/python benchmarks/kept_logprobs.py [--k 20] [--tokens 400] [--samples 512] [--rounds 7]

Completions are made up: log-probabilities that fall by random steps from a likeliest token, and token ids of Zipf's frequencies.
Each round reads the lists of vLLM's FlatLogprobs (thresher.samplers.vllm_draw), builds the rows of a shard and writes its Parquet
file, without and with the k likeliest tokens in turn. Printed are medians and their ratios; processor time, because other
programs disturb it less. The engine's own cost of listing more tokens is not in it.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.sample import PROMPTS
from schemas.sampling import Sampling
from thresher import ids
from thresher.inputs.models import Model
from thresher.pool.rows import Request, journal_rows, pool_rows, series_of
from thresher.pool.store import Store
from thresher.samplers.sampler import Completion, Drawn, EngineFacts
from thresher.samplers.vllm_draw import _completion, _listed, _with_top

VOCABULARY, PER_PROMPT = 49_152, 16
MODEL = Model("m", "m", "abc", None, "f" * 64, None)
FACTS = EngineFacts("vllm", "0.32.0", 128, "chat", "raw")


def outputs(samples: int, tokens: int, k: int) -> list[Any]:
    """What vLLM returns for completions: the drawn token first, then the k likeliest, at each position."""
    random = np.random.default_rng(1)
    made = []
    for _ in range(samples):
        logprobs = -np.cumsum(random.exponential(0.5, (tokens, max(k, 1))), axis=1)
        listed = np.exp(random.uniform(0, np.log(VOCABULARY), (tokens, max(k, 1)))).astype(np.int64)
        rank = np.minimum(random.geometric(0.5, tokens) - 1, max(k, 1) - 1)
        drawn, drawn_logprobs = listed[np.arange(tokens), rank], logprobs[np.arange(tokens), rank]
        all_ids = np.concatenate([drawn[:, None], listed[:, :k]], axis=1)
        all_logprobs = np.concatenate([drawn_logprobs[:, None], logprobs[:, :k]], axis=1)
        starts = list(range(0, tokens * (k + 1), k + 1))
        flat = SimpleNamespace(token_ids=all_ids.ravel().tolist(), logprobs=all_logprobs.ravel().tolist(), start_indices=starts)
        text = "word " * tokens
        fields = {"token_ids": drawn.tolist(), "logprobs": flat, "text": text}
        made.append(SimpleNamespace(finish_reason="stop", stop_reason=None, **fields))
    return made


def read(drawn: list[Any], k: int) -> list[Completion]:
    """Completions as the sampler makes them."""
    completions = [_completion(output, None) for output in drawn]
    return [_with_top(k, c, _listed(output, k)) for c, output in zip(completions, drawn, strict=True)] if k else completions


def write(completions: list[Completion], folder: Path) -> int:
    """Write a shard; returns the bytes of its file."""
    series, _ = series_of(Sampling(), MODEL, "")
    prompts = [f"p{number}" for number in range(len(completions) // PER_PROMPT)]
    rows = [
        {"prompt_id": name, "family": "f", "messages": [{"role": "user", "content": name}], "metadata": "{}"} for name in prompts
    ]
    indices = tuple(range(PER_PROMPT))
    answers = []
    for number, name in enumerate(prompts):
        part = tuple(completions[number * PER_PROMPT : (number + 1) * PER_PROMPT])
        request = Request(number, series, indices, tuple(ids.sample_ids(name, series.key, indices)))
        answers.append((request, Drawn(number, part, np.arange(20, dtype=np.int32), 7, "start 1")))
    journal = journal_rows(answers, prompts, model=MODEL, facts=FACTS)
    table = pool_rows(pa.Table.from_pylist(rows, PROMPTS), journal)
    return Store(folder).write_table("samples/00000", table, key="k", facts={}).bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    total = options.samples * options.tokens
    drawn = {k: outputs(options.samples, options.tokens, k) for k in (0, options.k)}
    seconds: dict[tuple[str, int], list[float]] = {}
    size: dict[int, int] = {}
    for _ in range(options.rounds):
        for k, lists in drawn.items():
            start = time.process_time()
            completions = read(lists, k)
            seconds.setdefault(("read", k), []).append(time.process_time() - start)
            completions = [replace(completion) for completion in completions]
            with tempfile.TemporaryDirectory() as folder:
                start = time.process_time()
                size[k] = write(completions, Path(folder))
                seconds.setdefault(("write", k), []).append(time.process_time() - start)
    medians = {key: statistics.median(values) / total * 1e6 for key, values in seconds.items()}
    report = {"k": options.k, "tokens": total, "bytes_per_token": {k: round(size[k] / total, 2) for k in size}}
    for step in ("read", "write"):
        report[f"{step}_us_per_token"] = {k: round(medians[step, k], 3) for k in drawn}
        report[f"{step}_ratio"] = round(medians[step, options.k] / medians[step, 0], 1)
    report["bytes_ratio"] = round(size[options.k] / size[0], 1)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
