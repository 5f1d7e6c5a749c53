"""The executor of this machine, whose filter processes die."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from thresher.errors import DeadlyError
from thresher.executors.local import LocalExecutor

DEADLY = """
import os, signal
from pathlib import Path

def once(died, value):
    if not Path(died).exists():
        Path(died).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return value

def always(*of):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_call_that_kills_its_process_does_not_fail_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of calls side by side one kills its process once, as the kernel does when memory is short, and one always."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import deadly  # type: ignore[import-not-found]

    with LocalExecutor(2) as executor, ThreadPoolExecutor(6) as threads:
        neighbours = [threads.submit(executor.call, time.sleep, 1.0) for _ in range(4)]
        once = threads.submit(executor.call, deadly.once, str(tmp_path / "died"), "done")
        always = threads.submit(executor.call, deadly.always, "run", 7)
        assert [neighbour.result(60) for neighbour in neighbours] == [None] * 4
        assert once.result(60) == "done"
        with pytest.raises(DeadlyError, match=r"always\(run, 7\): the filter process died twice"):
            always.result(60)
        assert executor.call(str.upper, "works on") == "WORKS ON"
    until = time.monotonic() + 20
    while [one for one in threading.enumerate() if type(one).__name__ == "_ExecutorManagerThread"]:
        assert time.monotonic() < until, "a pool of processes is left"
        time.sleep(0.1)
