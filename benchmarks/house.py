"""What the commands cost with this code and with that of another checkout, side by side in one run.

python benchmarks/house.py --against DIR [--rows 1024000] [--rounds 1] [--folder DIR]

help     `thresher --help`
again    `thresher run` of a run that is finished (80 prompts, 16 samples and an anchor each, all default filters of duplicates)
release  `thresher run` of a run whose pool and verdicts are complete and whose dataset is not written
report   `thresher audit --html` of that run
publish  `thresher publish` of that run into an empty folder

Each command is a process of its own. Wall seconds, processor seconds of the process and its children, and the largest resident
set of the process itself. The sides alternate, and of several rounds the best figure counts. The pool is made once: `--against`
judges it, and each side and round gets hard links of it. A million samples take about 10 minutes and 6 GB of disk.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from verifiers import table

HERE = Path(__file__).parents[1]
PROGRAM = """
import sys
from thresher.cli import main
try:
    sys.exit(main(sys.argv[2:]))
finally:
    peak = open("/proc/self/status").read().split("VmHWM:")[1].split()[0]
    open(sys.argv[1], "w").write(peak)
"""
"""A command of thresher that notes its own peak of memory: what the kernel tells the parent includes the parent's before exec."""
PROMPTS_OF, DRAWS, TOKENS = 128, 16, 119
ROWS_OF = PROMPTS_OF * DRAWS
"""Rows of a shard."""
WORDS = np.array([hashlib.sha256(b"%d" % number).hexdigest()[: 2 + number % 9] for number in range(30_000)])
POOL = ("run.json", "begun.json", "prompts.json", "prompts.parquet", "samples", "verdicts", "starts")
"""What a run consists of before its dataset is written."""
STEPS = ("release", "report", "publish")


class Side:
    """The command line of one checkout."""

    def __init__(self, name: str, checkout: Path) -> None:
        self.name = name
        self.environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "", "HF_HUB_OFFLINE": "1"}
        code = "import thresher; print(thresher.__file__)"
        shown = subprocess.run(
            [sys.executable, "-c", code], env=self.environment, cwd=checkout, stdout=subprocess.PIPE, check=True
        )
        file = Path(shown.stdout.decode().strip())
        if checkout not in file.parents:
            raise SystemExit(f"house.py: {name}: wanted the code of {checkout}, Python imports {file}")

    def run(self, folder: Path, *arguments: str) -> dict[str, Any]:
        """Run one command in a folder; returns what it cost. Raises SystemExit with its output where it fails."""
        log, peak = folder / "house.log", folder / "house.peak"
        with log.open("w") as output:
            start = time.perf_counter()
            command = [sys.executable, "-c", PROGRAM, str(peak), *arguments]
            process = subprocess.Popen(command, env=self.environment, cwd=folder, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"house.py: {self.name}: thresher {' '.join(arguments)} failed:\n{log.read_text()}")
        return {"wall s": wall, "cpu s": usage.ru_utime + usage.ru_stime, "peak MB": int(peak.read_text()) / 1024}


# -- the runs ------------------------------------------------------------------------------------------------------------


