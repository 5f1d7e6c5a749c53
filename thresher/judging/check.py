"""Checks a recipe without sampling: can its prompts be read and rendered, is what it needs there, and do its verifiers accept
right answers and refuse wrong ones?"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from filters.base import Filter, FilterError, Role, Scope
from filters.judging import judge
from filters.reasoning_gym import NONSENSE
from schemas.sample import SAMPLES, Outcome, Prompt, to_json
from thresher.errors import RecipeError
from thresher.inputs.parser_names import check_parsers
from thresher.inputs.prompts import Refusals, plan, prompts_of
from thresher.inputs.recipe_file import Loaded
from thresher.judging.build import Built, build_filters, opened_tools
from thresher.judging.reach import engine_faults, missing_packages, model_faults
from thresher.judging.rendering import Rendered, render
from thresher.pool import judged as pool
from thresher.pool.run import Run
from thresher.pool.wanted import answers

BATCH = 4096
SHOWN = 5
SHOWN_CHARS = 300


@dataclass(frozen=True)
class Trial:
    """How a verifier judged the references of its prompts, and wrong answers to them."""

    label: str
    prompts: int
    gold_kept: int
    wrong_dropped: int
    wrong_tried: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The result of a check; `faults` is empty when the recipe may run."""

    families: dict[str, int]
    trials: tuple[Trial, ...]
    self_tests: dict[str, str]
    """Results of the filters that test this machine, by label."""
    faults: tuple[str, ...]
    refused: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows that were left out because they cannot be carried, by family and reason."""
    rendered: tuple[Rendered, ...] = ()
    """The first prompt of each family as the model reads it."""
    notes: tuple[str, ...] = ()
    """What could not be checked."""

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of the tables families, refused, rendered, trials and self_tests; a row's `name` is its family or
        filter."""
        counts = ("tokens", "fewest", "most", "context", "too_long", "thinking")
        return {
            "families": [{"name": family, "prompts": prompts} for family, prompts in self.families.items()],
            "refused": [
                {"name": family, "reason": reason, "rows": rows}
                for family, reasons in self.refused.items()
                for reason, rows in reasons.items()
            ],
            "rendered": [
                {"name": entry.family, **({"model": entry.model} if entry.model else {})}
                | {name: getattr(entry, name) for name in counts}
                for entry in self.rendered
                if entry.tokens is not None
            ],
            "trials": [
                {"name": trial.label} | {name: value for name, value in asdict(trial).items() if name != "label"}
                for trial in self.trials
            ],
            "self_tests": [{"name": label, "said": result} for label, result in self.self_tests.items()],
        }

    def lines(self) -> list[str]:
        """Return what was tried as lines of text, without the faults."""
        return [
            *(line for entry in self.rendered for line in entry.lines()),
            *(
                f"{family}: {rows} rows left out: {reason}"
                for family, reasons in self.refused.items()
                for reason, rows in reasons.items()
            ),
            *(
                f"{trial.label}: {trial.gold_kept} of {trial.prompts} references accepted, "
                f"{trial.wrong_dropped} of {trial.wrong_tried} wrong answers refused"
                for trial in self.trials
            ),
            *(f"{label}: {result}" for label, result in self.self_tests.items()),
            *(f"not checked: {note}" for note in self.notes),
        ]


def check_recipe(loaded: Loaded) -> Report:
    """Read and render every prompt, look for engine, models and packages, build every filter, and try each verifier on every
    reference. Starts no engine. Raises RecipeError and SourceError where recipe or prompts cannot be read; other faults are
    listed in the report."""
    for one in loaded.of_each_model():
        check_parsers(one.recipe.model, one.recipe.engine, one.where)
    with opened_tools(loaded.recipe, loaded.base, loaded.home) as tools:
        return _checked(loaded, build_filters(loaded.recipe, tools, imported=False, where=loaded.where))


