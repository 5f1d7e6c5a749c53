"""Draws one group from a running vLLM engine: its completions with log-probabilities, or one of several labels."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.sample import Message
from thresher.errors import EngineError
from thresher.estimators.calibration import TOP_K, Quota, Sums, empty_sums, from_flat, sums, whole
from thresher.samplers.declared import forced_positions, forces_all, vllm_parameters
from thresher.samplers.sampler import Completion, Drawn, Group
from thresher.samplers.vllm_process import Tokeniser, in_words

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.outputs import CompletionOutput

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineStart:
    """One start of the engine: an engine that is started again gets another number and another seed."""

    engine: Any
    """vLLM's AsyncLLM."""
    number: int
    seed: int
    seeds_each_sample: bool
    tokeniser: Tokeniser
    adapter: "LoRARequest | None" = None
    """The adapter that every request is drawn with."""
    budget_marks: tuple[NDArray[np.int32], ...] | None = None
    """Tokens of the marks of the thinking, if groups have a budget of it."""
    request_ids: "count[int]" = field(default_factory=count)

    @property
    def source(self) -> str:
        """Recorded with each sample."""
        return f"start {self.number}"

    async def generate(self, tokens: list[int], parameters: "SamplingParams") -> Any:
        """Return vLLM's final output for a prompt, None if there is none."""
        from vllm import TokensPrompt

        final = None
        prompt = TokensPrompt(prompt_token_ids=tokens)
        further = {} if self.adapter is None else {"lora_request": self.adapter}
        async for output in self.engine.generate(prompt, parameters, str(next(self.request_ids)), **further):
            final = output
        return final


def seeds_each_sample(seeds: str) -> bool:
    """Return whether each completion gets a seed of its own under the recipe's setting.

    vLLM's CPU engine dies of such a seed when the prompt is prefilled in pieces (it rewinds the generator, which CPU generators
    do not support), so there only the whole engine is seeded.
    """
    from vllm.platforms import current_platform

    if seeds == "sample" and current_platform.is_cpu():
        raise EngineError("sampling.seeds: vLLM's CPU engine dies of seeded requests under load; use auto or engine")
    return seeds == "sample" or (seeds == "auto" and not current_platform.is_cpu())


async def draw_group(start: EngineStart, quota: Quota, group: Group, tokens: list[int], *, opened: bool | None = None) -> Drawn:
    """Draw a group whose prompt has these tokens and, if `opened`, ends inside thinking marks. Its log-probabilities are
    calibrated as far as the quota allows."""
    if group.labels:
        return await _choose_label(start, group, tokens)
    expected = group.n * int(group.parameters["max_tokens"]) // 2
    hot = group.parameters["temperature"] > 0
    masked_whole = hot and forces_all(group.parameters) and not quota.off
    calibrated = hot and not masked_whole and quota.take(start.source, expected)
    calibration: Sums | None = empty_sums() if masked_whole else None
    drawn_tokens = masked = 0
    seeds: Sequence[int | None] = [None] * group.n
    if start.seeds_each_sample and hot and group.seeds:
        seeds = group.seeds
    try:
        listed = max(TOP_K if calibrated else 0, group.keep_top)
        outputs = await _outputs(start, group, tokens, seeds, listed)
        lists = [_listed(output, listed) for output in outputs] if listed else []
        completions = tuple(_completion(output, seed) for output, seed in zip(outputs, seeds, strict=True))
        if group.keep_top:
            completions = tuple(map(partial(_with_top, group.keep_top), completions, lists))
        if calibrated:
            calibration, masked = _calibrate(start, group, tokens, lists)
        drawn_tokens = sum(len(output.token_ids) for output in outputs)
        masked = drawn_tokens if masked_whole else masked
    finally:
        if calibrated:
            quota.settle(start.source, expected, drawn_tokens - masked, calibration)
    prompt = np.asarray(tokens, np.int32)
    return Drawn(group.number, completions, prompt, start.seed, start.source, calibration, opened=opened, masked=masked)


async def refused(start: EngineStart, group: Group, error: Exception, works: Callable[[], bool]) -> Drawn:
    """Return the outcome of a group that a working engine raised an error for, because of its prompt. Raises the error if a short
    prompt with the same parameters has none either, and what the engine raises if it dies meanwhile (`works` tells)."""
    words = EngineError(f"vLLM: {in_words(error)}")
    parameters = {**group.parameters, "max_tokens": 1}
    short = replace(group, messages=(Message("user", "Hello"),), n=1, parameters=parameters, tools=None, keep_top=0)
    try:
        await draw_group(start, Quota(0), short, start.tokeniser.prompt(start.tokeniser.text(short.messages, to_continue=True)))
    except Exception:
        if not works():
            raise
        raise words from error
    log.info("a prompt is undecided: %s", words)
    return Drawn(group.number, (), error=str(words), refused=True)


