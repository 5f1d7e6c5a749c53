"""Draws a few samples of the first prompt of each family with the recipe's own engine, and shows them taken apart and judged."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa

from schemas.sample import Message, Outcome, Prompt
from schemas.suggest import did_you_mean
from thresher.errors import RecipeError
from thresher.inputs.prompts import plan
from thresher.inputs.recipe_file import Loaded
from thresher.judging.rendering import cut, turn_lines
from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.pool.wanted import answers
from thresher.running.probe import naming, probe

SAMPLES = 3
SHOWN_LINES = 12
COLUMNS = [
    "prompt_id", "family", "index", "anchor", "messages", "reference", "completion", "reasoning", "answer", "tool_calls",
    "reasoning_tokens", "finish_reason", "completion_ids", "logprobs", "temperature", "model", "unreadable", "error",
]  # fmt: skip


class Line(NamedTuple):
    """A line of a preview for a terminal."""

    text: str
    is_reasoning: bool = False


@dataclass(frozen=True)
class FilterVerdict:
    """The verdict of one filter on a sample. `detail` is JSON text."""

    filter: str
    outcome: str
    reason: str
    score: float | None
    detail: str | None


@dataclass(frozen=True)
class PreviewedSample:
    """A sample taken apart and judged. `tokens` is None if the engine does not report them; `error` is why it was not drawn.
    `reference` and `tool_calls` are JSON text. `outcome`, `kind`, `reason` and `failed_filter` are as in the pool."""

    family: str
    prompt_id: str
    messages: tuple[dict[str, Any], ...]
    reference: str | None
    model: str | None
    temperature: float | None
    index: int
    completion: str
    reasoning: str | None
    answer: str | None
    tool_calls: str | None
    tokens: int | None
    reasoning_tokens: int | None
    finish_reason: str | None
    error: str | None
    verdicts: tuple[FilterVerdict, ...]
    outcome: str
    kind: str | None
    reason: str
    failed_filter: str | None

    def lines(self) -> Iterator[Line]:
        """Yield the sample as lines of text."""
        hot = f" at temperature {self.temperature:g}" if self.temperature not in (None, 1.0) else ""
        facts = [] if self.tokens is None else [f"{self.tokens} tokens"]
        facts += [] if self.finish_reason is None else [f"ended by {self.finish_reason}"]
        yield Line(f"{self.family}, sample {self.index + 1}{hot}: {', '.join(facts) or 'not drawn'}")
        if self.error is not None:
            yield Line(f"  error: {self.error}")
            return
        if self.reasoning is not None:
            counted = f" ({self.reasoning_tokens} tokens)" if self.reasoning_tokens is not None else ""
            yield Line(f"  reasoning{counted}:", is_reasoning=True)
            yield from (Line(line, is_reasoning=True) for line in _shortened(self.reasoning))
        if self.answer is None:
            yield Line("  no answer: the completion ended inside its reasoning")
        else:
            yield Line("  answer:")
            yield from map(Line, _shortened(self.answer))
        for call in json.loads(self.tool_calls or "[]"):
            yield Line(cut(f"  tool call: {call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}"))
        for verdict in self.verdicts:
            words = [verdict.outcome, verdict.reason, verdict.detail or ""]
            yield Line(cut(f"  {verdict.filter}: {' '.join(filter(None, words))}"))
        ended = {Outcome.KEEP.value: "kept", Outcome.DROP.value: "dropped", Outcome.UNDECIDED.value: "undecided"}[self.outcome]
        by = "" if self.failed_filter is None else f" by {self.failed_filter}: {self.reason}"
        yield Line(f"  = {ended}{by}{'' if self.kind is None else f' ({self.kind})'}")


@dataclass(frozen=True)
class Previewed:
    """The samples, in the order of the families, and the seconds that the engine took to start and to draw."""

    samples: tuple[PreviewedSample, ...]
    start_s: float
    sampling_s: float

    @property
    def failed(self) -> bool:
        """Whether a sample could not be drawn."""
        return any(sample.error is not None for sample in self.samples)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per sample, without the messages."""
        return [{name: value for name, value in asdict(sample).items() if name != "messages"} for sample in self.samples]

    def lines(self) -> list[Line]:
        """Return prompts and samples as lines of text, long texts shortened."""
        lines: list[Line] = []
        before, model = None, None
        several = len({sample.model for sample in self.samples}) > 1
        for sample in self.samples:
            if several and sample.model != model:
                lines.append(Line(f"model {sample.model}"))
                before, model = None, sample.model
            if sample.prompt_id != before:
                lines += map(Line, [sample.family, *turn_lines(sample.messages)])
                lines += [] if sample.reference is None else [Line(cut(f"  reference: {sample.reference}"))]
            before = sample.prompt_id
            lines += sample.lines()
        hits = sum(sample.outcome == Outcome.KEEP.value for sample in self.samples)
        words = f"{len(self.samples)} samples, {hits} kept, drawn in {self.sampling_s:.1f} s"
        return [*lines, Line(f"{words} after {self.start_s:.1f} s for the engine to start; nothing is stored")]


