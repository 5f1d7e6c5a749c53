"""The executor of this machine, whose filter processes die."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers import known
from thresher.errors import DeadlyError, EngineError, StoppedError
from thresher.executors.executor import Call, map_threads
from thresher.executors.local import LocalEngine, LocalExecutor

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


def signals_of_this_process() -> tuple[bool, bool]:
    """Whether Ctrl-C is ignored here, and whether it is blocked, which programs that are started here would keep."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN, signal.SIGINT in blocked


def test_a_stop_ends_filter_processes_that_leave_ctrl_c_to_their_parent() -> None:
    """What they were doing is given up, and nothing new is begun."""
    with LocalExecutor(1) as executor, ThreadPoolExecutor(1) as threads:
        assert executor.call(signals_of_this_process) == (True, False)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
        under_way = threads.submit(executor.call, time.sleep, 600.0)
        while not known(executor._processes)._pending_work_items:
            assert not under_way.done()
        executor.stop()
        with pytest.raises(StoppedError, match="the filter processes were stopped"):
            under_way.result(60)
        with pytest.raises(StoppedError):
            executor.call(str.upper, "more")


def test_an_engine_that_was_told_to_stop_says_that_it_did() -> None:
    """So that nothing tries again what an interrupt ended."""

    class Gone:
        def close(self) -> None:
            """It has no process."""

    def work(_engine: Gone, _call: Call) -> None:
        raise EngineError("the engine was stopped")

    engine = LocalEngine(Gone(), LocalExecutor(0).call)
    with pytest.raises(EngineError) as died:
        engine.call(work)
    engine.close()
    with pytest.raises(StoppedError):
        engine.call(work)
    assert not isinstance(died.value, StoppedError)


def test_an_interrupt_of_a_map_stops_the_executor() -> None:
    """As if Ctrl-C came while the results were waited for."""
    stopped = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_threads(interrupted, [()], threads=1, stop=lambda: stopped.append(True))
    assert stopped == [True]
