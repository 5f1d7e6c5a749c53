"""The cost of the audit of a large pool, compared with the same aggregates in pandas in the same run.

python benchmarks/audit.py [--rows 1024000]

Each contender runs in a process of its own and reports wall and processor seconds and its peak memory. pandas reads the same
Parquet files and computes outcomes, reasons, pass rates per prompt, pass@k, lengths and log-probabilities. It does not check
that the counts add up, and does not hash the files.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pool_made import made_run
from verifiers import table

from thresher.auditing.count_run import count
from thresher.auditing.pages.report import report
from thresher.auditing.query import query
from thresher.auditing.statistics import of_k, statistics
from thresher.pool.run import open_run


def counted(root: str) -> str:
    return f"{count(open_run(root)).total.pass_rate:.6f}"


def run_statistics(root: str) -> str:
    return f"{statistics(open_run(root)).pass_at_k[0].value:.6f}"


def page(root: str) -> str:
    return f"{len(report(open_run(root))) / 1e6:.2f} MB"


def sql(root: str) -> str:
    return str(query(open_run(root), "select count(*) as n from samples where kind = 'hit'").to_pylist()[0]["n"])


def pandas(root: str) -> str:
    import pandas as pd

    columns = ["sample_id", "prompt_id", "family", "anchor", "finish_reason", "completion_ids", "cumulative_logprob"]
    samples = pd.concat([pd.read_parquet(f, columns=columns) for f in sorted(Path(root).glob("samples/*.parquet"))])
    verdicts = pd.concat([pd.read_parquet(f) for f in sorted(Path(root).glob("verdicts/*.parquet"))])
    verdicts.groupby(["filter", "outcome", "reason"]).size()
    ended = verdicts[verdicts.outcome != "keep"].drop_duplicates("sample_id").set_index("sample_id")
    samples["outcome"] = samples.sample_id.map(ended.outcome).fillna("keep")
    samples["tokens"] = samples.completion_ids.map(len)
    drawn = samples[~samples.anchor]
    drawn.groupby(["family", "outcome", "finish_reason"]).size()
    prompts = drawn.assign(passed=drawn.outcome == "keep").groupby("prompt_id").passed.agg(["size", "sum"])
    for k in (1, 2, 4, 8, 16):
        of_k(prompts["size"].to_numpy(), prompts["sum"].to_numpy(), k).mean()
    drawn.groupby("outcome").tokens.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
    drawn.groupby("outcome")[["cumulative_logprob", "tokens"]].sum()
    return f"{float(np.mean(drawn.outcome == 'keep')):.6f}"


WAYS = {
    "audit": counted,
    "statistics": run_statistics,
    "report (audit, statistics, page)": page,
    "sql, one query": sql,
    "pandas": pandas,
}


def measured(way: str, root: str) -> dict[str, Any]:
    """Run one contender in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = WAYS[way](root)
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    return {
        "way": way,
        "s": round(time.perf_counter() - wall, 1),
        "cpu s": round(time.process_time() - cpu, 1),
        "peak MB": peak,
        "result": result,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_024_000)
    parser.add_argument("--folder", type=Path, help="folder for temporary files (default: the system's)")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options.way, str(options.folder))))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="thresher-", dir=options.folder))
    try:
        made_run(folder, options.rows)
        rows = []
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
            process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(process.stdout.splitlines()[-1]))
        table(rows)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