def preview(loaded: Loaded, *, samples: int = SAMPLES, family: str | None = None) -> Previewed:
    """Draw `samples` samples of the first prompt of each family, or of one. Every filter that judges samples one by one judges
    all of them; samples of different prompts are not compared. Raises what a run raises; RecipeError for an unknown family."""
    if loaded.recipe.models:
        each = [_of_model(one, samples, family) for one in loaded.of_each_model()]
        every_sample = tuple(sample for previewed in each for sample in previewed.samples)
        return Previewed(every_sample, sum(shown.start_s for shown in each), sum(shown.sampling_s for shown in each))
    recipe = loaded.recipe
    exhaustive = recipe.model_copy(update={"audit": recipe.audit.model_copy(update={"exhaustive": True})})
    chosen = _first_prompts(loaded, family)
    if not chosen:  # a model may answer other prompts
        return Previewed((), 0.0, 0.0)
    with probe(replace(loaded, recipe=exhaustive), chosen, samples_per_prompt=samples, anchor=False) as probed:
        shown = [sample for shard in pool.sampled(probed.run.store) for sample in _samples(probed.run, shard)]
    return Previewed(tuple(shown), probed.start_s, probed.sampling_s)


def _of_model(one: Loaded, samples: int, family: str | None) -> Previewed:
    with naming(one.label):
        return preview(one, samples=samples, family=family)


# -- inside --------------------------------------------------------------------------------------------------------------


def _first_prompts(loaded: Loaded, family: str | None) -> list[Prompt]:
    names = list(dict.fromkeys(prompt_set.family for prompt_set in loaded.recipe.prompts))
    if family is not None and family not in names:
        raise RecipeError(f"--family: no family {family!r}{did_you_mean(family, names)}; the recipe has {', '.join(names)}")
    first: dict[str, Prompt] = {}
    for prompt in plan(loaded.recipe, loaded.base):
        if not answers(loaded.recipe.model, prompt.prompt_id, prompt.family):
            continue
        first.setdefault(prompt.family, prompt)
        if len(first) == len(names) or family in first:
            break
    return list(first.values()) if family is None else [first[family]] if family in first else []


def _samples(run: Run, shard: int) -> Iterator[PreviewedSample]:
    verdicts: dict[int, list[FilterVerdict]] = {}
    for row in pool.verdicts(run.store, shard)[0].to_pylist():
        verdict = FilterVerdict(row["filter"], row["outcome"], row["reason"], row["score"], row["detail"])
        verdicts.setdefault(row["row"], []).append(verdict)
    table: pa.Table = pool.read_judged(run.store, shard, COLUMNS)
    rows = sorted(enumerate(table.to_pylist()), key=lambda item: (item[1]["temperature"] or 0, item[1]["index"]))
    for number, row in rows:
        tokens = row["completion_ids"] if row["logprobs"] is None else row["logprobs"]
        yield PreviewedSample(
            messages=tuple(Message(**turn).as_chat() for turn in row["messages"]),
            tokens=None if tokens is None else len(tokens),
            verdicts=tuple(verdicts.get(number, ())),
            **{name: row[name] for name in _COPIED},
        )


_COPIED = [name for name in PreviewedSample.__dataclass_fields__ if name not in {"messages", "tokens", "verdicts"}]


def _shortened(text: str) -> Sequence[str]:
    lines = text.strip("\n").splitlines() or [""]
    shown = [cut(f"  | {line}") for line in lines[:SHOWN_LINES]]
    return shown if len(lines) <= SHOWN_LINES else [*shown, f"  ... {len(lines) - SHOWN_LINES} lines more"]
