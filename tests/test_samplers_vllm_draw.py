"""Completions and labels from vLLM's outputs, with an engine that returns fixed ones. Importing vLLM takes seconds."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from schemas.sample import Message
from thresher.errors import EngineError
from thresher.estimators.calibration import TOP_K, Quota
from thresher.samplers.sampler import NEUTRAL, Drawn, Group
from thresher.samplers.vllm_draw import EngineStart, draw_group, label_tokens
from thresher.samplers.vllm_process import Tokeniser

SPELLINGS = {"A": [5], " A": [6], "B": [7], " B": [7], "neither": [8, 9], " neither": [10, 9]}


class FakeTokeniser:
    def completion(self, text: str) -> list[int]:
        return SPELLINGS[text]


class FakeEngine:
    """Answers with completions of tokens 1 and 2; `spoil` changes an output."""

    def __init__(self, spoil: Any = None) -> None:
        self.parameters: list[Any] = []
        self._spoil = spoil or (lambda output: output)

    async def generate(self, prompt: Any, parameters: Any, request_id: str, **further: Any) -> AsyncIterator[Any]:
        self.further = further
        assert prompt["prompt_token_ids"] == [3, 4]
        self.parameters.append((parameters, request_id))
        width = 1 + parameters.logprobs if parameters.logprobs else 1
        flat = SimpleNamespace(
            token_ids=[1, *range(1, width), 2, *range(1, width)],
            logprobs=[-0.5, *np.log(np.full(width - 1, 0.5 / width)), -1.5, *np.log(np.full(width - 1, 0.5 / width))],
            start_indices=[0, width],
        )
        output = SimpleNamespace(text="one two", token_ids=[1, 2], logprobs=flat, finish_reason="stop", stop_reason=2)
        yield self._spoil(SimpleNamespace(outputs=[output] * parameters.n))


def start(engine: FakeEngine, *, seeds_each_sample: bool = False) -> EngineStart:
    return EngineStart(engine, 3, 99, seeds_each_sample, cast("Tokeniser", FakeTokeniser()))


def group(n: int, **parameters: Any) -> Group:
    values = {**NEUTRAL, "max_tokens": 10, "stop": [], **parameters}
    return Group(4, (Message("user", "Hello"),), n, values, tuple(range(100, 100 + n)), tuple(range(n)))


def draw(engine_start: EngineStart, drawn_group: Group, quota: Quota | None = None) -> Drawn:
    return asyncio.run(draw_group(engine_start, quota or Quota(0), drawn_group, [3, 4]))


def test_labels_have_the_tokens_that_spell_them_alone() -> None:
    """With and without a space; none for a label of several tokens."""
    assert label_tokens(cast("Tokeniser", FakeTokeniser()), ("A", "B", "neither")) == [[5, 6], [7], []]


@pytest.mark.slow
def test_a_group_is_one_request_with_all_parameters() -> None:
    engine = FakeEngine()
    drawn = draw(start(engine), group(2, top_p=0.9))
    [(parameters, _)] = engine.parameters

    assert (parameters.n, parameters.seed, parameters.logprobs, parameters.max_tokens) == (2, None, 0, 10)
    assert (parameters.top_p, parameters.temperature, parameters.min_p) == (0.9, 1.0, 0.0)
    assert (drawn.number, drawn.source, drawn.engine_seed, drawn.calibration) == (4, "start 3", 99, None)
    assert drawn.prompt_ids is not None and drawn.prompt_ids.tolist() == [3, 4]
    for completion in drawn.completions:
        assert completion.token_ids is not None and completion.token_ids.tolist() == [1, 2]
        assert completion.logprobs is not None and completion.logprobs.tolist() == [-0.5, -1.5]
        assert (completion.cumulative_logprob, completion.stop_reason, completion.seed) == (-2.0, "2", None)


@pytest.mark.slow
def test_each_sample_has_a_request_where_seeds_are_its_own() -> None:
    """Not if it is greedy."""
    engine = FakeEngine()
    drawn = draw(start(engine, seeds_each_sample=True), group(3))

    assert [(parameters.n, parameters.seed) for parameters, _ in engine.parameters] == [(1, 100), (1, 101), (1, 102)]
    assert len({request_id for _, request_id in engine.parameters}) == 3
    assert [completion.seed for completion in drawn.completions] == [100, 101, 102]
    greedy = draw(start(engine, seeds_each_sample=True), group(1, temperature=0.0))
    assert greedy.completions[0].seed is None


@pytest.mark.slow
def test_calibration_stops_with_the_quota() -> None:
    engine, quota = FakeEngine(), Quota(0.3)
    engine_start = start(engine)
    drawn = [draw(engine_start, group(2), quota) for _ in range(5)]
    calibrated = [result.calibration is not None for result in drawn]

    assert calibrated[0]
    assert not calibrated[-1]
    assert [parameters.logprobs == TOP_K for parameters, _ in engine.parameters] == calibrated


@pytest.mark.slow
def test_a_request_that_fails_gives_its_quota_back() -> None:
    quota = Quota(0.5)
    engine_start = start(FakeEngine(lambda output: SimpleNamespace(outputs=[])))
    for _ in range(2):
        with pytest.raises(EngineError, match="asked vLLM for 2 completions, got 0"):
            draw(engine_start, group(2), quota)

    assert quota.take("start 3", 1)


@pytest.mark.slow
def test_a_missing_logprob_is_an_error() -> None:
    def shorten(output: Any) -> Any:
        output.outputs[0].logprobs.start_indices.pop()
        return output

    with pytest.raises(EngineError, match="vLLM gave 1 log-probabilities for 2 tokens"):
        draw(start(FakeEngine(shorten)), group(1))


@pytest.mark.slow
def test_a_label_of_one_token_has_a_logprob() -> None:
    def choose(output: Any) -> Any:
        listed = {5: np.log(0.25), 6: np.log(0.5), 7: np.log(0.125)}
        output.outputs[0].logprobs = [{token: SimpleNamespace(logprob=value) for token, value in listed.items()}]
        return output

    engine = FakeEngine(choose)
    drawn = draw(start(engine), replace(group(1, temperature=0.0), labels=("A", "B")))
    [(parameters, _)] = engine.parameters

    assert parameters.logprob_token_ids == [5, 6, 7]
    assert parameters.max_tokens == 1
    assert list(drawn.completions[0].label_logprobs or ()) == pytest.approx([np.log(0.75), np.log(0.125)])


@pytest.mark.slow
def test_labels_of_several_tokens_are_asked_for_by_structured_output() -> None:
    engine = FakeEngine()
    drawn = draw(start(engine), replace(group(1, temperature=0.0), labels=("A", "neither")))
    [(parameters, _)] = engine.parameters

    assert parameters.structured_outputs.choice == ["A", "neither"]
    assert parameters.max_tokens == 3
    assert drawn.completions[0].label_logprobs is None


def test_every_request_names_the_adapter() -> None:
    """Without one nothing is said."""
    engine, adapter = FakeEngine(), cast("Any", object())
    draw(start(engine), group(2))
    assert engine.further == {}
    draw(replace(start(engine), adapter=adapter), group(2))
    assert engine.further == {"lora_request": adapter}


# -- what is kept, and what is forced --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_likeliest_tokens_are_asked_for_and_kept() -> None:
    """As many as are kept, or as the calibration needs. All are equally likely here, so they are ordered by id."""
    for quota, asked in ((Quota(0), 3), (Quota(0.5), TOP_K)):
        engine = FakeEngine()
        drawn = draw(start(engine), replace(group(2), keep_top=3), quota)

        assert [parameters.logprobs for parameters, _ in engine.parameters] == [asked]
        assert (drawn.calibration is not None) == (asked == TOP_K)
        for completion in drawn.completions:
            assert completion.top_ids is not None
            assert completion.top_logprobs is not None
            assert completion.top_ids.tolist() == [[1, 2, 3]] * 2
            assert completion.top_logprobs == pytest.approx(np.log(0.5 / (asked + 1)))
            assert completion.top_ids.dtype == np.int32
            assert completion.top_logprobs.dtype == np.float32


@pytest.mark.slow
def test_no_lists_are_kept_unless_asked_for() -> None:
    drawn = draw(start(FakeEngine()), group(1), Quota(0.5))

    assert drawn.completions[0].top_ids is None


@pytest.mark.slow
def test_a_form_is_handed_to_vllm_and_its_tokens_are_masked() -> None:
    engine, quota = FakeEngine(), Quota(0.5)
    drawn = draw(start(engine), group(2, structured={"choice": ["one two"]}), quota)
    anchor = draw(start(engine), group(1, structured={"choice": ["one two"]}, temperature=0.0), quota)
    [(parameters, _), _] = engine.parameters

    assert (parameters.structured_outputs.choice, parameters.logprobs) == (["one two"], 0)
    assert drawn.calibration is not None
    assert (drawn.calibration.sum(), drawn.masked, drawn.tokens) == (0, 4, 4)
    assert (anchor.calibration, anchor.masked) == (None, 0)
    assert quota.take("start 3", 1)


@pytest.mark.slow
def test_the_forced_end_of_thinking_is_masked() -> None:
    """The prompt 3, 4 ends in the mark 4; with a budget of 1 the second token is forced."""
    marks = (np.array([4], np.int32), np.array([2], np.int32))
    engine = FakeEngine()
    drawn = draw(replace(start(engine), budget_marks=marks), group(2, thinking_tokens=1, reasoning_effort="low"), Quota(0.5))
    [(parameters, _)] = engine.parameters

    assert parameters.thinking_token_budget == 1
    assert drawn.masked == 2
    assert drawn.calibration is not None
    assert drawn.calibration[:, 0].sum() == 2
