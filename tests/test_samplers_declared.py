"""What a recipe forces: the fields of requests, and which tokens are left out of the calibration."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from helpers import http_sampler
from helpers.thinking_model import MARKS, thinking_model
from helpers.vllm_server import serving
from schemas.engines import ModelSpec, VllmEngine
from schemas.sample import Message
from schemas.sampling import Sampling
from thresher.estimators.calibration import Calibration, Quota, calibrations, merged
from thresher.inputs.thinking import budget_marks, marking_of
from thresher.samplers.declared import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    changes_distribution,
    declared_words,
    forced_positions,
    free_tokens,
    logprobs_kind,
    response_format,
    temperature_fault,
    template_with_effort,
    vllm_structure,
)
from thresher.samplers.sampler import NEUTRAL, Completion, Drawn, Group
from thresher.samplers.vllm_offline import VllmSampler

START, END = np.array([1]), np.array([2])
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["n"],
    "additionalProperties": False,
}


def forced(drawn: list[int], prompt: list[int], budget: int) -> list[int]:
    return list(np.flatnonzero(forced_positions(np.array(drawn), np.array(prompt), (START, END), budget)))


@pytest.mark.parametrize(
    ("drawn", "prompt", "budget", "expected"),
    [
        pytest.param([7, 7, 7, 2, 8], [9, 1], 3, [3], id="the prompt opens, the budget ends it"),
        pytest.param([7, 7, 2, 8, 8], [9, 1, 7], 3, [2], id="tokens of thinking in the prompt count"),
        pytest.param([2, 8, 8], [9, 1, 7, 7], 2, [0], id="the prompt spends the budget"),
        pytest.param([7, 2, 8, 8, 8], [9, 1], 3, [], id="the model ends it before"),
        pytest.param([7, 7, 2, 8], [9, 1], 2, [2], id="the model may have ended it at the same token"),
        pytest.param([1, 7, 7, 2, 8], [9], 2, [3], id="the completion opens it"),
        pytest.param([7, 8, 8, 8], [9], 2, [], id="nobody opens it"),
        pytest.param([7, 8, 8, 8], [1, 7, 2, 9], 2, [], id="the prompt closes it"),
        pytest.param([7, 2, 1, 7, 7, 7], [9, 1], 3, [3, 4, 5], id="all of a second section"),
        pytest.param([2, 7, 1, 7], [9], 3, [1, 2, 3], id="all after a stray end"),
        pytest.param([7, 7], [9, 1], 5, [], id="cut before the budget"),
    ],
)
def test_the_forced_end_of_thinking_is_found(drawn: list[int], prompt: list[int], budget: int, expected: list[int]) -> None:
    assert forced(drawn, prompt, budget) == expected


def test_what_is_masked_follows_from_the_tokens_before() -> None:
    """Otherwise the tokens that are left would be chosen by what they are, which is a bias."""
    choose = random.Random(3)
    for _ in range(300):
        tokens = [choose.choice([1, 2, 7, 7, 7, 8]) for _ in range(20)]
        prompt = choose.choice([[9, 1], [9], [9, 1, 7], [1, 2, 9]])
        whole = forced_positions(np.array(tokens), np.array(prompt), (START, END), 4)
        for end in range(20):
            other = [*tokens[:end], choose.choice([1, 2, 7, 8])]
            assert forced_positions(np.array(other), np.array(prompt), (START, END), 4)[end] == whole[end]


@pytest.mark.slow
def test_every_token_that_vllm_forces_is_masked() -> None:
    """Its own bookkeeping, on random completions with marks of one to three tokens, opened by the prompt or not."""
    choose = random.Random(11)
    regular = same = 0
    for _ in range(1500):
        start, end = [1, 3, 4][: choose.choice([1, 1, 2, 3])], [2, 5, 6][: choose.choice([1, 1, 2, 3])]
        prompt = [7, 8, 9, *choose.choice([[], [*start], [*start, 7, 7], [*start, 7, *end, 8]])]
        pieces = [choose.choices([start, end, [choose.choice([3, 5, 7, 8])]], [0.02, 0.03, 0.95])[0] for _ in range(40)]
        budget = choose.choice([0, 1, 2, 5, 10, 30])
        drawn, by_vllm = vllm_forces(prompt, start, end, budget, [token for piece in pieces for token in piece][:40])
        masked = forced_positions(np.array(drawn), np.array(prompt), (np.array(start), np.array(end)), budget)

        assert not (by_vllm & ~masked).any(), (prompt, start, end, budget, drawn)
        if prompt[3:] == start and by_vllm.any():
            regular += 1
            same += bool((by_vllm == masked).all())
    assert regular > 100
    assert same > 0.5 * regular


def vllm_forces(prompt: list[int], start: list[int], end: list[int], budget: int, draws: list[int]) -> tuple[list[int], Any]:
    """The tokens of a completion whose free draws are these, and which of them vLLM forced."""
    import torch
    from vllm import SamplingParams
    from vllm.config.reasoning import ReasoningConfig
    from vllm.v1.sample.logits_processor.interface import BatchUpdate
    from vllm.v1.sample.thinking_budget_state import ThinkingBudgetStateHolder

    config = ReasoningConfig()
    config._reasoning_start_token_ids = start
    config._reasoning_end_token_ids = config._natural_reasoning_end_token_ids = end
    holder = ThinkingBudgetStateHolder(config, 1, 0, torch.device("cpu"), False)
    drawn: list[int] = []
    added = (0, SamplingParams(thinking_token_budget=budget), prompt, drawn)
    holder.sync_batch(BatchUpdate(batch_size=1, removed=[], added=[added], moved=[]))
    by_vllm = []
    for token in draws:
        holder.update_state([drawn], None, None)
        logits = holder.apply_to_logits(torch.zeros(1, 12), False, [])
        by_vllm.append(bool((logits > 1e8).any()))
        drawn.append(int(logits.argmax()) if by_vllm[-1] else token)
    return drawn, np.array(by_vllm)


def test_without_the_marks_only_the_first_tokens_are_surely_free() -> None:
    assert (free_tokens({"thinking_tokens": 100}), free_tokens({"thinking_tokens": 3}), free_tokens({})) == (92, 0, None)


def test_an_effort_is_an_argument_of_the_template_as_vllm_sends_it() -> None:
    assert template_with_effort('{"a":1}', {}) == '{"a":1}'
    assert json.loads(template_with_effort(None, {"reasoning_effort": "low"}) or "") == {
        "reasoning_effort": "low",
        "enable_thinking": True,
    }
    own = template_with_effort('{"enable_thinking":true,"reasoning_effort":"high"}', {"reasoning_effort": "none"})
    assert json.loads(own or "") == {"reasoning_effort": "none", "enable_thinking": True}


def test_structures_by_the_names_of_the_engines() -> None:
    assert vllm_structure({"json_schema": SCHEMA}) == {"json": SCHEMA}
    assert vllm_structure({"choice": ["a"]}) == {"choice": ["a"]}
    assert response_format({"json_schema": SCHEMA})["json_schema"]["schema"] == SCHEMA


def test_what_is_declared_in_words() -> None:
    parameters = {"thinking_tokens": 256, "reasoning_effort": "low", "structured": {"regex": "a, b"}}

    assert declared_words(parameters) == ["thinking_tokens 256", "reasoning_effort low", "structured output (regex)"]
    assert declared_words({}) == []
    assert (logprobs_kind("raw", parameters), logprobs_kind("raw", {}), logprobs_kind(None, parameters)) == (
        "structured",
        "raw",
        None,
    )


# -- with vLLM -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory, warm_engines: None) -> Iterator[VllmSampler]:
    model = thinking_model(tmp_path_factory.mktemp("thinks"))
    spec = VllmEngine(dtype="float32", max_model_len=512, kv_cache_gib=1, enforce_eager=True, options={"block_size": 32})
    marking = marking_of(spec_of(model.path), model.path)
    with VllmSampler(
        spec,
        model,
        prompt_format="chat",
        marking=marking,
        budget_marks=budget_marks(marking),
        quota=Quota(1e-9),
        seeds="auto",
        start=lambda: (1, 1001),
    ) as opened:
        yield opened


def spec_of(path: str) -> ModelSpec:
    return ModelSpec(name=path)


def draw(sampler: VllmSampler, n: int, text: str = "Tell me a story.", *, keep_top: int = 0, **parameters: Any) -> Drawn:
    values = {**NEUTRAL, "max_tokens": 40, "stop": [], **parameters}
    group = Group(1, (Message("user", text),), n, values, tuple(range(n)), tuple(range(n)), keep_top=keep_top)
    with sampler.stream() as stream:
        stream.submit([group])
        while not (drawn := stream.take(1.0)):
            pass
    return drawn[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("structured", "fits"),
    [
        pytest.param({"choice": ["yes", "no", "perhaps"]}, lambda text: text in ("yes", "no", "perhaps"), id="choice"),
        pytest.param({"regex": "[0-9]{3}-[a-c]{2,4}x"}, lambda text: re.fullmatch("[0-9]{3}-[a-c]{2,4}x", text), id="regex"),
        pytest.param({"json_schema": SCHEMA}, lambda text: Draft202012Validator(SCHEMA).is_valid(json.loads(text)), id="json"),
    ],
)
def test_completions_have_the_form_and_none_is_calibrated(sampler: VllmSampler, structured: dict[str, Any], fits: Any) -> None:
    drawn = draw(sampler, 16, "Is it so?", max_tokens=60, structured=structured, reasoning_effort="none", keep_top=5)
    whole = [completion for completion in drawn.completions if completion.finish_reason == "stop"]
    [test] = calibrations(merged([("a", "structured output (x)", drawn.tokens - drawn.masked, drawn.calibration, drawn.masked)]))

    assert len(whole) >= 12
    assert all(fits(completion.text.removesuffix("<|im_end|>")) for completion in whole), [c.text for c in whole]
    assert (test.tokens, test.masked, test.tested) == (0, drawn.tokens, False)
    assert test.status == "not tested: masked: all tokens may be forced by structured output (x)"


@pytest.mark.slow
def test_log_probabilities_under_a_structure_are_those_of_the_structure(sampler: VllmSampler) -> None:
    """vLLM masks the logits before it takes their logarithm. Were they the model's own, each would be far less likely."""
    drawn = draw(sampler, 8, structured={"choice": ["zebra", "quartz"]}, reasoning_effort="none", keep_top=4)
    first = [completion.top_logprobs[0] for completion in drawn.completions if completion.top_logprobs is not None]

    assert len(first) == 8
    assert np.exp(np.array(first)).sum(axis=1) == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_the_budget_ends_the_thinking_and_its_mark_is_masked(sampler: VllmSampler) -> None:
    """The prompt ends in <think> and a line break, which is the first token of the budget."""
    drawn = draw(sampler, 48, thinking_tokens=12)
    start, end = (sampler._tokeniser.completion(mark)[0] for mark in MARKS)
    ends = [np.flatnonzero(c.token_ids == end).tolist() for c in drawn.completions if c.token_ids is not None]
    lengths = [len(c.token_ids) for c in drawn.completions if c.token_ids is not None]
    by_budget = [places for places in ends if places[:1] == [11]]

    assert drawn.opened
    assert drawn.prompt_ids is not None
    assert drawn.prompt_ids.tolist()[-2] == start
    assert all(places and places[0] <= 11 for places, length in zip(ends, lengths, strict=True) if length > 11), ends
    assert len(by_budget) >= 10
    assert len(by_budget) <= drawn.masked < drawn.tokens
    assert min(c.logprobs[11] for c in drawn.completions if c.logprobs is not None and len(c.logprobs) > 11) < -5


