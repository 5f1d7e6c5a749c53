"""A real engine that hangs: a step that never returns, and a stopped process."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.hanging import ALWAYS, BACKEND, HANG_FILE, ONCE, SLOW
from schemas.engines import VllmEngine
from schemas.sample import Message
from thresher.errors import EngineError
from thresher.estimators.calibration import Quota
from thresher.inputs.models import embedded_model
from thresher.samplers.orphans import ProcessId, command_line, descendants, is_running
from thresher.samplers.sampler import NEUTRAL, Drawn, Group
from thresher.samplers.vllm_offline import VllmSampler, VllmStream

pytestmark = pytest.mark.slow

SILENT_S = 6.0


@pytest.fixture(scope="module")
def hang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A step that finds this file never returns, or is slow."""
    file = tmp_path_factory.mktemp("hang") / "file"
    os.environ[HANG_FILE] = str(file)  # the engine's process inherits it
    yield file
    del os.environ[HANG_FILE]


@pytest.fixture(scope="module")
def sampler(hang: Path, warm_engines: None) -> Iterator[VllmSampler]:
    numbers = iter(range(1, 100))
    options = {"block_size": 32, "distributed_executor_backend": BACKEND}
    spec = VllmEngine(max_model_len=512, kv_cache_gib=1, enforce_eager=True, silent_s=SILENT_S, options=options)
    with VllmSampler(
        spec,
        embedded_model(),
        prompt_format="chat",
        quota=Quota(0),
        seeds="auto",
        start=lambda: ((number := next(numbers)), 1000 + number),
    ) as opened:
        yield opened


def group(number: int, text: str, n: int = 4, **parameters: Any) -> Group:
    values = {**NEUTRAL, "max_tokens": 40, "stop": [], **parameters}
    return Group(number, (Message("user", text),), n, values, tuple(range(n)), tuple(range(n)))


def draw(sampler: VllmSampler, groups: list[Group]) -> list[Drawn]:
    drawn: list[Drawn] = []
    with sampler.stream() as stream:
        stream.submit(groups)
        while len(drawn) < len(groups):
            drawn += stream.take(1.0)
    return sorted(drawn, key=lambda result: result.number)


def take_for_ever(stream: VllmStream) -> None:
    while True:
        stream.take(1.0)


def engine_processes() -> set[ProcessId]:
    return {process for process in descendants(os.getpid()) if b"EngineCore" in command_line(process.pid)}


def start_of(drawn: list[Drawn]) -> int:
    """The number of the engine's start that drew all of these."""
    [source] = {result.source for result in drawn}
    return int(source.split()[1])


def test_an_engine_whose_step_never_returns_is_started_again(
    sampler: VllmSampler, hang: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: all groups arrive, from the second start."""
    first = start_of(draw(sampler, [group(0, "Say hello.")]))
    [hung] = engine_processes()
    hang.write_text(ONCE)
    drawn = draw(sampler, [group(number, f"Say hello to {number} people.") for number in range(6)])

    assert [(len(result.completions), result.error) for result in drawn] == [(4, None)] * 6
    assert start_of(drawn) == first + 1
    [words] = [record.getMessage() for record in caplog.records if "starting it again" in record.message]
    assert re.fullmatch(r"the engine hangs \(no token for [\d.]+ s with 24 requests\); starting it again", words)
    assert not is_running(hung)


def test_a_stopped_engine_is_started_again(sampler: VllmSampler, caplog: pytest.LogCaptureFixture) -> None:
    """kill -STOP in the middle of a completion."""
    first = start_of(draw(sampler, [group(0, "Say hello.")]))
    [process] = engine_processes()
    with sampler.stream() as stream:
        stream.submit([group(1, "Tell me a long story.", max_tokens=300)])
        time.sleep(2)
        os.kill(process.pid, signal.SIGSTOP)
        drawn: list[Drawn] = []
        while not drawn:
            drawn = stream.take(1.0)

    assert len(drawn[0].completions) == 4
    assert start_of(drawn) == first + 1
    assert "the engine hangs (no token for " in caplog.text
    assert not is_running(process)


def test_a_working_engine_is_left_alone_however_long_a_group_takes(
    sampler: VllmSampler, hang: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is finished for longer than silent_s, and tokens are made."""
    first = start_of(draw(sampler, [group(0, "Say hello.")]))
    hang.write_text(SLOW)
    started = time.monotonic()
    drawn = draw(sampler, [group(1, "Tell me a long story.", n=2, max_tokens=100, ignore_eos=True)])
    hang.unlink()

    assert time.monotonic() - started > SILENT_S
    assert start_of(drawn) == first
    assert "starting it again" not in caplog.text


def test_an_engine_that_always_hangs_is_given_up(sampler: VllmSampler, hang: Path) -> None:
    """The last test of this module: it ends the engine."""
    hang.write_text(ALWAYS)
    with sampler.stream() as stream:
        stream.submit([group(number, f"Say hello to {number} people.") for number in range(6)])
        words = r"the engine died 4 times in a row, the last time with StalledError: no token for [\d.]+ s with 4 requests"
        with pytest.raises(EngineError, match=words):
            take_for_ever(stream)
