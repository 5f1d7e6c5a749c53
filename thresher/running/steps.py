"""THE FILE TO READ FIRST: from a recipe to a dataset.

    begin     recipe  -> RUN/run.json and the plan: prompts, cut into shards                       (thresher.running.open_run)
    sample    prompts -> samples of one shard, drawn by a warm engine                              (thresher.running.sample_shard)
    judge     samples -> verdicts on one shard, by the recipe's filters, while others are sampled  (thresher.judging.winnow)
    compare   verdicts of the filters that need every sample: duplicates across prompts            (thresher.judging.corpus)
    finish    audit -> dataset -> release, where the recipe names a repository                     (thresher.releases)

Every step finds its output complete, made from the same input, or makes it whole, so any of them may be stopped at any time and
called again. What is done is read from the entries in the run directory (thresher.pool.store) and from nowhere else. `Plain` runs
the steps as they are; flows/ wraps the same steps in Prefect tasks with retries and artifacts.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from thresher.auditing.audit import Audit, check
from thresher.auditing.cache import cached_audit
from thresher.dataset.write import dataset_finished, write_dataset
from thresher.dedupe import released
from thresher.errors import DeadlyError, EngineError, ModelError, SourceError, StoreError, ThresherError
from thresher.executors import open_executor
from thresher.executors.executor import Call, Engines, Executor, Map, map_here
from thresher.judging import corpus, winnow
from thresher.judging.check import check_golds
from thresher.judging.winnow import judge_shard
from thresher.pool import judged
from thresher.pool.run import Run
from thresher.pool.store import shard_name
from thresher.pool.wanted import samples_of_shard
from thresher.releases import publish
from thresher.releases.index_sync import take_in
from thresher.running.open_run import Begun, begin, begin_brought
from thresher.running.progress import Progress
from thresher.running.replicas import replicas_wanted
from thresher.running.sample_shard import sample_shard
from thresher.running.shard_loop import overlap
from thresher.running.warm_engine import Warm, warm
from thresher.samplers.sampler import EngineFacts

__all__ = [
    "Begun",
    "Finished",
    "Plain",
    "Steps",
    "begin",
    "begin_brought",
    "compare",
    "fill_pool",
    "finish",
    "finished",
    "judge_shard",
    "run_steps",
    "sample_on",
]


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """What a run ends with."""

    audit: Audit
    dataset: str
    """Directory of the dataset, or its URL."""
    published: publish.Published | None = None
    """None where the recipe names no repository."""


class Steps(Protocol):
    """The steps of one run, as the loop over its shards calls them, from several threads."""

    def sample(self, shard: int, engines: Engines) -> Any:
        """Sample one shard on one of the engines."""
        ...

    def judge(self, shard: int) -> dict[str, Any] | None:
        """Judge one sampled shard; returns its entry as JSON values, or None where nothing is judged."""
        ...

    def compare(self) -> None:
        """Run the filters that need every sample."""
        ...

    def finish(self) -> Finished:
        """Audit the run, write its dataset, and publish it where the recipe says so."""
        ...


class Plain:
    """The steps as they are, without Prefect."""

    def __init__(self, run: Run, progress: Progress, executor: Executor) -> None:
        self.run, self.progress, self.executor = run, progress, executor

    def sample(self, shard: int, engines: Engines) -> dict[str, Any]:
        return sample_on(engines, self.run, shard, self.progress)

    def judge(self, shard: int) -> dict[str, Any]:
        return self.executor.call(judge_shard, self.run, shard).model_dump()

    def compare(self) -> None:
        compare(self.run, self.executor.map)

    def finish(self) -> Finished:
        return finish(self.run, audit_map(self.executor))


class JudgedOnly:
    """The steps of a run whose samples are judged and not compared with those of other prompts: probes and studies."""

    def __init__(self, plain: Plain) -> None:
        self.plain = plain

    def sample(self, shard: int, engines: Engines) -> dict[str, Any]:
        return self.plain.sample(shard, engines)

    def judge(self, shard: int) -> dict[str, Any]:
        return self.plain.judge(shard)

    def compare(self) -> None:
        return None

    def finish(self) -> Finished:
        raise StoreError(f"{self.plain.run.root}: a run whose samples are not compared has no dataset")


def run_steps(begun: Begun, progress: Progress) -> Finished:
    """All steps of a run, without Prefect."""
    with begun.run.store.writing(begun.run.command), open_executor(begun.run.recipe) as executor:
        steps = Plain(begun.run, progress, executor)
        fill_pool(begun, steps, progress, executor)
        return steps.finish()


def compare(run: Run, map_parts: Map = map_here) -> None:
    """Run the filters that need every sample, after taking in what other runs released meanwhile. `map_parts` spreads the search
    for duplicates over workers."""
    corpus.compare(run, map_parts, take_in(run))


def audit_map(executor: Executor) -> Map | None:
    """How the audit is spread: over an executor's workers, or over this process's cores where there is one worker at most."""
    return executor.map if executor.workers > 1 else None


def finish(run: Run, map_shards: Map | None = None) -> Finished:
    """Audit a run, write its dataset, and publish it where the recipe names a repository. `map_shards` spreads the audit over an
    executor's workers. Raises AuditError, and then writes nothing; PublishError where a gate refuses the release."""
    audit, dataset = release(run, map_shards)
    return Finished(audit, dataset, publish_run(run))


