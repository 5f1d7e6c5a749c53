"""A program: random schedules of several processes that write one run directory, each a fork of this one.

    interleaved.py FOLDER FIRST COUNT     the schedules of COUNT seeds from FIRST; prints [seed, faults] of each with faults,
                                          then "ended"

Each schedule starts three commands at random instants and stops, continues or kills them at others. In half of the schedules
each process believes that the others are on other machines, so that what was stopped is taken over. Then all that is left is
continued, and a last run is made. A seed gives the same instants, not the same interleaving: the machine decides the rest.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from thresher.auditing.count_run import count
from thresher.cli import main
from thresher.cli.recipes import print_result  # noqa: F401 - imported once for all of them
from thresher.inputs import recipe_file
from thresher.pool import lease
from thresher.pool.run import open_run
from thresher.running import describe_models, steps  # noqa: F401
from thresher.samplers import replay

PROMPTS, FEW, MANY = 6, 1, 3
PROCESSES = 3
HELD, ENDED = "is writing this run, and only one process may", "the run ended"
REFUSED = (HELD, "taken over by", "another process wrote it meanwhile", "run the same command again", "a run of other samples")
"""What a process may say that does not end with 0."""
DREW = "drew"
"""What a process says when it draws."""


@dataclass
class Program:
    """One process of a schedule."""

    pid: int
    command: list[str]
    log: Path
    disturbed: bool = False
    status: int | None = None

    def signal(self, number: signal.Signals) -> None:
        if self.ended():
            return
        self.disturbed = self.disturbed or number is not signal.SIGCONT
        os.kill(self.pid, number)

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def faults(self) -> list[str]:
        """What is wrong with how it ended."""
        words, name = self.log.read_text(), " ".join(self.command[:1] + self.command[4:])
        if "Traceback" in words:
            return [f"{name}: {words[-3000:]}"]
        if self.status == 0 or (self.status == -signal.SIGKILL and self.disturbed):
            return []
        if self.status != 1 or not any(refusal in words for refusal in REFUSED):
            return [f"{name}: ended with {self.status}: {words[-1000:]}"]
        if not self.disturbed and HELD in words and DREW in words:
            return [f"{name}: drew and was refused: {words[-1000:]}"]
        return []


def started(command: list[str], log: Path, machine: str) -> Program:
    """Fork a process that runs a command of thresher in a session of its own. `machine` is where it believes to be."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY)
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return Program(pid, command, log)
    status = 70
    try:
        os.setsid()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if machine:
            lease._machine = lambda: machine
        _slowed_down(random.Random(os.getpid()))
        status = main(command)
    except BaseException as error:  # noqa: BLE001 - a fork must not go on as its parent
        import traceback

        traceback.print_exception(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _slowed_down(pauses: random.Random) -> None:
    """Answers come one by one, and what was drawn by whom can be told apart. Instead of syncing, wait: no power is cut here."""

    def pause(fd: Any) -> None:
        time.sleep(pauses.uniform(0, 0.004))

    os.fsync = pause
    take, answer = replay._Stream.take, replay.ReplaySampler.answer
    replay.GROUPS_PER_TAKE = 1

    def slow(self: Any, timeout: float) -> Any:
        time.sleep(pauses.uniform(0, 0.01))
        os.write(2, f"{DREW}\n".encode())
        return take(self, 0)

    def marked(self: Any, group: Any) -> Any:
        return replace(answer(self, group), source=f"process {os.getpid()}")

    replay._Stream.take, replay.ReplaySampler.answer = slow, marked  # type: ignore[method-assign]


@dataclass
class Observer:
    """Counts the rows of the valid finished shards of a run."""

    root: Path
    rows: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def look(self) -> None:
        for path in (self.root / "samples").glob("[0-9]*.json"):
            rows = self._valid_rows(path)
            if rows is not None and rows < self.rows.get(path.stem, 0):
                self.faults.append(f"shard {path.stem} had {self.rows[path.stem]} valid rows, and now {rows}")
            self.rows[path.stem] = rows or 0
        for stem in self.rows:
            if not (self.root / f"samples/{stem}.json").exists():
                self.faults.append(f"the entry of shard {stem} is gone")

    def _valid_rows(self, path: Path) -> int | None:
        """None where the entry changed meanwhile."""
        text = path.read_text()
        entry = json.loads(text)
        try:
            data = (self.root / entry["path"]).read_bytes()
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            return 0 if path.read_text() == text else None
        if (rows := int(entry["rows"])) % (PROMPTS // 2) or rows // (PROMPTS // 2) not in (FEW + 1, MANY + 1):
            self.faults.append(f"shard {path.stem} has {rows} rows, which is not what was planned")
        return rows


def write_inputs(folder: Path) -> None:
    """A recipe that is replayed, and samples of one's own."""
    prompts = [{"q": f"What is {number}?", "answer": str(number)} for number in range(PROMPTS)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    answers = [
        {"prompt": row["q"], "completion": f"{row['answer'] if sample != 1 else 'none'} {'so ' * sample}".strip()}
        for row in prompts
        for sample in range(MANY)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    document = {
        "name": "interleaved",
        "prompts": [{"family": "f", "source": {"kind": "jsonl", "path": "prompts.jsonl"}, "template": "{{ q }}"}],
        "engine": {"kind": "replay", "path": "answers.jsonl"},
        "sampling": {"samples_per_prompt": MANY, "max_tokens": 8},
        "filters": [{"name": "finished"}],
        "dedupe": {"within_run": None},
        "near_miss": None,
        "dataset": {"views": ["sft", "rollouts"]},
        "run": {"shard_samples": (MANY + 1) * PROMPTS // 2, "filter_workers": 0},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))


def commands(folder: Path, out: Path, choice: random.Random) -> list[list[str]]:
    """The commands of a schedule; the last is made when the others have ended."""
    recipe = str(folder / "recipe.yaml")
    whole = ["run", recipe, "--out", str(out), "--no-prefect"]
    few = [*whole, "--set", f"sampling.samples_per_prompt={FEW}", "--set", f"run.shard_samples={(FEW + 1) * PROMPTS // 2}"]
    other = [*whole, "--set", "filters=[{name: regex, parameters: {pattern: so}}]"]
    foreign = ["filter", recipe, "--out", str(out), "--samples", str(folder / "answers.jsonl")]
    return [*choice.choices([whole, few, other, foreign], [5, 2, 2, 1], k=PROCESSES), whole]


def rows_of(out: Path) -> list[Any]:
    """The dataset, without what tells processes apart."""
    views = {}
    for view in ("sft", "rollouts"):
        table = pq.read_table(sorted((out / "dataset" / view).glob("*/*.parquet")))
        views[view] = table.drop_columns([name for name in ("source", "seconds") if name in table.column_names]).to_pylist()
    return [views]


def faults_of(seed: int, folder: Path, expected: Any) -> list[str]:
    """Run one schedule; returns what was wrong."""
    choice = random.Random(seed)
    out = folder / f"run{seed}"
    apart = choice.random() < 0.5
    *several, last = commands(folder, out, choice)
    programs: list[Program] = []
    events: list[tuple[float, int, signal.Signals | None]] = []
    for number in range(PROCESSES):
        at = 0.0 if not number else choice.uniform(0, 0.4)
        events.append((at, number, None))
        for _ in range(choice.randint(0, 2)):
            at += choice.uniform(0, 0.35)
            if choice.random() < 0.3:
                events.append((at, number, signal.SIGKILL))
                break
            events.append((at, number, signal.SIGSTOP))
            at += choice.uniform(0.05, 0.7)
            events.append((at, number, signal.SIGCONT))
    observer, by_number, start = Observer(out), dict[int, Program](), time.monotonic()
    for at, number, event in sorted(events, key=lambda event: event[0]):
        while time.monotonic() - start < at:
            observer.look()
            time.sleep(0.01)
        if event is not None:
            by_number[number].signal(event)
            continue
        command = several[number]
        if command[0] == "filter" and not (out / "run.json").exists():
            command = last
        by_number[number] = started(command, folder / f"log{seed}-{number}", f"machine {number}" if apart else "")
    programs = list(by_number.values())
    _wait_for(programs, observer)
    end = started(last, folder / f"log{seed}-last", "machine last" if apart else "")
    _wait_for([end], observer)
    programs.append(end)
    faults = [*dict.fromkeys(observer.faults), *(fault for program in programs for fault in program.faults())]
    if end.status != 0:
        return [*faults, f"the last run ended with {end.status}: {end.log.read_text()[-1500:]}"]
    faults += count(open_run(out)).problems
    if expected is not None and rows_of(out) != expected:
        faults.append("the dataset is not that of a run which nothing disturbed")
    return faults


def _wait_for(programs: list[Program], observer: Observer) -> None:
    """Continue what is left, and wait until it has ended; kill what does not."""
    deadline = time.monotonic() + 60
    for program in programs:
        program.signal(signal.SIGCONT)
    while sum(program.ended() for program in programs) < len(programs):
        observer.look()
        time.sleep(0.01)
        if time.monotonic() > deadline:
            for program in programs:
                if not program.ended():
                    observer.faults.append(f"{program.command}: has not ended: {program.log.read_text()[-500:]}")
                    program.signal(signal.SIGKILL)
    observer.look()


def run_schedules(folder: Path, first: int, number: int) -> Iterator[tuple[int, list[str]]]:
    """Run schedules; yield the faults of those that have any."""
    import datasets  # noqa: F401 - once for all of them
    import duckdb  # noqa: F401

    lease.RENEW_S, lease.STALE_S, lease.WAIT_S, lease.LOOK_S, lease.POLL_S = 0.03, 0.25, 0.15, 0.05, 0.02
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder)
    describe_models.describe(recipe_file.load(folder / "recipe.yaml"))  # reads what all of them would read
    whole = started(commands(folder, folder / "whole", random.Random(0))[-1], folder / "log", "")
    _wait_for([whole], Observer(folder / "whole"))
    if whole.status != 0:
        raise SystemExit(whole.log.read_text())
    expected = rows_of(folder / "whole")
    for seed in range(first, first + number):
        if faults := faults_of(seed, folder, expected):
            yield seed, faults


if __name__ == "__main__":
    for found in run_schedules(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):
        print(json.dumps(found), flush=True)
    print(json.dumps("ended"))
