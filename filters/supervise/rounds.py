"""One round of a pool: send items to its workers, collect the answers, and replace workers that are late or died."""

import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from filters.base import FilterError
from filters.supervise.worker import START_S, Worker
from schemas.sample import Verdict


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one item.

    `done`: the task returned `value`. `timeout`: the item was late twice, the second time without others beside it. `crash`: its
    worker died twice, of a signal, an exit or the memory limit. `error`: the task raised. `message` says why it is not `done`.
    `broken`: not the item is to blame for that, as far as can be told: its worker died within the memory limit, or spent the time
    waiting instead of computing.
    """

    kind: Literal["done", "timeout", "crash", "error"]
    value: Any = None
    message: str = ""
    broken: bool = False


def verdict_of(answer: Answer) -> Verdict:
    """Return the verdict for an item that is not done: undecided, because it says nothing about the sample."""
    reason = "filter_error" if answer.kind == "error" else answer.kind
    if answer.broken:
        return Verdict.broken(reason, error=answer.message)
    return Verdict.undecided(reason, error=answer.message)


@dataclass(eq=False)
class Crew:
    """The running workers of a pool, a warm spare, and how to start another one."""

    task: str
    seconds: float
    recycle_after: int
    chunk: int
    start: Callable[[], Worker]
    workers: list[Worker] = field(default_factory=list)
    spare: Worker | None = None

    def end(self) -> None:
        """End every worker and wait for it."""
        for worker in self.everyone():
            worker.kill()
        self.forget()

    def forget(self) -> None:
        """Drop the workers without ending them: in a forked child they belong to the parent."""
        self.workers, self.spare = [], None

    def everyone(self) -> list[Worker]:
        """The workers and the spare."""
        return [*self.workers, *([self.spare] if self.spare else [])]


class Round:
    """Answers one list of items with at most `workers` workers."""

    def __init__(self, crew: Crew, items: Sequence[Any], workers: int) -> None:
        self.crew, self.items = crew, items
        self.most = min(workers, -(-len(items) // crew.chunk))
        self.answers: list[Answer | None] = [None] * len(items)
        self.queue = deque(range(len(items)))
        self.suspects: deque[int] = deque()
        self.tried: set[int] = set()
        self.selector = selectors.DefaultSelector()

    def run(self) -> list[Answer]:
        """Answer every item, in order."""
        crew = self.crew
        while len(crew.workers) < self.most:
            crew.workers.append(crew.start())
        if crew.spare is None and len(self.items) > self.most * crew.chunk:
            crew.spare = crew.start()
        with self.selector:
            for worker in crew.workers:
                self.selector.register(worker.socket, selectors.EVENT_READ, worker)
            while True:
                for worker in list(crew.workers):
                    if worker.ready and not worker.pending:
                        self.feed(worker)
                if not any(worker.pending for worker in crew.workers) and not self.queue and not self.suspects:
                    break
                self.listen()
        assert all(answer is not None for answer in self.answers)
        return [answer for answer in self.answers if answer is not None]

    def feed(self, worker: Worker) -> None:
        """Send a chunk, smaller towards the end so that all workers finish together; suspects are sent last, one by one."""
        crew = self.crew
        if self.queue:
            size = max(1, min(crew.chunk, -(-len(self.queue) // (2 * len(crew.workers)))))
            numbers = [self.queue.popleft() for _ in range(min(size, len(self.queue)))]
        elif self.suspects and not any(busy.pending for busy in crew.workers if not busy.exclusive):
            numbers = [self.suspects.popleft()]
        else:
            return
        if worker.answered >= crew.recycle_after:
            worker = self.replace(worker)
            if not worker.ready:
                (self.suspects if numbers[0] in self.tried else self.queue).extendleft(reversed(numbers))
                return
        worker.exclusive = numbers[0] in self.tried
        worker.send([(number, self.items[number]) for number in numbers])

    def listen(self) -> None:
        """Wait for answers, or for the first deadline."""
        now = time.monotonic()
        first = min((worker.deadline for worker in self.crew.workers if worker.pending or not worker.ready), default=now + 1)
        for key, _ in self.selector.select(max(0.0, first - now)):
            worker: Worker = key.data
            alive = worker.receive()
            for number, kind, value in worker.messages():
                if number < 0:
                    self.started(worker, kind, value)
                else:
                    self.answers[number] = Answer("done", value) if kind == "done" else Answer("error", message=value)
            if not alive:
                self.lost(worker, "crash")
        now = time.monotonic()
        for worker in list(self.crew.workers):
            if (worker.pending or not worker.ready) and now > worker.deadline:
                self.lost(worker, "timeout")

    def started(self, worker: Worker, kind: str, value: Any) -> None:
        """Note that a worker is ready. Raises FilterError if it could not be."""
        if kind == "failed":
            raise FilterError(f"{self.crew.task}: cannot be started in a worker: {value}")
        worker.ready = True

    def lost(self, worker: Worker, kind: Literal["timeout", "crash"]) -> None:
        """Replace a late or dead worker, and queue its items again. Raises FilterError if it had not started yet."""
        pending, ready = list(worker.pending), worker.ready
        broken = worker.waited() if kind == "timeout" else None
        self.replace(worker)
        message = worker.epitaph() if kind == "crash" else f"no answer within {self.crew.seconds:g} s"
        if not ready:
            why = message if kind == "crash" else f"not ready after {START_S:g} s"
            raise FilterError(f"{self.crew.task}: a worker did not start: {why}")
        if not pending:
            return
        number, *rest = pending
        self.queue.extendleft(reversed(rest))
        if number in self.tried:
            broken = not worker.out_of_memory if broken is None else broken
            self.answers[number] = Answer(kind, message=f"{message}, twice, the second time alone", broken=broken)
        else:
            self.tried.add(number)
            self.suspects.append(number)

    def replace(self, worker: Worker) -> Worker:
        """End a worker, and put the spare in its place."""
        crew = self.crew
        self.selector.unregister(worker.socket)
        worker.kill()
        fresh = crew.spare or crew.start()
        crew.spare = None
        crew.workers[crew.workers.index(worker)] = fresh
        crew.spare = crew.start()
        self.selector.register(fresh.socket, selectors.EVENT_READ, fresh)
        return fresh
