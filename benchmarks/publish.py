"""The cost of a release, compared with bare pyarrow and datasets.push_to_hub in the same run.

python benchmarks/publish.py [--rows 102400] [--large 2048000] [--rounds 3]

write   rows/s from the pool to the views' Parquet files, compared with pyarrow that reads the same shards and writes the same
views
        with the same settings, pyarrow that writes the views from memory, and to_parquet of datasets
hub     seconds and bytes of a first release, of one that adds a shard (1 % from 204,800 rows on), and of publishing again, for
        thresher and datasets.push_to_hub, from the log of the tests' Hub
memory  peak memory of the process that writes, at --rows and --large
Times are wall seconds, the best of the rounds.
"""

import argparse
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pool_made import made_run
from verifiers import table

from thresher.auditing.count_run import count
from thresher.dataset.parquet_files import GROUP_ROWS
from thresher.dataset.write import write_dataset
from thresher.pool import judged
from thresher.pool.parquet_options import parquet_options
from thresher.pool.run import open_run
from thresher.pool.store import shard_name

HUB = Path(__file__).parents[1] / "tests" / "helpers" / "hub_server.py"
PROGRAM = """
import sys, time, json
sys.path.insert(0, {folder!r})
import publish
print(json.dumps(publish.{call}(*sys.argv[1:])))
"""


def in_process(call: str, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    """Call a function of this file in a process of its own."""
    program = PROGRAM.format(folder=str(Path(__file__).parent), call=call)
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def best(call: Callable[[], Any], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def write(root: str, rounds: str) -> list[dict[str, Any]]:
    """Rows/s of each way to write the views."""
    run = open_run(root)
    rows = sum(pq.read_metadata(file).num_rows for file in Path(root).glob("samples/*.parquet"))
    audit = count(run)

    def thresher() -> None:
        shutil.rmtree(f"{root}/dataset", ignore_errors=True)
        Path(f"{root}/dataset.json").unlink(missing_ok=True)
        write_dataset(run, audit=audit)

    seconds = {"thresher: pool to views": best(thresher, int(rounds))}
    files = sorted(Path(root).glob("dataset/*/train/*.parquet"))
    schemas = {file: pq.read_schema(file) for file in files}
    views = {file: pq.read_table(file) for file in files}
    out = Path(root) / "bare.parquet"

    def bare() -> None:
        for file, schema in schemas.items():
            with pq.ParquetWriter(out, schema, **parquet_options(schema, for_hub=True)) as writer:
                writer.write_table(views[file].cast(schema), row_group_size=GROUP_ROWS)

    def bare_from_pool() -> None:
        for shard in judged.sampled(run.store):
            pq.read_table(f"{root}/samples/{shard_name(shard)}.parquet")
            pq.read_table(f"{root}/verdicts/{shard_name(shard)}.parquet")
        bare()

    def default() -> None:
        for file in files:
            pq.write_table(views[file], out)

    def snappy() -> None:
        import datasets

        for file in files:
            datasets.Dataset(views[file]).to_parquet(str(out))

    seconds["pyarrow: reads the pool, writes the views"] = best(bare_from_pool, int(rounds))
    seconds["pyarrow: writes the views from memory"] = best(bare, int(rounds))
    seconds["pyarrow, default settings, from memory"] = best(default, int(rounds))
    seconds["datasets.to_parquet (snappy), from memory"] = best(snappy, int(rounds))
    out.unlink()
    ours = next(iter(seconds.values()))
    return [{"way": name, "rows/s": round(rows / taken), "x thresher": round(ours / taken, 2)} for name, taken in seconds.items()]


def peak(root: str) -> int:
    """Peak memory of this process in MB, after writing the dataset of a run."""
    run = open_run(root)
    write_dataset(run, audit=count(run))
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024


def push(tool: str, root: str, repo: str, earlier: str) -> dict[str, Any]:
    """Publish a run, or push its views with datasets, which needs the rows of the `earlier` runs of the repository again."""
    start, wall = time.process_time(), time.perf_counter()
    if tool == "thresher":
        from schemas.dataset import PublishSpec
        from thresher.releases.publish import publish

        publish(open_run(root), PublishSpec.model_validate({"repo": repo, "gates": {"self_check": False}}))
    else:
        import datasets

        datasets.disable_progress_bars()
        for view in ("sft", "rollouts"):
            runs = [run for run in (*earlier.split(","), root) if run]
            parts = [pq.read_table(file) for run in runs for file in sorted(Path(run).glob(f"dataset/{view}/train/*.parquet"))]
            datasets.Dataset(pa.concat_tables(parts)).push_to_hub(repo, view)
    return {"cpu s": round(time.process_time() - start, 1), "s": round(time.perf_counter() - wall, 1)}


def hub(first: Path, second: Path, folder: Path) -> list[dict[str, Any]]:
    """Seconds, bytes and commits of each release step."""
    table_rows = []
    rows = [sum(pq.read_metadata(file).num_rows for file in root.glob("samples/*.parquet")) for root in (first, second)]
    addition = f"{100 * rows[1] / rows[0]:.1f} % more"
    new = sum(file.stat().st_size for file in second.glob("dataset/*/train/*.parquet"))
    with runpy.run_path(str(HUB))["Hub"](folder / "hub") as server:
        environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "home"), "HF_TOKEN": "hf_alice"}
        environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        for tool in ("thresher", "push_to_hub"):
            repo = f"acme/{tool.replace('_', '-')}"
            steps = [
                ("a first release", first, ""),
                (addition, second, str(first)),
                ("again, nothing new", second, str(first)),
            ]
            for step, root, before in steps:
                server.log.clear()
                times = in_process("push", tool, str(root), repo, before, environment=environment)
                sent = sum(entry["bytes"] for entry in server.log if "/xorbs/" in entry["path"] or "/_lfs/" in entry["path"])
                commits = sum("/commit/" in entry["path"] for entry in server.log)
                share = round(sent / new, 3) if root == second else ""
                row = {
                    "hub": tool,
                    "step": step,
                    **times,
                    "MB sent": round(sent / 1e6, 2),
                    "x new data": share,
                    "commits": commits,
                }
                table_rows.append(row)
    return table_rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=102_400)
    parser.add_argument("--large", type=int, default=2_048_000, help="rows of the second measurement of memory; 0 skips it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="folder for temporary files (default: the system's)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="thresher-", dir=options.folder))
    try:
        first, second = folder / "first", folder / "second"
        made_run(first, options.rows)
        made_run(second, 2048 * max(1, options.rows // 100 // 2048), first=1 << 20)
        table(in_process("write", str(first), str(options.rounds)))
        finished = open_run(second)
        write_dataset(finished, audit=count(finished))
        print()
        table(hub(first, second, folder))
        print()
        shutil.rmtree(first / "dataset")
        (first / "dataset.json").unlink()
        peaks = [{"rows": options.rows, "peak MB": in_process("peak", str(first))}]
        if options.large:
            made_run(folder / "large", options.large)
            peaks.append({"rows": options.large, "peak MB": in_process("peak", str(folder / "large"))})
        table(peaks)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
