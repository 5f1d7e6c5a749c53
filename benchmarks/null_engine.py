"""Samples per second of everything but the model: thresher and its peers on an engine that answers immediately.

    .venv/bin/python benchmarks/null_engine.py [--prompts 1500] [--samples 16] [--rounds 3] [--peers distilabel,curator,ray]
    .venv/bin/python benchmarks/null_engine.py --memory       # peak memory of thresher at 100,000 and 1,000,000 samples

The engine is benchmarks/null_endpoint.py, in a process of its own. `null_endpoint.py --measure` prints what it can do by
itself; `endpoint_busy_rate` below is the share of its one core that a contender used. Rounds alternate, and each runs every
contender twice: on one prompt, which measures the start, and on many. A rate is the additional samples of the second run over
its additional seconds, of wall clock or CPU; all are medians over rounds. CPU time is that of the contender's whole process
tree without the endpoint: the larger of what the kernel reports for reaped children and of the last observation of each
process, made every 0.2 s, because some children are never reaped. A run whose samples are not all on disk is an error.

thresher does all of its work: journal, two filters that each drop some samples, the calibration test, audit, and the views of
the dataset with log-probabilities and token ids. It draws no anchor, so all contenders request the same samples. The peers
receive only text, in one request with `n` per prompt, and filter nothing. Each has an environment of its own, created when
first needed, and the fastest of the settings that were tried on two cores:

- distilabel: LoadDataFromDicts >> TextGeneration with num_generations, grouped, without raw input and output, in batches of 500
  prompts (of 16, 50, 200 and 500), saved by Distiset.save_to_disk.
- curator: an LLM that returns whole completions, so that `n` choices become rows; no cache, no console, no effective rate
limits, 256
  concurrent requests (of 32, 256 and 1000). Its dataset is the Arrow file that it writes anyway.
- ray: Ray Data, read_json > map_batches over one actor with an async client > write_parquet. The client is aiohttp, the fastest;
  ray_openai and ray_httpx are the same with other clients. ray_llm is Ray's own HTTP stage, of ray.data.llm.

Linux only.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import platformdirs
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

HERE = Path(__file__).resolve().parent
THRESHER = Path(sys.executable).parent / "thresher"
MAX_TOKENS = 20  # as long as the endpoint's answers
EVERY_S, LIMIT_S = 0.2, 1800
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Peer:
    """A peer: its script under peers/, its requirements, the package whose version is shown, and its settings."""

    script: str
    package: str
    requirements: tuple[str, ...]
    times: int
    """It is given this many times --prompts, so that its run takes much longer than its start."""
    settings: dict[str, Any]


_RAY = ("ray[data]==2.60.*", "aiohttp", "httpx", "openai")
_RAY_SETTINGS = {"concurrency": 64, "batch_size": 256, "batches": 4}
PEERS = {
    # It imports requests without declaring it.
    "distilabel": Peer("distilabel", "distilabel", ("distilabel[openai]==1.5.3", "requests"), 1, {"batch_size": 500}),
    "curator": Peer("curator", "bespokelabs-curator", ("bespokelabs-curator==0.1.31",), 2, {"concurrency": 256}),
    "ray": Peer("ray", "ray", _RAY, 20, {"client": "aiohttp", **_RAY_SETTINGS}),
    "ray_openai": Peer("ray", "ray", _RAY, 2, {"client": "openai", **_RAY_SETTINGS}),
    "ray_httpx": Peer("ray", "ray", _RAY, 4, {"client": "httpx", **_RAY_SETTINGS}),
    "ray_llm": Peer("ray", "ray", _RAY, 10, {"client": "ray.data.llm", **_RAY_SETTINGS}),
}
THRESHER_TIMES = 8


class ContenderError(Exception):
    """A contender that cannot be installed, or failed."""


@dataclass(frozen=True)
class Measured:
    """One run of one contender."""

    samples: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    """Sum of the proportional set sizes of its processes: shared memory counts once."""
    endpoint_cpu_s: float


@dataclass
class Watch:
    """Follows the descendants of this process except the endpoint, in a thread."""

    endpoint_pid: int
    memory: bool
    ticks: dict[tuple[int, int], int] = field(default_factory=dict)
    """CPU time at the last look, in ticks, by the number and the start of a process."""
    peak_bytes: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def look(self) -> list[int]:
        """Record the CPU time and memory of the running processes, and return their numbers."""
        parents: dict[int, int] = {}
        started_and_ticks: dict[int, tuple[int, int]] = {}
        for entry in os.listdir("/proc"):
            with suppress(OSError, ValueError):
                pid = int(entry)
                fields = Path("/proc", entry, "stat").read_text().rpartition(") ")[2].split()
                parents[pid] = int(fields[1])
                started_and_ticks[pid] = (int(fields[19]), int(fields[11]) + int(fields[12]))
        children: dict[int, list[int]] = {}
        for pid, parent in parents.items():
            children.setdefault(parent, []).append(pid)
        ours = list(children.get(os.getpid(), ()))
        if self.endpoint_pid in ours:
            ours.remove(self.endpoint_pid)
        for pid in ours:  # The list grows while it is read.
            ours.extend(children.get(pid, ()))
        for pid in ours:
            started, ticks = started_and_ticks[pid]
            self.ticks[pid, started] = ticks
        if self.memory:
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory_bytes, ours)))
        return ours

    def run(self) -> None:
        while not self.stop.wait(EVERY_S):
            self.look()

    @property
    def cpu_s(self) -> float:
        return sum(self.ticks.values()) / _TICK


def _memory_bytes(pid: int) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return 0  # The process has ended.


def measured(command: list[str], folder: Path, engine: "Engine", *, memory: bool) -> Measured:
    """Run a command in `folder`; its output stays in log.txt. The caller counts the samples."""
    environment = os.environ | {"HOME": str(folder), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONWARNINGS": "ignore"}
    environment |= {"RAY_TMPDIR": str(folder.parent), "HF_HUB_OFFLINE": "1", "PREFECT_HOME": str(folder / "prefect")}
    watch = Watch(engine.pid, memory)
    thread = threading.Thread(target=watch.run)
    reaped, endpoint = _reaped_s(), engine.stats()["cpu_s"]
    with (folder / "log.txt").open("wb") as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        thread.start()
        try:
            status = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        finally:
            wall_s = time.perf_counter() - start
            watch.stop.set()
            thread.join()
            _end_leftovers(watch)
    if status:
        log_lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
        raise ContenderError(f"status {status}: {' / '.join(log_lines[-3:])[-500:]}")
    return Measured(0, wall_s, max(watch.cpu_s, _reaped_s() - reaped), watch.peak_bytes, engine.stats()["cpu_s"] - endpoint)


def _reaped_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _end_leftovers(watch: Watch) -> None:
    """Wait up to ten seconds for processes that a contender left running, then kill them. They are ours to reap: see `main`."""
    deadline = time.monotonic() + 10
    while left := watch.look():
        for pid in left:
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


# -- contenders --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """`command` takes the prompts file, samples per prompt and output directory; `count` returns the number of samples there."""

    name: str
    version: str
    times: int
    command: Callable[[Path, int, Path], list[str]]
    count: Callable[[Path], int]


def thresher(engine: "Engine", overrides: list[str]) -> Contender:
    """thresher, run from the command line."""

    def command(prompts: Path, samples: int, out: Path) -> list[str]:
        recipe = {
            "name": "null-engine",
            "model": {"name": engine.model},
            "engine": {"kind": "openai_http", "base_urls": [engine.base_url]},
            "prompts": [{"family": "sum", "source": {"kind": "jsonl", "path": str(prompts)}, "template": "{{ instruction }}"}],
            "sampling": {"samples_per_prompt": samples, "anchor": False, "max_tokens": MAX_TOKENS},
            "filters": [
                {"name": "finished"},
                {"name": "exact_answer", "parameters": {"after": "####"}},
            ],
        }
        path = out.parent / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        sets = [part for override in overrides for part in ("--set", override)]
        return [str(THRESHER), "run", str(path), "--out", str(out), "--no-prefect", *sets]

    def count(out: Path) -> int:
        audit = json.loads(subprocess.run([THRESHER, "audit", out, "--json"], check=True, capture_output=True, text=True).stdout)
        outcomes: dict[str, int] = audit["outcomes"]
        if not outcomes["keep"] or not outcomes["drop"]:
            raise ContenderError(f"the filters kept or dropped nothing: {outcomes}")
        return sum(outcomes.values())

    version = subprocess.run([THRESHER, "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    return Contender("thresher", version, THRESHER_TIMES, command, count)


def peer(name: str, engine: "Engine", cache: Path, settings: dict[str, Any]) -> Contender:
    """A peer, run by its script under benchmarks/peers. Raises ContenderError where it cannot be installed."""
    spec = PEERS[name]
    home = cache / spec.script
    python = home / "bin" / "python"
    wanted = " ".join(spec.requirements)
    installed = home / "installed"
    if not installed.exists() or installed.read_text() != wanted:
        print(f"installing {wanted} into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        base = shutil.which("python3.11") or sys.executable
        for step in ([base, "-m", "venv", str(home)], [str(python), "-m", "pip", "install", "--quiet", *spec.requirements]):
            process = subprocess.run(step, check=False, capture_output=True, text=True)
            if process.returncode:
                raise ContenderError(f"cannot be installed: {' / '.join(process.stderr.strip().splitlines()[-3:])[-500:]}")
        installed.write_text(wanted)
    program = f"from importlib.metadata import version; print(version({spec.package!r}))"
    version = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()

    def command(prompts: Path, samples: int, out: Path) -> list[str]:
        arguments = {"prompts": str(prompts), "samples": samples, "out": str(out), "max_tokens": MAX_TOKENS}
        arguments |= {"base_url": engine.base_url, "model": engine.model, **settings}
        return [str(python), str(HERE / "peers" / f"{spec.script}_peer.py"), json.dumps(arguments)]

    return Contender(name, version, spec.times, command, _rows)


def _rows(out: Path) -> int:
    """Count the samples in the Parquet and Arrow files of a peer's dataset; a grouped row holds several."""
    total = 0
    files = [path for path in out.rglob("*") if path.suffix in (".parquet", ".arrow") and not path.name.startswith("cache-")]
    for path in files:
        if "cache" in path.relative_to(out).parts:  # An intermediate result of distilabel.
            continue
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_stream(source).read_all()
        column = table["generation"]
        total += sum(len(texts or ()) for texts in column.to_pylist()) if pa.types.is_list(column.type) else len(column)
    return total


