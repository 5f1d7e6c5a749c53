"""Builds HTTP samplers with short waits, groups for them, and collects what they draw."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from helpers.fake_openai import FakeOpenAI
from schemas.engines import HttpEngine
from schemas.sample import Message
from thresher.estimators.calibration import Calibration, Quota, Sums, calibrations
from thresher.samplers.http.claims import Note
from thresher.samplers.http.connection import Waits
from thresher.samplers.openai_http import HttpSampler, HttpStream
from thresher.samplers.sampler import NEUTRAL, Drawn, Group

WAITS = Waits(first_retry_s=0.005, probe_s=0.05, list_s=0.05)


def sampler(
    *servers: FakeOpenAI | str,
    quota: Quota | None = None,
    seeds: Any = "auto",
    base: Path | None = None,
    base_model: str | None = None,
    note: Note | None = None,
    tells_kind: bool = False,
    **spec: Any,
) -> HttpSampler:
    """A sampler of servers, or of the file of a fleet in `base`. Calibrates nothing unless a quota is given. With `base_model`
    the servers' model is an adapter of it."""
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    engine = HttpEngine(kind="openai_http", base_urls=urls, **spec)
    quota = quota or Quota(standard_error=0)
    return HttpSampler(
        engine, "small", quota=quota, seeds=seeds, base=base, note=note, base_model=base_model, waits=WAITS, tells_kind=tells_kind
    )


def group(number: int, n: int = 2, **parameters: Any) -> Group:
    """The group of `prompt NUMBER`, with seeds 1000 * NUMBER + index."""
    values = {**NEUTRAL, "max_tokens": 5, "stop": [], **parameters}
    return Group(number, (Message("user", f"prompt {number}"),), n, values, tuple(1000 * number + i for i in range(n)))


def collect(stream: HttpStream, count: int, timeout: float = 20.0) -> list[Drawn]:
    """Take `count` groups, and return them ordered by number."""
    drawn: list[Drawn] = []
    deadline = time.monotonic() + timeout
    while len(drawn) < count:
        assert time.monotonic() < deadline, f"{len(drawn)} of {count}"
        drawn += stream.take(0.2)
    return sorted(drawn, key=lambda group: group.number)


def draw(closed: HttpSampler, groups: list[Group], timeout: float = 20.0) -> list[Drawn]:
    """Open the sampler, draw groups and close it."""
    with closed as opened, opened.stream() as stream:
        stream.submit(groups)
        return collect(stream, len(groups), timeout)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def calibration_of(drawn: list[Drawn]) -> Calibration:
    """The calibration of all groups together."""
    sums: Sums = np.sum([group.calibration for group in drawn if group.calibration is not None], axis=0)
    return calibrations({("server", ""): (int(sums[:, 0].sum()), sums)})[0]
