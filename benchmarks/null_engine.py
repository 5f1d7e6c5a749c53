"""Samples per second of everything but the model: thresher and its peers on one engine that answers at once.

    .venv/bin/python benchmarks/null_engine.py [--prompts 1500] [--samples 16] [--rounds 3] [--peers distilabel,curator,ray]
    .venv/bin/python benchmarks/null_engine.py --memory       # peak memory of thresher at 100,000 and 1,000,000 samples

The engine is benchmarks/null_endpoint.py, a process beside them; `null_endpoint.py --measure` says what it can do by itself, and
`endpoint_busy_rate` below how much of its one core a contender kept busy. Rounds alternate, and each runs every contender twice:
on one prompt, which is its start-up, and on many. A rate is the samples of the second run beyond those of the first over the
seconds beyond it, wall clock or CPU, all medians over rounds. CPU time is that of the contender's whole process tree, not of the
endpoint: the larger of what the kernel hands over as children are reaped and of what was last seen of each process, looking
every 0.2 s, because some children are reaped by nobody. A run whose samples are not all on disk is an error.

thresher does its whole work: journal, three filters that each find something, the calibration test, audit, and three views of
the dataset with log-probabilities and token ids. The anchor is left out, so that each contender asks for the same samples. The
peers get text only, in one request with `n` a prompt, and filter nothing. Each has an environment of its own, made when first
wanted, and the settings that were fastest among those tried on two cores:

- distilabel: LoadDataFromDicts >> TextGeneration with num_generations, grouped, without raw input and output, in batches of 500
  prompts (of 16, 50, 200 and 500), saved by Distiset.save_to_disk.
- curator: an LLM that returns whole completions, so that `n` choices become rows; no cache, no console, limits out of reach, 256
  requests at once (of 32, 256 and 1000). Its dataset is the Arrow file that it writes anyway.
- ray: Ray Data, read_json > map_batches over one actor with an async client > write_parquet. The client is aiohttp, the fastest;
  ray_openai and ray_httpx are the same with those. ray_llm is the HTTP stage that Ray brings, of ray.data.llm.

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
    """A peer: its script under peers/, what is installed for it, the package whose version is shown, and its settings."""

    script: str
    package: str
    requirements: tuple[str, ...]
    times: int
    """How many times --prompts it is given: as many as make its run last well beyond its start-up."""
    settings: dict[str, Any]


_RAY = ("ray[data]==2.60.*", "aiohttp", "httpx", "openai")
_RAY_SETTINGS = {"concurrency": 64, "batch_size": 256, "batches": 4}
PEERS = {
    # It imports requests without naming it.
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
    """Proportional set sizes of its processes, added up: what they share counts once."""
    endpoint_cpu_s: float


@dataclass
class Watch:
    """Follows the descendants of this process, but for the endpoint, in a thread."""

    besides: int
    memory: bool
    seen: dict[tuple[int, int], int] = field(default_factory=dict)
    """Process, by number and start, to the CPU time last seen, in ticks."""
    peak_bytes: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> list[int]:
        """Note the CPU time and memory of the processes there are, and return them."""
        parents: dict[int, int] = {}
        found: dict[int, tuple[int, int]] = {}
        for entry in os.listdir("/proc"):
            with suppress(OSError, ValueError):
                pid = int(entry)
                fields = Path("/proc", entry, "stat").read_text().rpartition(") ")[2].split()
                parents[pid], found[pid] = int(fields[1]), (int(fields[19]), int(fields[11]) + int(fields[12]))
        children: dict[int, list[int]] = {}
        for pid, parent in parents.items():
            children.setdefault(parent, []).append(pid)
        ours = list(children.get(os.getpid(), ()))
        if self.besides in ours:
            ours.remove(self.besides)
        for pid in ours:  # grows as it goes
            ours.extend(children.get(pid, ()))
        for pid in ours:
            started, ticks = found[pid]
            self.seen[pid, started] = ticks
        if self.memory:
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory_bytes, ours)))
        return ours

    def run(self) -> None:
        while not self.over.wait(EVERY_S):
            self.look()

    @property
    def cpu_s(self) -> float:
        return sum(self.seen.values()) / _TICK


def _memory_bytes(pid: int) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return 0  # it has ended


def measured(command: list[str], folder: Path, engine: "Engine", *, memory: bool) -> Measured:
    """Run a command in `folder`, where its output stays in log.txt. The samples are the caller's to count."""
    environment = os.environ | {"HOME": str(folder), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONWARNINGS": "ignore"}
    environment |= {"RAY_TMPDIR": str(folder.parent), "HF_HUB_OFFLINE": "1", "PREFECT_HOME": str(folder / "prefect")}
    watch = Watch(engine.pid, memory)
    thread = threading.Thread(target=watch.run)
    reaped, endpoint = _reaped_s(), engine.stats()["cpu_s"]
    with (folder / "log.txt").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        thread.start()
        try:
            status = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        finally:
            wall_s = time.perf_counter() - began
            watch.over.set()
            thread.join()
            _bury(watch)
    if status:
        said = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
        raise ContenderError(f"status {status}: {' / '.join(said[-3:])[-500:]}")
    return Measured(0, wall_s, max(watch.cpu_s, _reaped_s() - reaped), watch.peak_bytes, engine.stats()["cpu_s"] - endpoint)


def _reaped_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _bury(watch: Watch) -> None:
    """Wait for what a contender left running, ten seconds at most, then end it. It is ours to reap: see `main`."""
    patience = time.monotonic() + 10
    while left := watch.look():
        for pid in left:
            if time.monotonic() > patience:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


# -- contenders --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """`command` takes prompts file, samples per prompt, output directory; `count` says how many samples are there."""

    name: str
    version: str
    times: int
    command: Callable[[Path, int, Path], list[str]]
    count: Callable[[Path], int]


def thresher(engine: "Engine", overrides: list[str]) -> Contender:
    """thresher, by its command line."""

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
            raise ContenderError(f"the filters had nothing to do: {outcomes}")
        return sum(outcomes.values())

    version = subprocess.run([THRESHER, "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    return Contender("thresher", version, THRESHER_TIMES, command, count)


def peer(name: str, engine: "Engine", cache: Path, settings: dict[str, Any]) -> Contender:
    """A peer, by its script under benchmarks/peers. Raises ContenderError where it cannot be installed."""
    found = PEERS[name]
    home = cache / found.script
    python = home / "bin" / "python"
    wanted = " ".join(found.requirements)
    made = home / "made"
    if not made.exists() or made.read_text() != wanted:
        print(f"installing {wanted} into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        base = shutil.which("python3.11") or sys.executable
        for step in ([base, "-m", "venv", str(home)], [str(python), "-m", "pip", "install", "--quiet", *found.requirements]):
            done = subprocess.run(step, check=False, capture_output=True, text=True)
            if done.returncode:
                raise ContenderError(f"cannot be installed: {' / '.join(done.stderr.strip().splitlines()[-3:])[-500:]}")
        made.write_text(wanted)
    say = f"from importlib.metadata import version; print(version({found.package!r}))"
    version = subprocess.run([python, "-c", say], check=True, capture_output=True, text=True).stdout.strip()

    def command(prompts: Path, samples: int, out: Path) -> list[str]:
        given = {"prompts": str(prompts), "samples": samples, "out": str(out), "max_tokens": MAX_TOKENS}
        given |= {"base_url": engine.base_url, "model": engine.model, **settings}
        return [str(python), str(HERE / "peers" / f"{found.script}_peer.py"), json.dumps(given)]

    return Contender(name, version, found.times, command, _rows)


def _rows(out: Path) -> int:
    """Samples in the Parquet and Arrow files that are a peer's dataset; a grouped row holds several."""
    total = 0
    files = [path for path in out.rglob("*") if path.suffix in (".parquet", ".arrow") and not path.name.startswith("cache-")]
    for path in files:
        if "cache" in path.relative_to(out).parts:  # distilabel's, made on the way
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
    """Sums, as the endpoint knows them."""
    with path.open("w") as file:
        for i in range(number):
            one, other = i % 97, (i // 97 + 5 * i) % 89
            text = f"Question {i}: what is {one} plus {other}? Say in one short sentence how you get there, then"
            row = {"instruction": f"{text} give the sum after ####.", "answer": str(one + other)}
            file.write(json.dumps(row) + "\n")
    return path


def once(contender: Contender, sums: Path, samples: int, engine: "Engine", *, memory: bool = False) -> Measured:
    """One run of a contender in a fresh folder, which is removed afterwards."""
    scratch, number = sums.parent, len(sums.read_text().splitlines())
    folder = Path(tempfile.mkdtemp(prefix=f"{contender.name}-", dir=scratch))
    try:
        out = folder / "out"
        if contender.name != "thresher":
            out.mkdir()
        found = measured(contender.command(sums, samples, out), folder, engine, memory=memory)
        there = contender.count(out)
        if there != number * samples:
            raise ContenderError(f"{there} samples are on disk, not {number * samples}")
        return replace(found, samples=there)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Engine:
    """The endpoint that runs."""

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
            found: dict[str, Any] = json.load(response)
            return found


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
    """Rates of all contenders, and thresher's over the best of the others."""
    contenders: list[Contender] = []
    errors: dict[str, str] = {}
    runs: dict[str, list[tuple[Measured, Measured]]] = {}
    settings = {name: each.settings | json.loads(options.settings).get(name, {}) for name, each in PEERS.items()}
    for name in options.contenders:
        try:
            if name == "thresher":
                contenders.append(thresher(engine, options.overrides))
            else:
                contenders.append(peer(name, engine, options.cache, settings[name]))
            runs[name] = []
        except (ContenderError, OSError, subprocess.CalledProcessError) as error:
            errors[name] = f"{type(error).__name__}: {error}"
    one = write_prompts(scratch / "one.jsonl", 1)
    many = {c.name: write_prompts(scratch / f"{c.name}.jsonl", c.times * options.prompts) for c in contenders}
    for number in range(options.rounds):
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            if contender.name in errors:
                continue
            try:
                short = once(contender, one, options.samples, engine)
                long = once(contender, many[contender.name], options.samples, engine)
            except (ContenderError, OSError, subprocess.CalledProcessError) as error:
                errors[contender.name] = f"round {number + 1}: {error}"
                continue
            runs[contender.name].append((short, long))
            print(f"round {number + 1}: {contender.name}: {long.wall_s:.1f} s, {long.cpu_s:.1f} s of CPU", file=sys.stderr)
    results = {c.name: {"version": c.version, **_summary(runs[c.name])} for c in contenders if runs[c.name]}
    ratios: dict[str, Any] = {}
    for measure in ("samples_per_s", "samples_per_cpu_s"):
        others = {name: found[measure] for name, found in results.items() if name != "thresher"}
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
    """Medians over rounds; the start-up that is taken off is the median too, for it varies more than the rest."""
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
    """Peak memory of thresher at two sizes, and their ratio."""
    contender = thresher(engine, options.overrides)
    found = {}
    for total in options.sizes:
        sums = write_prompts(scratch / "sums.jsonl", total // options.samples)
        run = once(contender, sums, options.samples, engine, memory=True)
        found[run.samples] = {"peak_pss_mib": round(run.peak_bytes / 2**20, 1), "wall_s": round(run.wall_s, 1)}
        print(f"{run.samples} samples: {found[run.samples]}", file=sys.stderr)
    peaks = [each["peak_pss_mib"] for each in found.values()]
    return {
        "memory": "PSS of the whole process tree, added up every 0.2 s",
        "samples": found,
        "last_over_first": round(peaks[-1] / peaks[0], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1500, help="of the slowest contender; see Peer.times")
    parser.add_argument("--samples", type=int, default=16, help="samples per prompt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="distilabel,curator,ray", help=f"of {', '.join(PEERS)}; empty runs thresher alone")
    parser.add_argument("--peers-only", action="store_true", help="leave thresher out")
    parser.add_argument("--settings", default="{}", help="JSON: other settings of a peer, as in PEERS")
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="change the recipe")
    parser.add_argument("--cache", type=Path, default=Path(platformdirs.user_cache_dir("thresher")) / "null_engine")
    parser.add_argument("--scratch", type=Path, help="where runs are written, a short path (default: the temporary folder)")
    parser.add_argument("--memory", action="store_true", help="measure thresher's peak memory instead")
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[100_000, 1_000_000])
    options = parser.parse_args()
    options.contenders = [*([] if options.peers_only else ["thresher"]), *filter(None, options.peers.split(","))]
    if unknown := set(options.contenders) - {*PEERS, "thresher"}:
        parser.error(f"--peers: {', '.join(sorted(unknown))}: not one of {', '.join(PEERS)}")
    # What a contender's daemons leave behind becomes ours to reap, and to count: PR_SET_CHILD_SUBREAPER.
    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="null-", dir=options.scratch) as folder, endpoint() as engine:
        found = memory(options, Path(folder), engine) if options.memory else compare(options, Path(folder), engine)
    print(json.dumps(found, indent=1))
    if found.get("failed"):
        sys.exit(1)


if __name__ == "__main__":
    main()
