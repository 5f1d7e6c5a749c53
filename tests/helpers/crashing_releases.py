"""Runs commands on a repository in a process each, which may end in the middle of them. Reads JSON lines, {"call": [NAME,
arguments...], "crash": N or null, "kill": seconds or null}: the process ends itself at its Nth change of a file, as by
kill -9, or is killed after so many seconds. Writes [exit status, what was printed]; the status is 9 after such an end."""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets  # noqa: F401 - imported once, not in every process

from helpers.runs import LOOSE
from schemas.dataset import PublishSpec
from thresher.errors import PublishError
from thresher.pool.run import open_run
from thresher.releases.change import revoke, rollback
from thresher.releases.compact import compact
from thresher.releases.publish import publish

CALLS: dict[str, Callable[..., Any]] = {
    "publish": lambda repo, run: publish(
        open_run(run), PublishSpec.model_validate({"repo": repo, "gates": LOOSE}), force="the verdicts are written by hand"
    ),
    "revoke": lambda repo, *ids: revoke(repo, ids, "wrong"),
    "rollback": rollback,
    "compact": compact,
}


def end_at(number: int) -> None:
    """End this process at a change of a file: before it, or after half of it."""
    left = [number]

    def ending(change: Callable[..., Any], half: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                if half is not None:
                    half(*arguments)
                os._exit(9)
            return change(*arguments, **more)

        return call

    write = Path.write_bytes
    Path.write_bytes = ending(write, lambda path, data: write(path, bytes(data)[: len(data) // 2]))  # type: ignore[method-assign]
    for owner, name in ((os, "replace"), (os, "link"), (os, "unlink"), (Path, "replace"), (Path, "rename")):
        setattr(owner, name, ending(getattr(owner, name)))


def run(call: list[str], crash: int | None, kill: float | None) -> tuple[int, str]:
    """Run a command in a process of its own."""
    with tempfile.TemporaryFile("w+") as printed:
        child = os.fork()
        if not child:
            status = 1
            try:
                if crash is not None:
                    end_at(crash)
                print(CALLS[call[0]](*call[1:]).words, file=printed, flush=True)
                status = 0
            except PublishError as error:
                print(error, file=printed, flush=True)
            except BaseException as error:  # noqa: BLE001 - told to who asked
                print(repr(error), file=printed, flush=True)
                status = 99
            os._exit(status)
        if kill is not None:
            time.sleep(kill)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        printed.seek(0)
        return 9 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), printed.read()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
