"""What a token costs in completions of 300, 3,000 and 30,000 tokens that think: journal and pool, split, judge, views.

python benchmarks/long.py [--tokens 6000000]

Each length has the same number of tokens in all. Of a completion nine tenths are reasoning. Processor seconds of this process,
the best of three rounds; the last column is the cost of a token at 30,000 tokens as a ratio to that at 300, in the same run.
`split` is `filters.reasoning.take_apart` alone, also in MB/s, once by the marks of one model and once by all usual marks.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

import filters
from filters.judging import judge
from filters.reasoning import USUAL, Marking, take_apart
from schemas.sample import PROMPTS
from schemas.sampling import Sampling
from thresher.dataset.rollouts import rollouts
from thresher.dataset.views import lean, sft
from thresher.inputs.models import Model
from thresher.pool import rows as shards
from thresher.pool.judged import filters_in, judged
from thresher.pool.store import Store
from thresher.samplers.sampler import Completion, Drawn, EngineFacts

LENGTHS = (300, 3_000, 30_000)
ROUNDS = 3
WORD = 4
"""Bytes of a token's text."""
THINK = Marking((("<think>", "</think>"),), channels=False)
MODEL = Model("model", "", "1", None, None, None)
FACTS = EngineFacts("vllm", "0.32.0", 256, "chat", "raw")


def main() -> None:
    """Measure every step at every length and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--tokens", type=int, default=6_000_000, help="tokens of each length, in all")
    total = parser.parse_args().tokens
    costs = {length: measure(length, total) for length in LENGTHS}
    print(f"{'nanoseconds of a core per token':34}" + "".join(f"{length:>10,}" for length in LENGTHS) + f"{'ratio':>8}")
    for step in costs[LENGTHS[0]]:
        each = [costs[length][step] for length in LENGTHS]
        if step.startswith("MB/s"):
            print(f"{step:34}" + "".join(f"{value:>10,.0f}" for value in each))
        else:
            print(f"{step:34}" + "".join(f"{1e9 * value / total:>10.2f}" for value in each) + f"{each[-1] / each[0]:>8.2f}")


def measure(length: int, total: int) -> dict[str, float]:
    """Processor seconds of each step for completions of `length` tokens, `total` in all."""
    groups = drawn(length, total // length)
    texts = pa.array([completion.text for _, group in groups for completion in group.completions])
    names = sorted({f"p{request.row}" for request, _ in groups})
    prompts = pa.Table.from_pylist([prompt(number) for number in range(len(names))], PROMPTS)
    ids = prompts["prompt_id"].to_pylist()
    token_bytes = np.full(1 << 16, WORD, np.int32)
    columns = shards.journal_rows(groups, ids, model=MODEL, facts=FACTS, marking=THINK, token_bytes=token_bytes)
    table = shards.pool_rows(prompts, columns)
    verifiers = [filters.build("finished", {}), filters.build("exact_answer", {})]
    facts = [shards.filter_facts(f.name, SPEC, f, seconds=0, known=0, exhaustive=False) for f in verifiers]

    def verdicts() -> pa.Table:
        every = np.arange(table.num_rows)
        names = table["sample_id"].combine_chunks()
        return pa.concat_tables([shards.verdict_rows(f.name, f, every, names, judge(f, table)) for f in verifiers])

    became = judged(table, verdicts(), filters_in(facts))
    given = verdicts()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        seconds = {
            "split, one model's marks": best(lambda: take_apart(texts, THINK)),
            "split, all usual marks": best(lambda: take_apart(texts, USUAL)),
            "journal rows, split included": best(
                lambda: shards.journal_rows(groups, ids, model=MODEL, facts=FACTS, marking=THINK, token_bytes=token_bytes)
            ),
            "pool write": best(lambda: store.write_table("samples/00000", shards.pool_rows(prompts, columns), key="k", facts={})),
            "judge": best(verdicts),
            "view sft": best(lambda: sft(lean(became).append_column("completion_ids", became["completion_ids"]), FORM)),
            "view rollouts": best(lambda: rollouts(became, given, filters_in(facts), FORM)),
        }
    for name in ("one model's marks", "all usual marks"):
        seconds[f"MB/s, {name}"] = texts.nbytes / 1e6 / seconds[f"split, {name}"]
    return seconds


SPEC: Any = type("Spec", (), {"families": None})()
FORM = "chat+reasoning_content"


def prompt(number: int) -> dict[str, Any]:
    """A prompt whose answer is its number."""
    messages = [{"role": "user", "content": f"Say {number}."}]
    return {"prompt_id": f"p{number}", "family": "long", "messages": messages, "reference": f'"{number}"', "metadata": "{}"}


def drawn(length: int, completions: int) -> list[tuple[shards.Request, Drawn]]:
    """Groups of up to 16 completions that think for nine tenths of their tokens; every second answer is right."""
    random = np.random.default_rng(length)
    series = shards.series_of(Sampling(anchor=False), MODEL, "salt")[0]
    thought = "".join(random.choice(["a b ", "cde ", "fg, ", "hi.\n", "jk é"], length * 9 // 10 - 6))
    answers = []
    for row, first in enumerate(range(0, completions, 16)):
        count = min(16, completions - first)
        made = tuple(
            Completion(
                f"<think>\n{number:04d}{thought}\n</think>\n\n{row if number % 2 else 'x'}" + " " * (length * WORD // 10),
                "stop",
                None,
                random.integers(0, 1 << 16, length, np.int32),
                random.normal(-1, 0.2, length).astype(np.float32),
                -1.0,
            )
            for number in range(count)
        )
        names = tuple(f"s{row}-{number}" for number in range(count))
        answers.append(
            (shards.Request(row, series, tuple(range(count)), names), Drawn(row, made, np.zeros(20, np.int32), 1, "start 1"))
        )
    return answers


def best(step: Callable[[], Any]) -> float:
    """Processor seconds of a step, the best of ROUNDS."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
