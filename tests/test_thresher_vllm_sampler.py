"""The vLLM sampler on the real engine: what the calibration test catches, and what becomes of a prompt that kills the engine."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from schemas.engines import VllmEngine
from schemas.sample import Message
from thresher.estimators import calibration
from thresher.estimators.calibration import Quota
from thresher.inputs.models import embedded_model
from thresher.samplers.orphans import _descendants
from thresher.samplers.sampler import NEUTRAL, Drawn, Group
from thresher.samplers.vllm_offline import VllmSampler

pytestmark = pytest.mark.slow

STORIES = [
    "Tell me a story.",
    "Describe a city at night.",
    "Why do people travel?",
    "Write a letter to a friend.",
    "What is a cloud?",
]
SPOILED = {
    "top_p": ({"top_p": 0.95}, 6000, {"tail"}),
    "top_k": ({"top_k": 20}, 1500, {"tail", "top1"}),
    "temperature": ({"temperature": 0.8}, 1500, {"tail", "top1"}),
    "repetition_penalty": ({"repetition_penalty": 1.1}, 1500, {"top1"}),
}
"""What is changed, how many tokens are drawn, and which events must give it away."""


@pytest.fixture(scope="module")
def sampler() -> Iterator[VllmSampler]:
    numbers = iter(range(1, 100))
    spec = VllmEngine(max_model_len=512, kv_cache_gib=1, enforce_eager=True, options={"block_size": 32})
    with VllmSampler(
        spec,
        embedded_model(),
        prompt_format="chat",
        quota=Quota(1e-9),
        seeds="auto",
        start=lambda: ((n := next(numbers)), 1000 + n),
    ) as made:
        yield made


def group(number: int, text: str, n: int, **parameters: Any) -> Group:
    values = {**NEUTRAL, "max_tokens": 60, "stop": [], **parameters}
    return Group(number, (Message("user", text),), n, values, tuple(range(n)), tuple(range(n)))


def draw(sampler: VllmSampler, groups: list[Group]) -> list[Drawn]:
    drawn: list[Drawn] = []
    with sampler.stream() as stream:
        stream.submit(groups)
        while len(drawn) < len(groups):
            drawn += stream.take(1.0)
    return drawn


def scored(sampler: VllmSampler, tokens: int, **changes: Any) -> calibration.Calibration:
    groups = [group(number, STORIES[number % len(STORIES)], 16, **changes) for number in range(-(-tokens // (16 * 55)))]
    drawn = draw(sampler, groups)
    parts = [("start 1", "", one.tokens, one.calibration) for one in drawn]
    (found,) = calibration.calibrations(calibration.merged(parts))
    print(found)  # pytest -s shows the z-scores
    return found


def test_calibration_passes_the_clean_sampler(sampler: VllmSampler) -> None:
    """On more tokens than any of the spoiled ones is caught with."""
    found = scored(sampler, 6000)

    assert found.tokens > 4000
    assert found.exceeds == ()
    assert all(score.z is not None for score in found.scores)


@pytest.mark.parametrize("name", SPOILED)
def test_calibration_catches(sampler: VllmSampler, name: str) -> None:
    """Real vLLM, with its log-probabilities as raw as ever."""
    changes, tokens, events = SPOILED[name]
    found = scored(sampler, tokens, **changes)

    assert events <= {score.event for score in found.exceeds}


def test_a_prompt_that_kills_the_engine_three_times_is_set_aside(sampler: VllmSampler) -> None:
    """Kill -9 of EngineCore whenever the prompt is in flight. The others are drawn, by starts with seeds of their own."""
    real = sampler._draw

    async def draw_or_die(engine: Any, job: Any) -> Drawn:
        if "poison" in job.group.messages[-1].content:
            for pid, _ in _descendants(os.getpid()):
                if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        return await real(engine, job)

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sampler, "_draw", draw_or_die)
        drawn = draw(sampler, [group(0, "Say hello.", 4), group(1, "This is poison.", 2), group(2, "Say goodbye.", 4)])
    by_number = {one.number: one for one in drawn}

    assert by_number[1].completions == ()
    assert "the engine died 3 times while it sampled this prompt, the last time alone" in (by_number[1].error or "")
    for number in (0, 2):
        assert by_number[number].error is None
        assert len(by_number[number].completions) == 4
    assert sampler._source == "start 4"
    assert sampler.seed == 1004
