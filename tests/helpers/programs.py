"""Programs in the sandbox: the layers of this machine, and what a single program returns."""

import textwrap
from pathlib import Path
from typing import Any

from filters.sandbox import Job, Ran, launch, selftest
from filters.sandbox.pool import Pool

LAYERS = {layer.name: layer for layer in reversed(launch.layers())}
"""The layers that may work on this machine, by name; of several bubblewraps the first."""
PROBES = (Path(selftest.__file__).parent / "probes.py").read_text()


def run_one(sandbox: Pool, program: str, *calls: str, seconds: float = 5.0, stdin: str | None = None) -> Ran:
    """Run a single program."""
    [answer] = sandbox.run([Job(textwrap.dedent(program), calls, stdin, seconds)])
    return answer


def value_of(sandbox: Pool, program: str, call: str) -> Any:
    """The value of a single call, which must return one."""
    answer = run_one(sandbox, program, call)
    assert answer.kind == "done" and answer.failed is None and answer.frames[0].raised is None, answer
    return answer.frames[0].value


def still_works(sandbox: Pool) -> bool:
    """Whether a plain program runs."""
    return bool(value_of(sandbox, "def f(x): return [x]", "f(1)") == [1])
