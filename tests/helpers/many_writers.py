"""A program: several processes start the same commands at the same moment. It imports thresher once and forks, so that they do.

    many_writers.py COMMANDS.json     a list of command lines; prints a list of [exit status, standard error]

No file can be locked in them, as on some network file systems.
"""

import fcntl
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets  # noqa: F401 - imported once for all of them, as are those below
import duckdb  # noqa: F401
import pyarrow.dataset  # noqa: F401
import s3fs  # type: ignore[import-untyped]  # noqa: F401

from thresher.cli import main
from thresher.cli.recipes import print_result  # noqa: F401
from thresher.running import steps  # noqa: F401


def _no_locks(*_: Any) -> None:
    raise OSError(37, "No locks available")


def started_together(commands: list[list[str]]) -> list[tuple[int, str]]:
    """Run each command in a process of its own; all wait until the last is there."""
    ready, go = os.pipe(), os.pipe()
    children = []
    with tempfile.TemporaryDirectory() as folder:
        for number, command in enumerate(commands):
            log = Path(folder) / str(number)
            pid = os.fork()
            if not pid:
                descriptor = os.open(log, os.O_CREAT | os.O_WRONLY)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                os.write(ready[1], b".")
                os.read(go[0], 1)
                status = 70
                try:
                    status = main(command)
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            children.append((pid, log))
        for _ in commands:
            os.read(ready[0], 1)
        os.write(go[1], b"." * len(commands))
        return [(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), log.read_text()) for pid, log in children]


if __name__ == "__main__":
    fcntl.flock = fcntl.lockf = _no_locks
    print(json.dumps(started_together(json.loads(Path(sys.argv[1]).read_text()))))