def write_model(folder: Path) -> None:
    """Write what only looks like a model: the replay engine wants no more."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"max_position_embeddings": 2048}\n')
    (folder / "model" / "tokenizer.json").write_text("{}\n")
    (folder / "model" / "model.safetensors").write_bytes(b"no weights")


def write_recipe(file: Path, prompts: int, **parts: Any) -> None:
    """Write a recipe with its prompts and answers beside it."""
    asked = [{"question": f"Question {number}?", "answer": str(number % 7)} for number in range(prompts)]
    answers = [
        {"prompt": row["question"], "completion": row["answer"] if draw % 2 else f"{draw % 9}, or so I was told by number {draw}"}
        for row in asked
        for draw in range(DRAWS)
    ]
    for name, rows in (("prompts", asked), ("answers", answers)):
        (file.parent / f"{file.stem}-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": file.stem,
        "model": {"name": "model"},
        "engine": {"kind": "replay", "path": f"{file.stem}-answers.jsonl"},
        "prompts": [{"family": "made", "source": {"kind": "jsonl", "path": f"{file.stem}-prompts.jsonl"}}],
        "dataset": {"license": "mit"},
        "publish": {"gates": {"undecided": 1.0, "self_check": False}},
    }
    file.write_text(yaml.safe_dump(recipe | parts, sort_keys=False))


def make_pool(folder: Path, side: Side, rows: int) -> None:
    """Make the run `pool`: a small run whose prompts and samples are replaced with many more, then judged."""
    sampling = {"samples_per_prompt": DRAWS, "anchor": False}
    judged = [{"name": "regex", "parameters": {"pattern": "^[0-7]"}}]
    write_recipe(
        folder / "pool.yaml",
        PROMPTS_OF,
        sampling=sampling,
        filters=judged,
        dedupe=None,
        near_miss=None,
        run={"shard_samples": ROWS_OF},
    )
    run = folder / "pool"
    side.run(folder, "run", "pool.yaml", "--out", "pool", "--no-prefect")
    template = pq.read_table(run / "samples" / "00000.parquet")
    entry = json.loads((run / "samples" / "00000.json").read_text())
    shutil.rmtree(run / "verdicts")
    shards = rows // ROWS_OF
    plan = json.loads((run / "prompts.json").read_text())
    schema = pq.read_schema(run / "prompts.parquet")
    with pq.ParquetWriter(run / "prompts.parquet", schema, compression="zstd", compression_level=3) as prompts:
        for shard in range(shards):
            asked, samples = made_shard(shard, schema, template)
            prompts.write_table(asked)
            facts = entry["facts"] | {"prompt_tokens": 10 * PROMPTS_OF, "completion_tokens": TOKENS * ROWS_OF}
            write_table(run, f"samples/{shard:05d}", samples, entry | {"facts": facts})
    counts = {"shards": shards, "prompts": shards * PROMPTS_OF, "families": {"made": shards * PROMPTS_OF}}
    write_entry(run, "prompts", shards * PROMPTS_OF, plan | {"facts": counts})
    side.run(folder, "run", "pool.yaml", "--out", "pool", "--no-prefect")
    shutil.rmtree(run / "dataset")


def made_shard(shard: int, schema: pa.Schema, template: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return prompts and samples of a shard: 16 samples of 119 tokens to a prompt, with log-probabilities and texts of 90 words.
    What all samples have in common is that of the `template`."""
    draw = np.random.default_rng(shard)
    prompt_ids = names(f"prompt {shard}", PROMPTS_OF)
    asked = [f"Question {shard}-{number}: {' '.join(draw.choice(WORDS, 40))}?" for number in range(PROMPTS_OF)]
    prompts = pa.Table.from_pylist(
        [
            {
                "prompt_id": name,
                "family": "made",
                "messages": [{"role": "user", "content": text}],
                "reference": '"42"',
                "metadata": json.dumps({"level": number % 5}, separators=(",", ":")),
            }
            for number, (name, text) in enumerate(zip(prompt_ids, asked, strict=True))
        ],
        schema,
    )
    tokens = draw.integers(0, 49_000, (ROWS_OF, TOKENS), dtype=np.int32)
    logprobs = -draw.exponential(0.7, (ROWS_OF, TOKENS)).astype(np.float32)
    texts = WORDS[tokens[:, :90] % len(WORDS)]
    of_prompt = pa.array(np.repeat(np.arange(PROMPTS_OF), DRAWS))
    columns: dict[str, Any] = {
        **{name: prompts[name].take(of_prompt) for name in ("prompt_id", "family", "messages", "reference", "metadata")},
        "sample_id": pa.array(names(f"sample {shard}", ROWS_OF)),
        "index": pa.array(np.tile(np.arange(DRAWS, dtype=np.int32), PROMPTS_OF)),
        "completion": pa.array([" ".join(words) for words in texts.tolist()]),
        "prompt_ids": lists(tokens[:, :10]),
        "completion_ids": lists(tokens),
        "logprobs": lists(logprobs),
        "cumulative_logprob": pa.array(logprobs.sum(1, dtype=np.float64)),
        "logprobs_kind": pa.repeat("raw", ROWS_OF),
    }
    for name in template.column_names:
        columns.setdefault(name, pa.repeat(template[name][0], ROWS_OF))
    return prompts, pa.table([columns[name] for name in template.column_names], template.column_names).cast(template.schema)


def names(what: str, count: int) -> list[str]:
    """Return ids of 32 hexadecimal digits."""
    digits = hashlib.shake_256(what.encode()).hexdigest(16 * count)
    return [digits[start : start + 32] for start in range(0, 32 * count, 32)]


def lists(values: Any) -> pa.Array:
    """Return the rows of an array (rows, length) as lists."""
    rows, length = values.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(0, rows * length + 1, length, dtype=np.int32)), pa.array(values.ravel()))


