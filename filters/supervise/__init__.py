"""Supervised workers: run a task over many items in processes that may hang, crash or exhaust memory.

    with Workers() as workers:
        pool = workers.pool("my_module:factory", seconds=5.0)
        answers = pool.map(items)                          # one Answer per item, in order

Each worker is a new Python process (never a fork of a process with threads), connected by one socket. The deadline of an item
starts when the item is the next one on its worker, not while it is queued. A late worker is killed together with everything it
started, and a warm spare replaces it. The items it had not started are queued again. The item it died on is tried once more,
while no other worker is busy, before `timeout` or `crash` is recorded. So every item gets exactly one Answer, and a bad item
costs the others only time.

This protects against accidents and against libraries that choke on model text. It is not a sandbox: a task that runs model text
as a program belongs in filters.sandbox.
"""

from filters.supervise.pool import Pool, Workers
from filters.supervise.rounds import Answer, verdict_of

__all__ = ["Answer", "Pool", "Workers", "verdict_of"]
