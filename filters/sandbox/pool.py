"""A pool of zygotes, one thread each, and a warm spare."""

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from filters.sandbox.interpreter import NoInterpreterError
from filters.sandbox.jobs import Job, Ran, SandboxError, ran
from filters.sandbox.launch import Layer, Limits, StartError, Zygote
from filters.sandbox.packages import NO_PACKAGES, Packages

RECYCLE_AFTER = 2_000
"""Programs per zygote."""
PATIENCE_S = 10.0
"""How late a zygote's own time-out may be before the zygote is killed from outside."""
_STARVED = 0.9
"""On a loaded machine, a time-out with less processor time than this share of the wall time is tried again."""


_Doubt = Literal["", "late", "lost", "killed"]
"""Why an answer may not be the program's own, so that the job is tried again without others: the machine was loaded, the zygote
did not answer, or something sent SIGKILL, as a machine without memory does, or a program to itself."""


class _LostError(Exception):
    """The zygote died, or did not keep the deadline."""


class Pool:
    """Runs at most `workers` programs in parallel in one layer. Threads and zygotes start on demand. Thread-safe."""

    def __init__(self, layer: Layer, limits: Limits, workers: int, packages: Packages = NO_PACKAGES) -> None:
        self.layer, self.limits, self.workers, self.packages = layer, limits, workers, packages
        self._jobs: queue.SimpleQueue[tuple[Job, Future[tuple[Ran, _Doubt]]] | None] = queue.SimpleQueue()
        self._spares: queue.SimpleQueue[Zygote | Exception] = queue.SimpleQueue()
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._alive: set[Zygote] = set()
        self._threads: list[threading.Thread] = []
        self._gate = threading.Condition()
        self._busy, self._exclusive, self._closed = 0, False, False
        # One thread starts all zygotes and outlives them: the kernel kills a bwrap when the thread that started it ends.
        self._idle, self._ended = threading.Event(), threading.Event()
        self._spawner = threading.Thread(target=self._spawn, name="sandbox-spawner", daemon=True)
        self._spawner.start()
        self._wanted.put(True)

    def run(self, jobs: Sequence[Job]) -> list[Ran]:
        """Run every job. Returns one Ran per job, in order."""
        futures: list[Future[tuple[Ran, _Doubt]]] = [Future() for _ in jobs]
        with self._gate:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            while len(self._threads) < min(self.workers, len(jobs)):
                thread = threading.Thread(target=self._work, name=f"sandbox-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            for job, future in zip(jobs, futures, strict=True):
                self._jobs.put((job, future))  # under the lock, so that `close` queues its ends behind them
        try:
            wait(futures)
            answers = []
            for job, future in zip(jobs, futures, strict=True):
                answer, doubt = future.result()
                answers.append(self._run_exclusively(job) if doubt else answer)
            return answers
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """End every zygote and wait for it. Jobs that are still queued raise SandboxError."""
        with self._gate:
            self._closed = True
            self._gate.notify_all()
        for _ in self._threads:
            self._jobs.put(None)
        self._wanted.put(False)
        self._idle.wait(timeout=30)
        for zygote in list(self._alive):
            zygote.kill()
        self._alive.clear()
        self._ended.set()
        self._spawner.join(timeout=30)

    def forget(self) -> None:
        """In a forked child: close the descriptors, and leave the processes to the parent."""
        for zygote in self._alive:
            zygote.socket.close()
            zygote.process.returncode = 0
        self._alive.clear()

    def pids(self) -> list[int]:
        """Process ids of the zygotes (of their bwrap processes, in that layer)."""
        return [zygote.process.pid for zygote in list(self._alive)]

    # -- threads -----------------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        while self._wanted.get():
            try:
                zygote = Zygote(self.layer, self.limits, self.packages)
                self._alive.add(zygote)
                self._spares.put(zygote)
            except (StartError, NoInterpreterError, OSError) as error:
                self._spares.put(error)
        self._idle.set()
        self._ended.wait()

    def _taken(self) -> Zygote:
        """Take the warm zygote, and order the next one."""
        self._wanted.put(True)
        spare: Zygote | Exception | None = None
        while spare is None:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            with contextlib.suppress(queue.Empty):
                spare = self._spares.get(timeout=1.0)
            if isinstance(spare, Zygote) and spare.process.poll() is not None:  # it died while it waited
                self._end(spare)
                self._wanted.put(True)
                spare = None
        if isinstance(spare, Exception):
            raise SandboxError(f"the sandbox cannot start another process: {spare}") from spare
        return spare

    def _work(self) -> None:
        zygote: Zygote | None = None
        while (task := self._jobs.get()) is not None:
            job, future = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                with self._shared():
                    zygote = zygote or self._taken()
                    zygote, answer = self._attempt(zygote, job)
                future.set_result(answer)
            except BaseException as error:  # noqa: BLE001 - raised in the thread that submitted the job
                zygote = None
                future.set_exception(error)

    def _attempt(self, zygote: Zygote, job: Job) -> tuple[Zygote | None, tuple[Ran, _Doubt]]:
        """Run a job. Returns the zygote if it can be used again, the answer, and why the job must be tried again."""
        try:
            head, records, stdout = _exchange(zygote, job)
        except _LostError as error:
            self._end(zygote)
            return None, (
                Ran("timeout" if error.args[0] == "late" else "crash", message=f"the sandbox was {error.args[0]}"),
                "lost",
            )
        except BaseException:
            self._end(zygote)
            raise
        answer = ran(job, head, records, stdout)
        doubt: _Doubt = ""
        if answer.kind == "timeout" and head["cpu"] < _STARVED * job.seconds and _loaded():
            doubt = "late"
        elif answer.kind == "crash" and os.waitstatus_to_exitcode(head["status"]) == -signal.SIGKILL:
            doubt = "killed"
        if zygote.served >= RECYCLE_AFTER:
            self._end(zygote)
            return None, (answer, doubt)
        return zygote, (answer, doubt)

    def _run_exclusively(self, job: Job) -> Ran:
        """Run a job while no other job of this pool runs. If that is in doubt too, the machine is to blame; for a program that
        was killed only if the machine has killed one meanwhile."""
        with self._gate:
            self._gate.wait_for(lambda: not self._exclusive)
            self._exclusive = True
            self._gate.wait_for(lambda: not self._busy)
        try:
            killed_before = _killed_for_memory()
            zygote, (answer, doubt) = self._attempt(self._taken(), job)
            if zygote is not None:
                self._end(zygote)
            broken = _killed_for_memory() > killed_before if doubt == "killed" else bool(doubt)
            return replace(answer, broken=True) if broken else answer
        finally:
            with self._gate:
                self._exclusive = False
                self._gate.notify_all()

    @contextlib.contextmanager
    def _shared(self) -> Iterator[None]:
        with self._gate:
            self._gate.wait_for(lambda: not self._exclusive)
            if self._closed:
                raise SandboxError("the sandbox is closed")
            self._busy += 1
        try:
            yield
        finally:
            with self._gate:
                self._busy -= 1
                self._gate.notify_all()

    def _end(self, zygote: Zygote) -> None:
        self._alive.discard(zygote)
        zygote.kill()


def _exchange(zygote: Zygote, job: Job) -> tuple[dict[str, Any], bytes, bytes]:
    stdin = b"" if job.stdin is None else job.stdin.encode("utf-8", errors="surrogatepass")
    try:
        return zygote.ask(job.seconds, job.stdin is not None, job.message(), stdin, PATIENCE_S)
    except TimeoutError:
        raise _LostError("late") from None
    except (EOFError, OSError):
        raise _LostError("lost") from None


def _loaded() -> bool:
    """Whether more processes want to run than the machine has cores."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


def _killed_for_memory() -> int:
    """How many processes this machine has killed because it, or a cgroup of it, was out of memory (oom_kill of /proc/vmstat,
    since Linux 4.13); 0 where it does not say."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counters.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