Listed = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""The drawn tokens (T,), the k likeliest in order (T, k), and their log-probabilities (T, k)."""


def _listed(output: "CompletionOutput", k: int) -> Listed:
    flat = output.logprobs
    return from_flat((flat.token_ids, flat.logprobs, flat.start_indices), k)


def _with_top(k: int, completion: Completion, listed: Listed) -> Completion:
    """The completion with its k likeliest tokens, of as many or more that the engine listed."""
    _, top, logprobs = listed
    return replace(completion, top_ids=top[:, :k].astype(np.int32), top_logprobs=logprobs[:, :k].astype(np.float32))


def _calibrate(start: EngineStart, group: Group, prompt: Sequence[int], lists: Sequence[Listed]) -> tuple[Sums, int]:
    """The sums over the tokens that nothing forced and whose lists are whole, and the number of the others. The lists have TOP_K
    tokens or more."""
    calibration, masked = empty_sums(), 0
    budget = group.parameters.get("thinking_tokens")
    for drawn, top, logprobs in lists:
        free = whole(logprobs[:, :TOP_K])
        if budget is not None and start.budget_marks is not None:
            free &= ~forced_positions(drawn, np.asarray(prompt), (start.budget_marks[0], start.budget_marks[1]), budget)
        calibration += sums(drawn[free], top[free, :TOP_K], logprobs[free, :TOP_K])
        masked += len(drawn) - int(free.sum())
    return calibration, masked


async def _outputs(
    start: EngineStart, group: Group, tokens: list[int], seeds: Sequence[int | None], top_logprobs: int
) -> list["CompletionOutput"]:
    """All completions of a group: by one request, or by one request per seed."""

    async def request(n: int, seed: int | None) -> list["CompletionOutput"]:
        final = await start.generate(tokens, _parameters(group, n, seed, top_logprobs))
        if final is None or len(final.outputs) != n:
            raise EngineError(f"asked vLLM for {n} completions, got {0 if final is None else len(final.outputs)}")
        return list(final.outputs)

    if seeds[0] is not None:
        answers = await asyncio.gather(*(request(1, seed) for seed in seeds))
        return [output for answer in answers for output in answer]
    return await request(group.n, None)


def _parameters(group: Group, n: int, seed: int | None, top_logprobs: int) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=n,
        seed=seed,
        logprobs=top_logprobs,  # 0 is the log-probability of the sampled token, enough for rewards and ratios
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_special_tokens=False,  # marks of thinking and tool calls are special tokens; vLLM leaves out the one that ended it
        **vllm_parameters(group.parameters),
    )


def _completion(output: "CompletionOutput", seed: int | None) -> Completion:
    token_ids = np.asarray(output.token_ids, np.int32)
    flat = output.logprobs  # FlatLogprobs, as requested: the sampled token is the first of each position
    logprobs = np.asarray(flat.logprobs, np.float32)[np.asarray(flat.start_indices, np.int64)]
    if len(logprobs) != len(token_ids):
        raise EngineError(f"vLLM gave {len(logprobs)} log-probabilities for {len(token_ids)} tokens")
    stop = None if output.stop_reason is None else str(output.stop_reason)
    return Completion(output.text, output.finish_reason, stop, token_ids, logprobs, float(logprobs.sum(dtype=np.float64)), seed)


async def _choose_label(start: EngineStart, group: Group, tokens: list[int]) -> Drawn:
    """Choose a label: by log-probabilities if each label is one token, otherwise by structured output."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    ids = label_tokens(start.tokeniser, group.labels)
    by_logprobs = all(ids)
    special: dict[str, Any] = {"logprob_token_ids": [token for spellings in ids for token in spellings], "max_tokens": 1}
    if not by_logprobs:
        longest = max(len(start.tokeniser.completion(label)) for label in group.labels)
        choice = StructuredOutputsParams(choice=list(group.labels))
        special = {"structured_outputs": choice, "max_tokens": longest + 1}
    parameters = SamplingParams(**{**group.parameters, **special}, output_kind=RequestOutputKind.FINAL_ONLY)
    final = await start.generate(tokens, parameters)
    if final is None or not final.outputs:
        raise EngineError("asked vLLM for a label, got none")
    [output] = final.outputs
    logprobs = None
    if by_logprobs:
        [position] = output.logprobs
        spelt = [[position[token].logprob for token in spellings] for spellings in ids]
        logprobs = tuple(float(np.logaddexp.reduce(np.asarray(values, np.float64))) for values in spelt)
    completion = Completion(output.text, output.finish_reason, label_logprobs=logprobs)
    return Drawn(group.number, (completion,), np.asarray(tokens, np.int32), start.seed, start.source)


def label_tokens(tokeniser: Tokeniser, labels: tuple[str, ...]) -> list[list[int]]:
    """Return for each label the tokens that spell it, with and without a space before; none if it takes several tokens."""
    spellings = []
    for label in labels:
        encoded = [tokeniser.completion(text) for text in (label, f" {label}")]
        spellings.append(sorted({tokens[0] for tokens in encoded if len(tokens) == 1}))
    return spellings
