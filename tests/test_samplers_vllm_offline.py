"""The vLLM sampler with a real engine: what the calibration test catches, and what happens to a prompt that kills the engine."""

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers import known
from schemas.engines import VllmEngine
from schemas.sample import Message
from thresher.errors import EngineError
from thresher.estimators import calibration
from thresher.estimators.calibration import Quota
from thresher.inputs.models import embedded_model
from thresher.samplers import vllm_offline
from thresher.samplers.orphans import command_line, descendants
from thresher.samplers.sampler import NEUTRAL, Drawn, Group
from thresher.samplers.token_watch import requests_of
from thresher.samplers.vllm_draw import EngineStart, draw_group
from thresher.samplers.vllm_offline import VllmSampler

pytestmark = pytest.mark.slow

STORIES = [
    "Tell me a story.",
    "Describe a city at night.",
    "Why do people travel?",
    "Write a letter to a friend.",
    "What is a cloud?",
]
SPOILED: dict[str, tuple[dict[str, float], int, set[str]]] = {
    "top_p": ({"top_p": 0.95}, 6000, {"tail"}),
    "top_k": ({"top_k": 20}, 1500, {"tail", "top1"}),
    "temperature": ({"temperature": 0.8}, 1500, {"tail", "top1"}),
    "repetition_penalty": ({"repetition_penalty": 1.1}, 1500, {"top1"}),
}
"""The changed parameters, how many tokens are drawn, and which events must exceed their bound."""


@pytest.fixture(scope="module")
def sampler(warm_engines: None) -> Iterator[VllmSampler]:
    numbers = iter(range(1, 100))
    spec = VllmEngine(max_model_len=512, kv_cache_gib=1, enforce_eager=True, options={"block_size": 32})
    with VllmSampler(
        spec,
        embedded_model(),
        prompt_format="chat",
        quota=Quota(1e-9),
        seeds="auto",
        start=lambda: ((number := next(numbers)), 1000 + number),
    ) as opened:
        yield opened


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
    parts = [("start 1", "", result.tokens, result.calibration) for result in draw(sampler, groups)]
    (score,) = calibration.calibrations(calibration.merged(parts))
    print(score)  # pytest -s shows the z-scores
    return score


def test_calibration_passes_an_unbiased_sampler(sampler: VllmSampler) -> None:
    """With more tokens than are needed to catch any of the biased ones."""
    score = scored(sampler, 6000)

    assert score.tokens > 4000
    assert score.exceeds == ()
    assert all(event.z is not None for event in score.scores)


@pytest.mark.parametrize("name", SPOILED)
def test_calibration_catches(sampler: VllmSampler, name: str) -> None:
    """vLLM reports raw log-probabilities whatever the parameters."""
    changes, tokens, events = SPOILED[name]

    assert events <= {event.event for event in scored(sampler, tokens, **changes).exceeds}


