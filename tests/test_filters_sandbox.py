"""What a program may not do in either layer of the sandbox, and that a hostile one ends as what it is."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from filters.sandbox import Job, Limits, Ran, SandboxError, bubblewrap, landlock, launch, selftest
from filters.sandbox.launch import Layer, descendants
from filters.sandbox.pool import Pool
from filters.sandbox.selftest import SelfTest

PROBES = Path(selftest.__file__).parent / "probes.py"
NAMES = [
    "read a file of this machine",
    "read /etc/passwd",
    "write outside of its folder",
    "connect to a port",
    "connect to an abstract socket",
    "read the environment",
    "see /proc",
    "end a process of this machine",
    "end the zygote",
    *selftest.system_calls(),
    "start 300 processes",
    "map 3 GiB",
    "write 64 MiB",
    "leave files to the next program",
    "leave a process to the next program",
    "outstay its time with all signals ignored",
]
LAYERS = {layer.name: layer for layer in reversed(launch.layers())}
MATRIX: dict[str, SelfTest] = {}


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


# -- containment -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_nothing_gets_out(layer: Layer, name: str) -> None:
    """Every attempt of the self-test fails in both layers."""
    if layer.name not in MATRIX:
        MATRIX[layer.name] = selftest.try_out(layer, Limits())
    tested = MATRIX[layer.name]

    assert [check.name for check in tested.checks] == NAMES
    found = next(check for check in tested.checks if check.name == name)
    assert found.held, found.result


def outside(*calls: str, **environment: str) -> list[Any]:
    """The same probes without a sandbox."""
    text = f"{PROBES.read_text()}\nimport json\nprint(json.dumps([{','.join(calls)}]))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, env=environment or None)
    made: list[Any] = json.loads(done.stdout)
    return made


def test_the_probes_get_through_where_nothing_stops_them() -> None:
    """Outside of the sandbox the same probes read, write, connect, see and kill: a check that holds is not an empty one."""
    with selftest.canaries(os.getuid()) as there:
        target = str(there.folder / "open" / "x")
        said = outside(
            f"read({str(there.folder / 'secret')!r})",
            f"write({target!r})",
            f"connect({there.port})",
            f"connect_abstract({there.abstract!r})",
            "'SECRET' in environment()",
            "len(listing('/proc')) > 10",
            f"fill({str(there.folder / 'open')!r}, 64)",
            f"send_signal({there.sleeper.pid})",
            selftest.system_calls()["limits of the zygote"],
            SECRET="x",
        )
        assert there.sleeper.wait(5) == -signal.SIGKILL

    assert said == ["canary", [target], "came through", "came through", True, True, 64, "came through", "came through"]


@pytest.mark.slow
def test_a_wall_that_is_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test refuses a bubblewrap that shows this machine's files and processes, and says which attempts came through."""
    if "bwrap" not in LAYERS:
        pytest.skip("no bwrap on this machine")
    walls = bubblewrap.walls

    def leaky(*arguments: Any) -> list[str]:
        made = walls(*arguments)
        made[made.index("--size") + 1] = str(256 << 20)
        return [made[0], "--ro-bind", "/etc", "/etc", "--ro-bind", "/proc", "/proc", *made[1:]]

    monkeypatch.setattr(bubblewrap, "walls", leaky)
    tested = selftest.try_out(LAYERS["bwrap"], Limits())

    assert not tested.held
    assert {check.name for check in tested.checks if not check.held} >= {"read /etc/passwd", "see /proc", "write 64 MiB"}
    monkeypatch.setattr(selftest, "layers", lambda: [LAYERS["bwrap"]])
    with pytest.raises(SandboxError, match=r"see /proc .*"):
        selftest.choose(Limits())


def test_without_a_layer_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is neither bubblewrap nor Landlock, thresher refuses and says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bubblewrap, "find_spec", lambda name: None)
    monkeypatch.setattr(landlock, "version", lambda: 0)

    with pytest.raises(SandboxError, match="apt install bubblewrap"):
        selftest.choose(Limits())