def release(run: Run, map_shards: Map | None = None) -> tuple[Audit, str]:
    """Audit a run and write its dataset; returns both. Raises AuditError, and then writes nothing."""
    audit = cached_audit(run, map_shards)
    check(audit)
    dataset = write_dataset(run, audit=audit)
    if run.recipe.publish.repo is None:
        released.add_run(run)  # otherwise when it is published
    return audit, dataset


def publish_run(run: Run) -> publish.Published | None:
    """Publish the dataset to where the recipe says, if it says so. Raises PublishError, also where a gate refuses it."""
    return None if run.recipe.publish.repo is None else publish.publish(run)


def finished(begun: Begun) -> Finished | None:
    """The audit and the dataset of a run that has nothing left to do, else None."""
    run = begun.run
    if (begun.missing and not begun.enough) or not dataset_finished(run):
        return None
    if not (released.added(run) if run.recipe.publish.repo is None else publish.published(run)):
        return None
    if winnow.unjudged(run, judged.sampled(run.store)).shards or judged.damaged_corpus(run.store):
        return None
    result = Finished(cached_audit(run), f"{run.root}/dataset")
    return None if result.audit.problems or result.audit.broken else result


def fill_pool(begun: Begun, steps: Steps, progress: Progress, executor: Executor) -> None:
    """Sample the missing shards, judge each as soon as it is sampled, and compare them. Raises the first error after what was
    under way has ended; RecipeError before anything is sampled when a verifier refuses references of its own prompts."""
    run = begun.run
    if not begun.missing or begun.enough:
        _judge_left(run, steps, executor, progress)
        steps.compare()
        if not begun.missing or begun.enough:  # changed filters may keep fewer
            return
    prepare(begun, progress, executor)
    failures: list[tuple[str, ThresherError]] = []
    for number, one in enumerate(run.models):
        if not begun.lacking[number]:
            continue
        try:
            with engines_of(run, progress, executor, number) as engines:
                sample_through(begun, engines, steps, progress, executor, number=number)
        except (EngineError, ModelError, SourceError) as error:
            if isinstance(error, DeadlyError):  # a filter may have died, not the engine
                raise
            if begun.undrawn.issuperset(begun.lacking[number]):
                log.warning("what could not be drawn before is not tried again: %s", error)
                _judge_left(run, steps, executor, progress)
                steps.compare()
                continue
            if not run.several:
                raise
            failures.append((one.label, error))
            log.warning("%s draws no samples: %s; the other models of the recipe are drawn from", one.label, error)
    if failures:
        _judge_left(run, steps, executor, progress)
        raise _of_models(run, failures)


def prepare(begun: Begun, progress: Progress, executor: Executor) -> None:
    """Check machines and verifiers before an engine starts, and show what will be sampled. Raises EngineError, StoreError,
    RecipeError."""
    run, shards = begun.run, max(1, begun.shards)
    executor.check(run.root)
    executor.call(check_golds, run)
    plan = run.store.entry("prompts")
    progress.begin(
        run.recipe.sampling,
        prompts=int(plan.facts["prompts"]) if plan else 0,
        shards=shards,
        missing=len(begun.missing),
        hits=judged.hits_of_shards(run.store),
        shares=_shares(begun, plan.facts["families"]) if plan and run.several else (),
    )


@contextmanager
def engines_of(run: Run, progress: Progress, executor: Executor, number: int = 0) -> Iterator[Engines]:
    """The engine of one of the run's models, warm, or as many of it as the executor holds."""
    with executor.engines(
        partial(warm, run, progress, number), slots=partial(_slots, run), wanted=partial(replicas_wanted, run.store)
    ) as engines:
        progress.sampling(engines.call(_facts))
        yield engines


def sample_through(
    begun: Begun, engines: Engines, steps: Steps, progress: Progress, executor: Executor, *, number: int = 0
) -> None:
    """Pass the shards that lack samples of a model through its warm engines, with enough of them in flight to fill each engine
    twice; with target_rows until the run has that many. What the comparison drops of those is sampled for again. Samples are
    compared after the last model."""
    run, target = begun.run, begun.run.recipe.sampling.target_rows
    per_engine = shards_in_flight(run, engines.call(_facts))
    todo = begun.lacking[number]
    missing = set(todo)
    left = winnow.unjudged(run, (shard for shard in judged.sampled(run.store) if shard not in missing))
    _say_broken(left, progress)
    for shard, count in left.hits.items():
        progress.judged(shard, count)

    def judge(shard: int) -> None:
        entry = steps.judge(shard)
        if entry is not None:
            progress.judged(shard, int(entry["facts"]["hits"]))

    unjudged = left.shards
    while todo:
        not_drawn = overlap(
            todo,
            [*unjudged, *todo],
            sample=lambda shard: steps.sample(shard, engines),
            judge=judge,
            judges=executor.workers,
            in_flight=lambda: per_engine * max(1, engines.replicas),
            stop=lambda: _stop(engines, executor),
            enough=lambda: target is not None and progress.hits >= target,
        )
        if _is_last(begun, number):
            steps.compare()
        todo, unjudged = ([], unjudged) if begun.enough else (not_drawn, [])
        if todo:
            progress.known(judged.hits_of_shards(run.store))