def test_a_prompt_that_the_engine_refuses_costs_itself(sampler: VllmSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too long for the context, refused by the template, or by vLLM itself; the others are drawn."""
    odd = replace(group(1, "Hello", 1), template='{"tools": 3}')
    real = sampler._tokeniser.text

    def text(messages: Any, **more: Any) -> str:
        if more.get("template"):
            raise ValueError("roles must alternate")  # as templates do
        return "" if messages[-1].content == "nothing" else real(messages, **more)

    monkeypatch.setattr(sampler._tokeniser, "text", text)
    groups = [group(0, "Tell me a story.", 1, max_tokens=500), odd, group(2, "nothing", 2), group(3, "Hello", 2)]

    drawn = {result.number: result for result in draw(sampler, groups)}

    assert "do not fit the context of 512; shorten the prompt" in str(drawn[0].error)
    assert "the chat template refuses the prompt: ValueError: roles must alternate" in str(drawn[1].error)
    assert "vLLM: " in str(drawn[2].error)
    assert all(drawn[number].refused for number in range(3))
    assert (drawn[3].error, len(drawn[3].completions)) == (None, 2)


def test_a_request_that_every_prompt_is_refused_with_ends_the_stream(sampler: VllmSampler) -> None:
    with sampler.stream() as stream, pytest.raises(EngineError, match=r"vLLM: .*top_p"):  # noqa: PT012 - whenever it is told
        stream.submit([group(0, "Hello", 1, top_p=7.0)])
        while True:
            stream.take(1.0)


def test_a_label_is_chosen_by_logprobs_or_by_structured_output(sampler: VllmSampler) -> None:
    """By log-probabilities only if each label is a single token."""
    question = group(0, "Is Paris in France? Answer A for yes and B for no.", 1, temperature=0.0, max_tokens=1)
    [letter] = draw(sampler, [Group(0, question.messages, 1, question.parameters, (0,), (0,), ("A", "B"))])
    [phrase] = draw(sampler, [Group(0, question.messages, 1, question.parameters, (0,), (0,), ("certainly so", "not at all"))])

    assert letter.completions[0].label_logprobs is not None
    assert len(letter.completions[0].label_logprobs) == 2
    assert max(letter.completions[0].label_logprobs) <= 0
    assert phrase.completions[0].label_logprobs is None
    text = phrase.completions[0].text
    assert text
    assert "certainly so".startswith(text) or "not at all".startswith(text)  # max_tokens may cut an unusual spelling


def test_a_prompt_that_kills_the_engine_three_times_is_set_aside(sampler: VllmSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of EngineCore whenever the prompt is in flight. The other prompts are drawn, by starts with seeds of their own."""

    async def draw_or_die(start: EngineStart, quota: Quota, group: Group, tokens: list[int], **more: Any) -> Drawn:
        if "poison" in group.messages[-1].content:
            for pid, _ in descendants(os.getpid()):
                if b"EngineCore" in command_line(pid):
                    os.kill(pid, signal.SIGKILL)
        return await draw_group(start, quota, group, tokens, **more)

    monkeypatch.setattr(vllm_offline, "draw_group", draw_or_die)
    drawn = draw(sampler, [group(0, "Say hello.", 4), group(1, "This is poison.", 2), group(2, "Say goodbye.", 4)])
    by_number = {result.number: result for result in drawn}

    assert by_number[1].completions == ()
    assert "the engine died 3 times while it sampled this prompt, the last time alone" in (by_number[1].error or "")
    for number in (0, 2):
        assert by_number[number].error is None
        assert len(by_number[number].completions) == 4
    [repeated] = draw(sampler, [group(3, "This is poison.", 2)])
    assert repeated.error == by_number[1].error
    [later] = draw(sampler, [group(4, "Say hello.", 1)])
    assert (later.source, later.engine_seed) == ("start 4", 1004)


def test_ctrl_c_does_not_reach_the_processes_of_the_engine(sampler: VllmSampler) -> None:
    """The terminal sends it to all processes. They leave it to this one, which ends them, and print no traceback."""
    engines = [pid for pid, _ in descendants(os.getpid()) if b"VLLM::" in command_line(pid)]
    blocked = {
        command_line(pid): bool(int(known(re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text()))[1], 16) & 2)
        for pid in engines
    }

    assert engines
    assert blocked == dict.fromkeys(blocked, True)


def test_a_closed_sampler_raises(sampler: VllmSampler) -> None:
    """The last test of this module: it ends the engine."""
    with sampler.stream() as stream:
        stream.submit([group(0, "Tell me a long story.", 8, max_tokens=400)])
        sampler.close()
        with pytest.raises(EngineError, match="the engine was stopped"):
            stream.take(20)
    with pytest.raises(EngineError, match="the engine was stopped"):
        sampler.stream()


def test_every_data_parallel_rank_is_filled(warm_engines: None) -> None:
    """Two ranks of two sequences: eight completions are given to the engine, four to each rank, and the ranks' samples differ."""
    spec = VllmEngine(
        max_model_len=256, max_num_seqs=2, data_parallel_size=2, kv_cache_gib=1, enforce_eager=True, options={"block_size": 32}
    )
    ranks: list[dict[Any, dict[str, int]]] = []
    with (
        VllmSampler(spec, embedded_model(), prompt_format="chat", quota=Quota(0), seeds="auto", start=lambda: (1, 7)) as opened,
        opened.stream() as stream,
    ):
        assert opened.facts.sequences == 4

        async def look() -> None:
            ranks.append(requests_of(opened._process.engine))

        stream.submit([group(number, STORIES[0], 2, max_tokens=30, ignore_eos=True) for number in range(6)])
        drawn: list[Drawn] = []
        while len(drawn) < 6:
            drawn += stream.take(0.5)
            opened._process.run(look())

    in_flight = [sum(map(len, requests.values())) for requests in ranks]
    assert max(in_flight) == 8
    fullest = ranks[in_flight.index(8)]
    assert sorted(map(len, fullest.values())) == [4, 4]
    texts = [completion.text for result in drawn for completion in result.completions]
    assert len(set(texts)) == len(texts) == 12