@pytest.mark.slow
def test_a_bubblewrap_that_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bwrap that may not make namespaces is left for the next layer, and its own words are kept."""
    if "landlock" not in LAYERS:
        pytest.skip("no Landlock on this machine")
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "_reachable", lambda path, uid: path)
    monkeypatch.setattr(selftest, "layers", lambda: [Layer("bwrap", str(broken)), LAYERS["landlock"]])
    tested = selftest.choose(Limits())

    assert tested.layer.name == "landlock"
    assert len(tested.passed_over) == 1
    assert "passed over: bwrap" in str(tested)


def test_no_descriptor_is_inherited(sandbox: Pool) -> None:
    """A program finds its standard descriptors and the channel of its values, nothing else."""
    program = """
        import os
        def f():
            found = []
            for fd in range(300):
                try: os.fstat(fd)
                except OSError: continue
                found.append(fd)
            return found
    """
    assert value(sandbox, program, "f()") == [0, 1, 2, 24]


def test_installed_packages_are_not_visible(sandbox: Pool) -> None:
    """Only the standard library can be imported."""
    program = "import importlib.util as u\ndef f(): return [u.find_spec(n) is None for n in ('pip', 'filters', 'pydantic')]"
    assert value(sandbox, program, "f()") == [True, True, True]


@pytest.mark.slow
def test_a_file_has_a_limit(sandbox: Pool, layer: Layer) -> None:
    """One file ends at 16 MiB, and under Landlock there is none."""
    wanted = f"{PROBES.read_text()}\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    assert value(sandbox, wanted, "one_file('/tmp/x', 24)") == (16 if layer.name == "bwrap" else 0)


# -- hostile programs ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("while True: pass", "timeout"),
        ("import signal\nfor n in range(1, 65):\n  try: signal.signal(n, 1)\n  except OSError: 0\nwhile 1: 0", "timeout"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\ntime.sleep(60)", "timeout"),
        ("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", "timeout"),
        ("import os\nos._exit(0)", "crash"),
        ("import os\nos.abort()", "crash"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "crash"),
        ("import ctypes\nctypes.string_at(0)", "crash"),
        ("import os\nos.closerange(0, 1000)", "tampering"),
        ("import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'garbage' * 9)\n  except OSError: pass", "tampering"),
        ("import os, struct\nwhile True: os.write(24, struct.pack('>II', 0, 9) + b'[\"v\", 1 ]')", "tampering"),
        ("import os, struct\nfor i in 0, 0: os.write(24, struct.pack('>II', i, 7) + b'[\"v\",1]')", "tampering"),
        ("import os, struct\nos.write(24, struct.pack('>II', 0xFFFFFFFE, 0))", "tampering"),
        ("import os, struct\nos.write(24, struct.pack('>II', 0, 1 << 30))\nos._exit(0)", "tampering"),
        ("import os, struct\nos.write(24, struct.pack('>II', 0, 9) + b'[' * 9)\nos._exit(0)", "tampering"),
    ],
    ids=["busy", "deaf", "threads", "forks", "exit", "abort", "kill", "segfault", "closed", "garbage", "flood", "twice",
         "early end", "long", "not json"],
)  # fmt: skip
def test_a_hostile_program_ends_with_its_kind(sandbox: Pool, program: str, kind: str) -> None:
    """Each ends in bounded time as what it is, and the next program is none the worse."""
    started = time.monotonic()
    answer = one(sandbox, program, "1", seconds=0.3)

    assert answer.kind == kind, answer
    assert time.monotonic() - started < 5
    assert still_works(sandbox)


@pytest.mark.slow
def test_a_flood_of_output_is_cut(sandbox: Pool) -> None:
    """300 MB on standard output end at 1 MiB, at once."""
    started = time.monotonic()
    answer = one(sandbox, "import sys\nfor _ in range(300): sys.stdout.write('x' * 1_000_000)", stdin="")

    assert (answer.kind, answer.stdout_cut, len(answer.stdout)) == ("done", True, 1 << 20)
    assert time.monotonic() - started < 2


@pytest.mark.slow
def test_deep_recursion_is_the_programs_own_failure(sandbox: Pool) -> None:
    """Recursion without end raises or crashes; it does not reach the zygote."""
    assert one(sandbox, "def f(x): return f(x + 1)", "f(0)").frames[0].raised == (
        "RecursionError",
        "maximum recursion depth exceeded",
    )
    deep = """
        import sys
        sys.setrecursionlimit(10**9)
        class A:
            def __repr__(self): return repr([self])
        def f(): return len(repr(A()))
    """
    assert one(sandbox, deep, "f()").kind in {"crash", "done"}
    assert still_works(sandbox)


@pytest.mark.slow
def test_memory_has_a_limit(sandbox: Pool) -> None:
    """A list without end is a MemoryError of the program's."""
    answer = one(sandbox, "def f(): return len([bytes(1 << 24) for _ in range(200)])", "f()")
    assert answer.frames[0].raised is not None
    assert answer.frames[0].raised[0] == "MemoryError"


@pytest.mark.slow
def test_nothing_is_left_for_the_next_program(sandbox: Pool, layer: Layer) -> None:
    """Files, deep and forbidden folders, processes, modules and patches are gone when the next program starts."""
    hostile = """
        import builtins, json, os, sys, time
        builtins.len = json.dumps = os.write = lambda *a: 0
        sys.modules["left"] = sys
        if os.fork() == 0:
            time.sleep(60)
        try:
            os.makedirs("/tmp/a/b/c"); os.chmod("/tmp/a/b", 0); open("/tmp/file", "w").write("left"); os.symlink("/", "/tmp/link")
            os.chdir("/tmp")
            for _ in range(400): os.mkdir("d" * 200); os.chdir("d" * 200)
        except OSError: pass
    """
    assert one(sandbox, hostile, "'left' * 2").kind != "error"
    program = f"{PROBES.read_text()}\n" + textwrap.dedent("""
        import gc, sys
        def memory():
            found, frame = gc.get_objects(), sys._getframe(1)
            while frame := frame.f_back:
                found += frame.f_locals.values()
            return sum("".join(["le", "ft"] * 2) in repr(one) for one in found if type(one) in (bytes, str, tuple))
        def f(): return [len('ab'), 'left' in sys.modules, listing('/tmp')], memory()
    """)
    assert value(sandbox, program, "f()") == ([2, False, []], 0)
    for pid in sandbox.pids():
        assert len(descendants(pid)) == (1 if layer.name == "bwrap" else 0)
