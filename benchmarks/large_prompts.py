"""Memory of runs whose prompts or completions are large, as a ratio to run.shard_bytes.

python benchmarks/large_prompts.py [--prompts 2300] [--bytes 1000000] [--samples 1] [--shard-bytes 256000000] [--against DIR]

run      `thresher run` with prompts of that size, on a server that answers at once (benchmarks/null_endpoint.py)
filter   `thresher filter` of as many samples, each with a prompt of 100 bytes and a completion of that size

Nothing is compared, which would take most of the time. Each command is a process of its own, which also filters
(run.filter_workers 0). Its peak is the largest resident set; a run with a prompt of 100 bytes tells how much of that has nothing
to do with size. `--against` shows another checkout beside this one. 2,300 prompts of 1 MB take about 12 GB of disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from house import HERE, WORDS, Side
from verifiers import table

from schemas.executors import RunSpec


@cache
def words() -> str:
    return " ".join(np.random.default_rng(0).choice(WORDS, 1 << 21))


def text(number: int, size: int) -> str:
    """A text of random words with `size` characters (at most 10 MB), another one for each number."""
    start = 7919 * number % (1 << 20)
    return f"{number:09d} {words()[start : start + size]}"[:size]


def write_rows(file: Path, rows: Iterator[dict[str, str]]) -> None:
    with file.open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def write_recipe(file: Path, options: argparse.Namespace, **parts: Any) -> None:
    recipe = {
        "name": file.stem,
        "dedupe": None,
        "near_miss": None,
        "dataset": {"license": "mit", "views": ["sft", "rollouts"]},
        "run": {"filter_workers": 0} | ({"shard_bytes": options.shard_bytes} if options.shard_bytes else {}),
        "publish": {"gates": {"undecided": 1.0, "self_check": False}},
    }
    file.write_text(yaml.safe_dump(recipe | parts, sort_keys=False))


def prepare(folder: Path, options: argparse.Namespace, port: int) -> None:
    """Write the recipes of both commands and of the small run, with their prompts and samples."""
    for name, size in (("small", 100), ("run", options.bytes)):
        count = 1 if name == "small" else options.prompts
        write_rows(folder / f"{name}.jsonl", ({"question": text(number, size)} for number in range(count)))
        write_recipe(
            folder / f"{name}.yaml",
            options,
            model={"name": "null-engine"},
            engine={"kind": "openai_http", "base_urls": [f"http://127.0.0.1:{port}/v1"]},
            prompts=[{"family": "large", "source": {"kind": "jsonl", "path": f"{name}.jsonl"}, "reference": None}],
            sampling={"samples_per_prompt": options.samples, "max_tokens": 20, "anchor": False},
        )
    samples = ({"prompt": text(number, 100), "completion": text(number, options.bytes)} for number in range(options.prompts))
    write_rows(folder / "samples.jsonl", samples)
    write_recipe(folder / "filter.yaml", options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2300)
    parser.add_argument("--bytes", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--shard-bytes", type=int, help="instead of the default")
    parser.add_argument("--against", type=Path, help="a checkout of other code")
    parser.add_argument("--folder", type=Path, help="where the runs are made; a temporary folder otherwise")
    options = parser.parse_args()
    sides = [Side("this", HERE), *([Side("other", options.against.absolute())] if options.against else [])]
    with (
        tempfile.TemporaryDirectory(prefix="thresher-", dir=options.folder) as temporary,
        subprocess.Popen([sys.executable, HERE / "benchmarks" / "null_endpoint.py"], stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            folder = Path(temporary)
            prepare(folder, options, int(server.stdout.readline()))
            for side in sides:
                measure(folder, side, options.shard_bytes or RunSpec().shard_bytes)
        finally:
            server.terminate()


def measure(folder: Path, side: Side, shard_bytes: int) -> None:
    """Run the commands of one side and print what they took."""
    small = 0.0
    for name in ("small", "run", "filter"):
        arguments = (
            ["filter", "filter.yaml", "--samples", "samples.jsonl"]
            if name == "filter"
            else ["run", f"{name}.yaml", "--no-prefect"]
        )
        cost = side.run(folder, *arguments, "--out", f"{side.name}-{name}")
        small = small or cost["peak MB"]
        ratio = 1e6 * (cost["peak MB"] - small) / shard_bytes
        table([{"side": side.name, "command": name, **cost, "above small / shard_bytes": ratio}])


if __name__ == "__main__":
    main()