def write_table(run: Path, name: str, rows: pa.Table, entry: dict[str, Any]) -> None:
    """Write a table of a pool with the settings of thresher, and its entry."""
    repeating = [
        "prompt_id", "family", "finish_reason", "stop_reason", "logprobs_kind", "sampling", "engine", "engine_version", "model",
        "model_revision", "chat_template_sha256",
    ]  # fmt: skip
    pq.write_table(
        rows,
        run / f"{name}.parquet",
        compression="zstd",
        compression_level=3,
        use_dictionary=repeating,
        column_encoding={"logprobs.list.element": "BYTE_STREAM_SPLIT"},
        write_page_index=True,
    )
    write_entry(run, name, rows.num_rows, entry)


def write_entry(run: Path, name: str, rows: int, entry: dict[str, Any]) -> None:
    data = (run / f"{name}.parquet").read_bytes()
    noted = {"path": f"{name}.parquet", "rows": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (run / f"{name}.json").write_text(json.dumps(entry | noted, indent=1))


def linked(pool: Path, copy: Path) -> None:
    """Give a side the pool, without its dataset and whatever else was kept beside it."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in POOL:
        if (pool / name).is_dir():
            shutil.copytree(pool / name, copy / name, copy_function=os.link)
        elif (pool / name).exists():
            os.link(pool / name, copy / name)


# -- measuring -----------------------------------------------------------------------------------------------------------


def small_steps(folder: Path, sides: list[Side], rounds: int) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Measure `help` and `again`."""
    write_recipe(folder / "small.yaml", 80, filters=[{"name": "finished"}, {"name": "exact_answer"}], run={"shard_samples": 272})
    costs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for side in sides:
        side.run(folder, "run", "small.yaml", "--out", f"small-{side.name}", "--no-prefect")
    for _ in range(rounds):
        for side in sides:
            costs.setdefault(("help", side.name), []).append(side.run(folder, "--help"))
            again = side.run(folder, "run", "small.yaml", "--out", f"small-{side.name}", "--no-prefect")
            costs.setdefault(("again", side.name), []).append(again)
    return costs


def large_steps(folder: Path, sides: list[Side], rounds: int) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Measure `release`, `report` and `publish`, and say so where the sides write different dataset files."""
    costs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        written = {}
        for side in sides if number % 2 == 0 else reversed(sides):
            run, repo = folder / side.name, folder / f"released-{side.name}"
            linked(folder / "pool", run)
            shutil.rmtree(repo, ignore_errors=True)
            commands = {
                "release": ("run", "pool.yaml", "--out", side.name, "--no-prefect"),
                "report": ("audit", side.name, "--html"),
                "publish": ("publish", side.name, "--repo", repo.name),
            }
            for step, arguments in commands.items():
                costs.setdefault((step, side.name), []).append(side.run(folder, *arguments))
            written[side.name] = sorted(str(file.relative_to(run)) for file in run.glob("dataset/*/*/*.parquet"))
            shutil.rmtree(run)
            shutil.rmtree(repo)
        if len({tuple(files) for files in written.values()}) > 1:
            print("the sides wrote different dataset files (their names have their hashes):", written, file=sys.stderr)
    return costs


def fastest(costs: list[dict[str, Any]]) -> dict[str, float]:
    """The smallest of each figure."""
    return {name: min(cost[name] for cost in costs) for name in costs[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="checkout of the code to compare with")
    parser.add_argument("--rows", type=int, default=1_024_000, help="samples of the large run, in steps of 2,048")
    parser.add_argument("--rounds", type=int, default=1, help="of the large run")
    parser.add_argument("--small-rounds", type=int, default=5, help="of `thresher --help` and the second run")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    options = parser.parse_args()
    sides = [Side("before", options.against.resolve()), Side("now", HERE)]
    folder = Path(tempfile.mkdtemp(prefix="thresher-", dir=options.folder))
    try:
        write_model(folder)
        costs = small_steps(folder, sides, options.small_rounds)
        if options.rows >= ROWS_OF:
            make_pool(folder, sides[0], options.rows)
            costs |= large_steps(folder, sides, options.rounds)
    finally:
        shutil.rmtree(folder)
    best = {key: fastest(many) for key, many in costs.items()}
    if ("release", "now") in best:
        for side in sides:
            parts = [best[step, side.name] for step in STEPS]
            sums: dict[str, float] = {name: sum(part[name] for part in parts) for name in ("wall s", "cpu s")}
            best["release + report + publish", side.name] = sums | {"peak MB": max(part["peak MB"] for part in parts)}
    rows = []
    for step, name in best:
        if name == "before":
            before, now = best[step, "before"], best[step, "now"]
            figures = {
                f"{figure}, {side}": round(cost[figure], 2) for figure in now for side, cost in (("before", before), ("now", now))
            }
            rows.append(
                {"step": step, **figures, **{f"{figure}: now / before": round(now[figure] / before[figure], 2) for figure in now}}
            )
    table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