STORIES = ["Tell me a story.", "Describe a city.", "Why do people travel?", "What is a cloud?"]


def calibrated(sampler: VllmSampler) -> Calibration:
    """Of short completions, so that a large share of their tokens is forced."""
    drawn = [draw(sampler, 96, text, max_tokens=9, thinking_tokens=3 + number) for number, text in enumerate(STORIES)]
    parts = [("a", "thinking_tokens 8", group.tokens - group.masked, group.calibration, group.masked) for group in drawn]
    [test] = calibrations(merged(parts))
    print(test)
    return test


@pytest.mark.slow
def test_tokens_that_are_not_forced_are_calibrated_without_bias(sampler: VllmSampler) -> None:
    test = calibrated(sampler)

    assert test.tokens > 1500
    assert test.masked > 200
    assert not test.exceeds
    assert test.status == f"tested; masked: {test.masked} tokens that may be forced by thinking_tokens 8"


@pytest.mark.slow
def test_forced_marks_that_are_not_left_out_are_found(sampler: VllmSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test of the one before has the power to find them."""
    assert sampler._start is not None
    monkeypatch.setattr(sampler, "_start", replace(sampler._start, budget_marks=None))
    test = calibrated(sampler)

    assert test.masked == 0
    assert "tail" in {score.event for score in test.exceeds}


@pytest.mark.slow
def test_the_likeliest_tokens_of_each_position_are_kept(sampler: VllmSampler) -> None:
    """They are ranked, the same for equal prefixes, and agree with the log-probabilities of the drawn tokens."""
    drawn = draw(sampler, 8, reasoning_effort="none", keep_top=3, max_tokens=20)
    firsts = set()
    for completion in drawn.completions:
        assert completion.top_ids is not None
        assert completion.top_logprobs is not None
        assert completion.token_ids is not None
        assert completion.logprobs is not None
        assert completion.top_ids.shape == completion.top_logprobs.shape == (len(completion.token_ids), 3)
        assert (np.diff(completion.top_logprobs, axis=1) <= 0).all()
        position, rank = np.nonzero(completion.top_ids == completion.token_ids[:, None])
        assert len(position) >= 5
        assert completion.top_logprobs[position, rank] == pytest.approx(completion.logprobs[position], abs=1e-6)
        firsts.add(tuple(completion.top_ids[0].tolist()))
    assert len(firsts) == 1


@pytest.mark.slow
def test_an_effort_of_none_leaves_the_thinking_closed(sampler: VllmSampler) -> None:
    assert draw(sampler, 1, max_tokens=2).opened
    assert not draw(sampler, 1, max_tokens=2, reasoning_effort="none").opened


def test_the_model_of_these_tests_names_its_marks(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ '<think>\n' }}", encoding="utf-8")
    tokens = [{"content": mark} for mark in MARKS]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}), encoding="utf-8")

    assert budget_marks(marking_of(spec_of("thinks"), str(tmp_path))) == MARKS


# -- with vLLM's server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    marks = json.dumps(dict(zip(("reasoning_start_str", "reasoning_end_str"), MARKS, strict=True)))
    with serving(thinking_model(folder / "model").path, folder / "log", "--reasoning-config", marks) as url:
        yield url


def over_http(
    url: str, n: int, text: str = "Tell me a story.", *, keep_top: int = 0, quota: float = 0, **parameters: Any
) -> Drawn:
    values = {**NEUTRAL, "max_tokens": 30, "stop": [], **parameters}
    group = Group(1, (Message("user", text),), n, values, keep_top=keep_top)
    [drawn] = http_sampler.draw(http_sampler.sampler(url, quota=Quota(quota)), [group], 300)
    return drawn


@pytest.mark.slow
def test_a_server_forces_what_the_recipe_asks(server: str) -> None:
    """Forms, an effort of none, and the end of the thinking, which comes where the engine in this process writes it."""
    choice = over_http(server, 4, structured={"choice": ["yes", "no"]}, reasoning_effort="none")
    form = {"json_schema": SCHEMA}
    schema = over_http(server, 16, "Is it so?", structured=form, reasoning_effort="none", max_tokens=60, quota=0.01)
    budget = over_http(server, 16, thinking_tokens=12, quota=0.01)
    whole = [completion.text for completion in schema.completions if completion.finish_reason == "stop"]
    end = thinking_tokens_of(server)[1]
    places = [np.flatnonzero(c.token_ids == end).tolist() for c in budget.completions if c.token_ids is not None]

    assert {completion.text for completion in choice.completions} <= {"yes", "no"}
    assert len(whole) >= 8, [completion.text for completion in schema.completions]
    assert all(Draft202012Validator(SCHEMA).is_valid(json.loads(text)) for text in whole)
    assert schema.masked == schema.tokens
    assert choice.prompt_ids is not None
    assert budget.prompt_ids is not None
    assert len(budget.prompt_ids) == len(choice.prompt_ids) + 2
    assert sum(found[:1] == [11] for found in places) >= 3
    assert all(found and found[0] <= 11 for found, c in zip(places, budget.completions, strict=True) if len(ids_of(c)) > 11)
    assert budget.masked == sum(max(0, len(ids_of(c)) - 4) for c in budget.completions)


@pytest.mark.slow
def test_a_server_lists_the_likeliest_tokens_as_the_engine_in_this_process(server: str, sampler: VllmSampler) -> None:
    """At the first position, which all completions share. 19 is the most that a chat server surely lists."""
    served = over_http(server, 3, keep_top=19, reasoning_effort="none").completions
    here = draw(sampler, 3, keep_top=19, reasoning_effort="none", max_tokens=5).completions[0]

    assert here.top_ids is not None
    assert here.top_logprobs is not None
    for completion in served:
        assert completion.top_ids is not None
        assert completion.top_logprobs is not None
        assert completion.top_ids.shape == (len(ids_of(completion)), 19)
        assert completion.top_ids[0].tolist() == here.top_ids[0].tolist()
        assert completion.top_logprobs[0] == pytest.approx(here.top_logprobs[0], abs=1e-3)


def ids_of(completion: Completion) -> Any:
    assert completion.token_ids is not None
    return completion.token_ids


def thinking_tokens_of(url: str) -> list[int]:
    """The tokens of the marks, from the server's own tokenizer."""
    address = url.removesuffix("/v1") + "/tokenize"
    body = {"model": "small", "prompt": "".join(MARKS), "add_special_tokens": False}
    return list(httpx.post(address, json=body, trust_env=False).json()["tokens"])


@pytest.mark.parametrize(
    ("temperatures", "why"),
    [((0.005, 1.0), "raises temperatures below 0.01"), ((1.0, 2.5), "refuses temperatures above 2"), ((0.01, 2.0), None)],
)
def test_temperatures_that_vllm_would_change_are_told(temperatures: tuple[float, ...], why: str | None) -> None:
    fault = temperature_fault(temperatures)

    assert fault is None if why is None else why in (fault or "")


@pytest.mark.slow
def test_what_vllm_does_with_a_low_and_a_high_temperature() -> None:
    """The reason for the limits."""
    from vllm import SamplingParams

    assert SamplingParams(temperature=0.005).temperature == LEAST_TEMPERATURE
    with pytest.raises(Exception, match="temperature must be in"):
        SamplingParams(temperature=MOST_TEMPERATURE + 0.1)


def test_a_recipe_changes_the_distribution_by_temperature_truncation_or_penalty() -> None:
    assert not changes_distribution(Sampling())
    for name, value in {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1}.items():
        assert changes_distribution(Sampling.model_validate({name: value})), name