# -- the comparison ----------------------------------------------------------------------------------------------------


def write_prompts(path: Path, number: int) -> Path:
    """Write sums that the endpoint understands."""
    with path.open("w") as file:
        for i in range(number):
            a, b = i % 97, (i // 97 + 5 * i) % 89
            text = f"Question {i}: what is {a} plus {b}? Say in one short sentence how you get there, then"
            row = {"instruction": f"{text} give the sum after ####.", "answer": str(a + b)}
            file.write(json.dumps(row) + "\n")
    return path


def once(contender: Contender, sums: Path, samples: int, engine: "Engine", *, memory: bool = False) -> Measured:
    """Run a contender once in a new folder, which is removed afterwards."""
    scratch, number = sums.parent, len(sums.read_text().splitlines())
    folder = Path(tempfile.mkdtemp(prefix=f"{contender.name}-", dir=scratch))
    try:
        out = folder / "out"
        if contender.name != "thresher":
            out.mkdir()
        result = measured(contender.command(sums, samples, out), folder, engine, memory=memory)
        count = contender.count(out)
        if count != number * samples:
            raise ContenderError(f"{count} samples are on disk, wanted {number * samples}")
        return replace(result, samples=count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Engine:
    """The running endpoint."""

    pid: int
    root: str

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    @property
    def model(self) -> str:
        with urllib.request.urlopen(f"{self.base_url}/models") as response:
            return str(json.load(response)["data"][0]["id"])

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.root}/stats") as response:
            counts: dict[str, Any] = json.load(response)
            return counts


@contextmanager
def endpoint() -> Iterator[Engine]:
    """Start the endpoint; it ends with the block."""
    with subprocess.Popen([sys.executable, HERE / "null_endpoint.py"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Engine(process.pid, f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.terminate()


def compare(options: argparse.Namespace, scratch: Path, engine: Engine) -> dict[str, Any]:
    """Return the rates of all contenders, and those of thresher over the best of the others."""
    contenders: list[Contender] = []
    errors: dict[str, str] = {}
    runs: dict[str, list[tuple[Measured, Measured]]] = {}
    settings = {name: spec.settings | json.loads(options.settings).get(name, {}) for name, spec in PEERS.items()}
    for name in options.contenders:
        try:
            if name == "thresher":
                contenders.append(thresher(engine, options.overrides))
            else:
                contenders.append(peer(name, engine, options.cache, settings[name]))
            runs[name] = []
        except (ContenderError, OSError, subprocess.CalledProcessError) as error:
            errors[name] = f"{type(error).__name__}: {error}"
    single = write_prompts(scratch / "one.jsonl", 1)
    many = {c.name: write_prompts(scratch / f"{c.name}.jsonl", c.times * options.prompts) for c in contenders}
    for number in range(options.rounds):
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            if contender.name in errors:
                continue
            try:
                short = once(contender, single, options.samples, engine)
                long = once(contender, many[contender.name], options.samples, engine)
            except (ContenderError, OSError, subprocess.CalledProcessError) as error:
                errors[contender.name] = f"round {number + 1}: {error}"
                continue
            runs[contender.name].append((short, long))
            print(f"round {number + 1}: {contender.name}: {long.wall_s:.1f} s, {long.cpu_s:.1f} s of CPU", file=sys.stderr)
    results = {c.name: {"version": c.version, **_summary(runs[c.name])} for c in contenders if runs[c.name]}
    ratios: dict[str, Any] = {}
    for measure in ("samples_per_s", "samples_per_cpu_s"):
        others = {name: result[measure] for name, result in results.items() if name != "thresher"}
        if others and "thresher" in results:
            best = max(others, key=lambda name: others[name])
            ratios[measure] = {"best_peer": best, "ratio": round(results["thresher"][measure] / others[best], 2)}
    return {
        "prompts": {c.name: c.times * options.prompts for c in contenders},
        "samples_per_prompt": options.samples,
        "rounds": options.rounds,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "results": results,
        "thresher_over_best_peer": ratios,
        "settings": {name: settings[name] for name in options.contenders if name in settings},
        "failed": errors,
    }


def _summary(runs: list[tuple[Measured, Measured]]) -> dict[str, Any]:
    """Return medians over rounds; the subtracted start is a median too, because it varies more than the rest."""
    wall_s = statistics.median(short.wall_s for short, _ in runs)
    cpu_s = statistics.median(short.cpu_s for short, _ in runs)
    samples = runs[0][1].samples - runs[0][0].samples
    long_wall_s = statistics.median(long.wall_s for _, long in runs)
    long_cpu_s = statistics.median(long.cpu_s for _, long in runs)
    return {
        "samples_per_s": round(samples / (long_wall_s - wall_s), 1),
        "samples_per_cpu_s": round(samples / (long_cpu_s - cpu_s), 1),
        "start_up_s": round(wall_s, 2),
        "start_up_cpu_s": round(cpu_s, 2),
        "wall_s": [round(long.wall_s, 2) for _, long in runs],
        "cpu_s": [round(long.cpu_s, 2) for _, long in runs],
        "cores_used": round((long_cpu_s - cpu_s) / (long_wall_s - wall_s), 2),
        "endpoint_busy_rate": round(statistics.median(long.endpoint_cpu_s for _, long in runs) / (long_wall_s - wall_s), 3),
    }


def memory(options: argparse.Namespace, scratch: Path, engine: Engine) -> dict[str, Any]:
    """Return the peak memory of thresher at two sizes, and their ratio."""
    contender = thresher(engine, options.overrides)
    by_size = {}
    for total in options.sizes:
        sums = write_prompts(scratch / "sums.jsonl", total // options.samples)
        run = once(contender, sums, options.samples, engine, memory=True)
        by_size[run.samples] = {"peak_pss_mib": round(run.peak_bytes / 2**20, 1), "wall_s": round(run.wall_s, 1)}
        print(f"{run.samples} samples: {by_size[run.samples]}", file=sys.stderr)
    peaks = [figures["peak_pss_mib"] for figures in by_size.values()]
    return {
        "memory": "sum of the PSS of the process tree, every 0.2 s",
        "samples": by_size,
        "last_over_first": round(peaks[-1] / peaks[0], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1500, help="prompts of the slowest contender; see Peer.times")
    parser.add_argument("--samples", type=int, default=16, help="samples per prompt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="distilabel,curator,ray", help=f"of {', '.join(PEERS)}; empty runs only thresher")
    parser.add_argument("--peers-only", action="store_true", help="leave thresher out")
    parser.add_argument("--settings", default="{}", help="JSON: settings of peers that replace those in PEERS")
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="change the recipe")
    parser.add_argument("--cache", type=Path, default=Path(platformdirs.user_cache_dir("thresher")) / "null_engine")
    parser.add_argument("--scratch", type=Path, help="folder of the runs, a short path (default: the temporary folder)")
    parser.add_argument("--memory", action="store_true", help="measure thresher's peak memory instead")
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[100_000, 1_000_000])
    options = parser.parse_args()
    options.contenders = [*([] if options.peers_only else ["thresher"]), *filter(None, options.peers.split(","))]
    if unknown := set(options.contenders) - {*PEERS, "thresher"}:
        parser.error(f"--peers: {', '.join(sorted(unknown))}: not one of {', '.join(PEERS)}")
    # PR_SET_CHILD_SUBREAPER: processes that a contender's daemons leave behind become ours to reap, and to count.
    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="null-", dir=options.scratch) as folder, endpoint() as engine:
        report = memory(options, Path(folder), engine) if options.memory else compare(options, Path(folder), engine)
    print(json.dumps(report, indent=1))
    if report.get("failed"):
        sys.exit(1)


if __name__ == "__main__":
    main()
