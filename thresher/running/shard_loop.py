"""The loop over shards of every executor: sample and judge side by side, with enough in flight to keep the engines full."""

import contextvars
import queue
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

MAX_IN_FLIGHT = 4096
"""Shards in flight, at most: a thread waits for each."""
POLL_S = 5.0
"""Seconds after which `in_flight` is asked again although no shard has ended."""


def overlap(
    missing: Iterable[int],
    sampled: Iterable[int],
    *,
    sample: Callable[[int], Any],
    judge: Callable[[int], Any],
    judges: int,
    in_flight: Callable[[], int],
    stop: Callable[[], None],
    enough: Callable[[], bool],
) -> list[int]:
    """Call `sample` on the missing shards, up to `in_flight` at a time, and `judge` on every shard once it is sampled, up to
    `judges` at a time. Returns the shards that were left out because `enough` became true.

    After an error nothing new is started; what is under way ends, and the first error is raised. An interrupt calls `stop`, which
    ends what is under way.
    """
    todo = list(missing)
    sampled_later = set(todo)
    ready = [shard for shard in sampled if shard not in sampled_later]
    todo.reverse()
    ready.reverse()
    judges = max(1, judges)
    failure: BaseException | None = None
    ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    with ThreadPoolExecutor(MAX_IN_FLIGHT) as samplers, ThreadPoolExecutor(judges) as judging:
        sampling: dict[Future[Any], int] = {}
        waiting: set[Future[Any]] = set()  # judged, or queued for it
        while True:
            limit = min(MAX_IN_FLIGHT, in_flight())
            # Sampling pauses when more shards wait for a judge than twice what is judged at a time.
            while todo and not failure and not enough() and len(sampling) < limit and len(waiting) <= 2 * judges + limit:
                shard = todo.pop()
                future = _submit(samplers, sample, shard)
                sampling[future] = shard
                future.add_done_callback(ended.put)
            while ready and not failure and len(waiting) <= 2 * judges:
                future = _submit(judging, judge, ready.pop())
                waiting.add(future)
                future.add_done_callback(ended.put)
            if not sampling and not waiting:
                break
            try:  # a queue, because waiting for thousands of futures over and over costs more than everything else here
                future = ended.get(timeout=POLL_S)
            except queue.Empty:
                continue
            except BaseException:
                stop()
                raise
            shard_done = sampling.pop(future, None)
            waiting.discard(future)
            if error := future.exception():
                failure = failure or error
            elif shard_done is not None:
                ready.append(shard_done)
    if failure:
        raise failure
    return todo[::-1]


def _submit(threads: ThreadPoolExecutor, function: Callable[[int], Any], shard: int) -> Future[Any]:
    """Submit in the caller's context, as asyncio.to_thread does: a Prefect task finds its flow there."""
    return threads.submit(contextvars.copy_context().run, function, shard)
