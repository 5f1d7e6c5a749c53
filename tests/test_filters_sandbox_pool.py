"""The pool of zygotes: order, replacement, time-outs, and that no process outlives its owner."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from filters.sandbox import Frame, Job, Limits, Ran, SandboxError, pool
from filters.sandbox.launch import Layer, Zygote, descendants
from filters.sandbox.pool import Pool
from helpers.programs import LAYERS, run_one, still_works


@pytest.mark.slow
def test_jobs_of_several_threads_stay_in_order(layer: Layer) -> None:
    """Every thread gets the answers to its own jobs, in order."""
    zygotes = Pool(layer, Limits(), 2)
    answers: dict[int, list[Any]] = {}

    def ask(number: int) -> None:
        jobs = [Job("def f(*a): return a", (f"f({number}, {index})",)) for index in range(12)]
        answers[number] = [ran.frames[0].value for ran in zygotes.run(jobs)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    zygotes.close()

    assert answers == {number: [(number, index) for index in range(12)] for number in range(3)}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_zygote_that_dies_or_hangs_costs_no_job(layer: Layer, how: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job it was running is tried again on another zygote."""
    monkeypatch.setattr(pool, "PATIENCE_S", 0.2)
    zygotes = Pool(layer, Limits(), 1)
    assert still_works(zygotes)

    def strike() -> None:
        trees = [sorted({zygote, *descendants(zygote)}) for zygote in zygotes.pids()]
        for pid in max(trees, key=len):  # the zygote with a program, which could report the program's end, first
            with suppress(ProcessLookupError):  # it may end with its parent
                os.kill(pid, how)

    timer = threading.Timer(0.15, strike)
    timer.start()
    [answer] = zygotes.run([Job("import time\ntime.sleep(0.4)", ("7",), seconds=0.6)])
    timer.join()

    assert answer == Ran("done", (Frame(7),))
    pids = zygotes.pids()
    zygotes.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_a_worn_zygote_is_replaced(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a number of programs another one replaces it, and no job is lost."""
    monkeypatch.setattr(pool, "RECYCLE_AFTER", 3)
    zygotes = Pool(layer, Limits(), 1)
    answers = zygotes.run([Job("import os", ("os.getppid()", str(number))) for number in range(7)])
    first = set(zygotes.pids())
    zygotes.run([Job("", ("1",))] * 7)
    later = set(zygotes.pids())
    zygotes.close()

    assert [answer.frames[1].value for answer in answers] == list(range(7))
    assert first.isdisjoint(later)


@pytest.mark.slow
def test_a_killed_thresher_leaves_nothing(layer: Layer) -> None:
    """kill -9 of the process that owns the pool ends the sandbox and the program in it."""
    script = textwrap.dedent(
        f"""
        import os, sys, threading, time
        from filters.sandbox import Job, Limits
        from filters.sandbox.launch import Layer, Zygote, descendants
        from filters.sandbox.pool import Pool
        made = Pool(Layer({layer.name!r}, {layer.path!r}), Limits(), 1)
        program = "import os, time, signal\\nsignal.signal(15, 1)\\nos.fork()\\ntime.sleep(60)"
        threading.Thread(target=made.run, args=([Job(program, seconds=60)],), daemon=True).start()
        time.sleep(0.1)
        for _ in range(200):
            time.sleep(0.05)
            found = descendants(os.getpid())
            if len(found) >= (6 if made.layer.name == "bwrap" else 4): break
        print(*found, flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) >= 4
        owner.kill()
    deadline = time.monotonic() + 5
    while (left := [pid for pid in pids if _alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert left == []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("loaded", "attempts"), [(True, 2), (False, 1)])
def test_a_time_out_on_a_loaded_machine_is_tried_once_more(monkeypatch: pytest.MonkeyPatch, loaded: bool, attempts: int) -> None:
    """A program that got little processor time counts as late only after a run without others."""
    jobs: list[Job] = []
    exchange = pool._exchange

    def counted(zygote: Zygote, job: Job) -> Any:
        jobs.append(job)
        return exchange(zygote, job)

    monkeypatch.setattr(pool, "_exchange", counted)
    monkeypatch.setattr(pool, "_loaded", lambda: loaded)
    zygotes = Pool(next(iter(LAYERS.values())), Limits(), 1)
    answer = run_one(zygotes, "import time\ntime.sleep(9)", seconds=0.1)
    zygotes.close()

    assert answer.kind == "timeout"
    assert answer.broken is loaded
    assert len(jobs) == attempts


@pytest.mark.slow
@pytest.mark.parametrize("machine_kills", [False, True])
def test_a_program_that_kills_itself_is_to_blame(monkeypatch: pytest.MonkeyPatch, machine_kills: bool) -> None:
    """It is tried once more, alone: only if the machine has killed a process meanwhile, as one without memory does, is that to
    blame. A program that was killed once has the result of its second run."""
    killed, jobs, exchange = [0], list[Job](), pool._exchange

    def counted(zygote: Zygote, job: Job) -> Any:
        jobs.append(job)
        killed[0] += machine_kills
        return exchange(zygote, job)

    monkeypatch.setattr(pool, "_exchange", counted)
    monkeypatch.setattr(pool, "_killed_for_memory", lambda: killed[0])
    zygotes = Pool(next(iter(LAYERS.values())), Limits(), 1)
    answer = run_one(zygotes, "import os\nos.kill(os.getpid(), 9)")
    ended = run_one(zygotes, "import os\nos.abort()")
    zygotes.close()

    assert (answer.kind, answer.broken, len(jobs)) == ("crash", machine_kills, 3)
    assert (ended.kind, ended.broken) == ("crash", False)
    assert pool._killed_for_memory() >= 0


@pytest.mark.slow
def test_a_closed_pool_refuses_jobs(layer: Layer) -> None:
    """A thread that waits for its jobs gets the error too."""
    closed = Pool(layer, Limits(), 1)
    outcomes: list[str] = []

    def wait() -> None:
        try:
            closed.run([Job("import time\ntime.sleep(0.3)", ("1",))] * 5)
            outcomes.append("answered")
        except SandboxError as error:
            outcomes.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    closed.close()
    thread.join(10)

    assert outcomes == ["the sandbox is closed"]
    with pytest.raises(SandboxError, match="the sandbox is closed"):
        closed.run([Job("", ("1",))])


@pytest.mark.slow
def test_a_forked_process_has_a_sandbox_of_its_own() -> None:
    """A child made by os.fork starts its own processes, and the parent's sandbox keeps working."""
    script = """
        import os
        from filters.sandbox import Job, Sandbox
        job, sandbox = [Job("a = 6", ("a * 7",))], Sandbox()
        assert sandbox.run(job)[0].frames[0].value == 42
        pid = os.fork()
        assert sandbox.run(job)[0].frames[0].value == 42
        if pid: assert os.waitpid(pid, 0)[1] == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=Path(__file__).parents[1], timeout=60)