def _checked(loaded: Loaded, built: Sequence[Built]) -> Report:
    refused: Refusals = {}
    prompts = list(plan(loaded.recipe, loaded.base, refused=refused))
    families: dict[str, int] = {}
    for prompt in prompts:
        families[prompt.family] = families.get(prompt.family, 0) + 1
    rendered, faults, notes = _by_each_model(loaded, prompts)
    missing = missing_packages(built)
    faults += [*(f"{label}: {words}" for label, words in missing.items()), *model_faults(loaded.recipe, built)]
    trials, self_tests = [], {}
    for label, spec, filter_ in built:
        if label in missing:
            continue
        try:
            if filter_.self_test is not None:
                self_tests[label] = filter_.self_test()
            if _is_tried(filter_):
                judged = [prompt for prompt in prompts if spec.families is None or prompt.family in spec.families]
                trials.append(_trial(label, filter_, judged))
        except FilterError as error:
            faults.append(f"{label}: {error}")
    faults += [fault for trial in trials for fault in trial.faults]
    reasons = {family: dict(counts.most_common()) for family, counts in refused.items()}
    return Report(families, tuple(trials), self_tests, tuple(faults), reasons, rendered, tuple(notes))


def _by_each_model(loaded: Loaded, prompts: Sequence[Prompt]) -> tuple[tuple[Rendered, ...], list[str], list[str]]:
    """What each model is shown of the prompts that it answers, what is wrong with it or its engine, and what could not be found
    out. Of several models each line names its model."""
    rendered, faults, notes = list[Rendered](), list[str](), list[str]()
    for one in loaded.of_each_model():
        spec, whose = one.recipe.model, f"{one.label}: " if one.label else ""
        own = [prompt for prompt in prompts if not whose or answers(spec, prompt.prompt_id, prompt.family)]
        engine, unknown = engine_faults(one.recipe, one.base)
        rendering = render(one.recipe, one.base, own)
        rendered += [replace(entry, model=one.label) for entry in rendering.rendered]
        faults += [f"{whose}{fault}" for fault in (*engine, *rendering.faults)]
        notes += [f"{whose}{note}" for note in (*unknown, *rendering.notes)]
    return tuple(rendered), faults, notes


def check_golds(run: Run) -> None:
    """Try the verifiers of a planned run on the references of run.check_golds of its prompts, spread over the plan. Raises
    RecipeError when one refuses a reference: its verdicts on samples would be worthless."""
    with opened_tools(run.recipe, run.base, run.home) as tools:
        built = build_filters(run.recipe, tools, imported=False, where=run.where)
        verifiers = [item for item in built if _is_tried(item.filter)]
        if verifiers and run.recipe.run.check_golds:
            _check_golds(run, verifiers)