def judge_again(run: Run, steps: Steps, executor: Executor) -> None:
    """Judge all sampled shards of a run by its filters as they are now, and compare them."""
    _judge_only(judged.sampled(run.store), steps, executor)
    steps.compare()


def sample_on(engines: Engines, run: Run, shard: int, progress: Progress) -> dict[str, Any]:
    """Sample one shard on one of the engines; returns its entry as JSON values."""
    if engines.in_process:
        return engines.call(_sampled, run, shard)
    before = run.store.entry(f"samples/{shard_name(shard)}")
    entry = engines.call(_sampled, run, shard)
    facts, earlier = entry["facts"], before.facts if before is not None else {}
    samples = sum(facts[name] - earlier.get(name, 0) for name in ("samples", "anchors"))
    failed = max(0, facts["failed"] - earlier.get("failed", 0))
    progress.drawn(samples, facts["completion_tokens"] - earlier.get("completion_tokens", 0), failed=failed)
    return entry


def shards_in_flight(run: Run, facts: EngineFacts) -> int:
    """Shards that one engine is given at the same time: enough to fill it twice, but where they have much text only two, or as
    many as have no more together than two full ones."""
    recipe, plan = run.recipe, run.store.entry("prompts")
    sampling, text = recipe.sampling, plan.facts.get("text_bytes", 0) if plan else 0
    fitting = 2 * recipe.run.shard_bytes * judged.shards(run.store) // max(1, text)
    per_prompt = sampling.samples_per_prompt * len(sampling.temperatures) + sampling.anchor
    shard_samples = max(samples_of_shard(recipe), per_prompt)
    return recipe.run.shards_in_flight or min(64, max(2, fitting), 2 + -(-2 * facts.sequences // shard_samples))


# -- inside --------------------------------------------------------------------------------------------------------------


def _judge_left(run: Run, steps: Steps, executor: Executor, progress: Progress) -> None:
    left = winnow.unjudged(run, judged.sampled(run.store))
    _say_broken(left, progress)
    _judge_only(left.shards, steps, executor)


def _say_broken(left: winnow.Unjudged, progress: Progress) -> None:
    if left.broken:
        progress.say(f"{left.broken} verdicts are undecided because something was broken when they were asked for; asking again")


def _judge_only(shards: list[int], steps: Steps, executor: Executor) -> None:
    overlap(
        [],
        shards,
        sample=lambda _: None,
        judge=steps.judge,
        judges=executor.workers,
        in_flight=lambda: 1,
        stop=executor.stop,
        enough=lambda: False,
    )


def _stop(engines: Engines, executor: Executor) -> None:
    executor.stop()
    engines.close()


def _of_models(run: Run, failures: Sequence[tuple[str, ThresherError]]) -> EngineError:
    """The error of a run that lacks the samples of some of its models."""
    words = "\n  ".join(f"{label}: {error}" for label, error in failures)
    return EngineError(
        f"{run.root}: no samples of {len(failures)} of {len(run.models)} models, so no dataset is written:\n  {words}\n"
        "What the other models drew is judged and kept. Mend this and run the same command again: it draws only what is missing; "
        "a model that has drawn nothing yet may also be taken out of the recipe"
    )


def _shares(begun: Begun, families: Mapping[str, int]) -> list[float]:
    """How much of the plan each model is to draw, 0 to 1. `families` has the number of prompts of each."""
    shares, every_prompt = [], max(1, sum(families.values()))
    for lacking, entry in zip(begun.lacking, begun.recipe.models, strict=True):
        own = sum(count for name, count in families.items() if entry.families is None or name in entry.families)
        shares.append((entry.share or 1.0) * own / every_prompt * len(lacking) / max(1, begun.shards))
    return shares


def _is_last(begun: Begun, number: int) -> bool:
    """Whether no model after this one lacks samples: what is compared before that would be compared again."""
    return not any(begun.lacking[number + 1 :])


def _sampled(engine: Warm, call: Call, run: Run, shard: int) -> dict[str, Any]:
    return sample_shard(run, shard, engine.sampler, engine.progress, call, number=engine.number).model_dump()


def _facts(engine: Warm, _call: Call) -> EngineFacts:
    return engine.sampler.facts


def _slots(run: Run, engine: Warm) -> int:
    return shards_in_flight(run, engine.sampler.facts)