def _check_golds(run: Run, verifiers: Sequence[Built]) -> None:
    store, recipe = run.store, run.recipe
    shards = pool.shards(store)
    prompts: list[Prompt] = []
    for shard in np.unique(np.linspace(0, shards - 1, min(shards, recipe.run.check_golds)).round().astype(int)).tolist():
        prompts += prompts_of(store.read_group("prompts", shard).slice(0, max(1, -(-recipe.run.check_golds // shards))))
    faults: list[str] = []
    for label, spec, filter_ in verifiers:
        golds = [
            (prompt, _answer(filter_, prompt, right=True))
            for prompt in prompts
            if spec.families is None or prompt.family in spec.families
        ]
        faults += _first(list(_refused(label, filter_, golds)))
    if faults:
        reason = (
            "filters: a verifier refuses references of its own prompts, so nothing is sampled; correct the prompts or the filter "
            "(thresher check tries every one), or set run.check_golds: 0"
        )
        raise RecipeError("\n  ".join([reason, *faults]))


def _is_tried(filter_: Filter) -> bool:
    return filter_.role is Role.VERIFIER and filter_.scope is Scope.SAMPLE and filter_.certain


def _trial(label: str, filter_: Filter, prompts: Sequence[Prompt]) -> Trial:
    kept = dropped = tried = 0
    faults: list[str] = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        golds = [(prompt, _answer(filter_, prompt, right=True)) for prompt in batch]
        wrongs = [(prompt, _answer(filter_, prompt, right=False)) for prompt in batch]
        refused = list(_refused(label, filter_, golds))
        kept += sum(answer is not None for _, answer in golds) - len(refused)
        faults += refused
        for prompt, answer, verdict in _judged(filter_, wrongs):
            tried += 1
            if verdict["outcome"] == Outcome.DROP:
                dropped += 1
            else:
                faults.append(
                    f"{label}: does not drop a wrong answer to {_short(prompt)}: {_cut(answer)!r}: {verdict['outcome']}"
                )
        if filter_.name == "reasoning_gym":
            faults += _accepts_anything(label, filter_, golds)
        for prompt, _, verdict in _judged(filter_, [(prompt, "x") for prompt, gold in golds if gold is None]):
            if verdict["outcome"] == Outcome.UNDECIDED:
                reference = "no reference" if prompt.reference is None else f"the reference {to_json(prompt.reference)[:60]}"
                faults.append(f"{label}: cannot judge {_short(prompt)}: {verdict['reason']}; it has {reference}")
    return Trial(label, len(prompts), kept, dropped, tried, _first(faults))


def _refused(label: str, filter_: Filter, golds: Sequence[tuple[Prompt, str | None]]) -> Iterator[str]:
    for prompt, answer, verdict in _judged(filter_, golds):
        if verdict["outcome"] != Outcome.KEEP:
            words = f"{verdict['outcome']} {verdict['reason']} {verdict['detail'] or ''}".strip()
            yield f"{label}: refuses the reference of {_short(prompt)}: answer {_cut(answer)!r}: {words}"


def _accepts_anything(label: str, filter_: Filter, golds: Sequence[tuple[Prompt, str | None]]) -> Iterator[str]:
    """The families of reasoning-gym whose scorer keeps nonsense, or for most of their items the answer of another item."""
    families: dict[str, list[tuple[Prompt, str]]] = {}
    after = str(filter_.parameters.get("after") or "")
    for prompt, gold in golds:
        families.setdefault(prompt.family, []).append((prompt, gold or ""))
    for family, items in families.items():
        nonsense = [
            (prompt, f"{after}{text}") for prompt, _ in items for text in (*NONSENSE, prompt.messages[-1].content) if text
        ]
        others = [(prompt, other) for (prompt, gold), (_, other) in pairwise(items) if other and other != gold]
        for name, tried, most in (("nonsense", nonsense, 0), ("the answer of another item", others, len(others) / 2)):
            kept = [(prompt, text) for prompt, text, verdict in _judged(filter_, tried) if verdict["outcome"] == Outcome.KEEP]
            if len(kept) > most:
                prompt, text = kept[0]
                yield (
                    f"{label}: the scorer of {family} keeps {name} for {len(kept)} of {len(tried)}, such as {_cut(text)!r} for "
                    f"{_short(prompt)}; leave the family out (docs/reasoning-gym.md)"
                )


def _first(faults: list[str]) -> tuple[str, ...]:
    more = len(faults) - SHOWN
    return tuple(faults if more <= 0 else [*faults[:SHOWN], f"... and {more} more of this filter"])


def _answer(filter_: Filter, prompt: Prompt, *, right: bool) -> str | None:
    """A completion with the reference as its answer, or with another answer; None where the filter cannot tell."""
    by_filter = filter_.gold if right else filter_.wrong
    if by_filter is not None:
        return by_filter(prompt.reference)
    if prompt.reference is None:
        return None
    text = prompt.reference if isinstance(prompt.reference, str) else to_json(prompt.reference)
    return text if right else f"not {text}, but something else"


def _judged(filter_: Filter, answers: Sequence[tuple[Prompt, str | None]]) -> Iterator[tuple[Prompt, str, dict[str, Any]]]:
    known = [(prompt, answer) for prompt, answer in answers if answer is not None]
    if known:
        verdicts = judge(filter_, _table(known, as_calls=filter_.gold_in == "tool_calls")).to_pylist()
        for (prompt, answer), verdict in zip(known, verdicts, strict=True):
            yield prompt, answer, verdict


def _table(answers: Sequence[tuple[Prompt, str]], *, as_calls: bool) -> pa.Table:
    """Pool rows for made-up answers, which are the JSON text of tool calls with `as_calls`."""
    rows = [
        {
            "sample_id": prompt.prompt_id,
            "prompt_id": prompt.prompt_id,
            "family": prompt.family,
            "index": 0,
            "anchor": False,
            "messages": [message.parts for message in prompt.messages],
            "reference": None if prompt.reference is None else to_json(prompt.reference),
            "metadata": to_json(dict(prompt.metadata)),
            "tools": prompt.tools,
            "template": prompt.template,
            "completion": answer,
            "answer": answer,
            "tool_calls": answer if as_calls else None,
            "finish_reason": "stop",
        }
        for prompt, answer in answers
    ]
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


def _short(prompt: Prompt) -> str:
    return f"{prompt.family} {prompt.messages[-1].content[:60]!r}"
