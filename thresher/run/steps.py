"""THE FILE TO READ FIRST: from a recipe to a dataset, as plain functions.

    begin          recipe  -> RUN/run.json and the plan: prompts, cut into shards                          (thresher.run.open_run)
    sample_shard   prompts -> samples of one shard, by a warm sampler; once per shard                       (thresher.run.sample_shard)
    winnow_shard   samples -> verdicts of one shard, by the recipe's filters; while others are sampled      (thresher.judging.winnow)
    winnow_corpus  verdicts of the filters that must see every sample; once                                 (thresher.judging.winnow)
    release        the audit, then the dataset: views of pool and verdicts; once                            (thresher.dataset.write)
    publish        the dataset -> a repository, where the recipe names one (publish.repo); once            (thresher.releases)

Every step finds its output complete, made from the same input, or makes it whole; so any of them may be stopped at any time and
called again. What is done is read from the entries in the run directory (thresher.pool.store) and from nowhere else. flows/ adds
Prefect's retries, schedules and artifacts; `run` here goes without.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from schemas.recipe import Recipe
from thresher.audit.count_run import Audit, Gather, audit, check, here
from thresher.dataset.write import dataset_finished, write_dataset
from thresher.dedupe import out_of_core, released
from thresher.errors import StoreError
from thresher.executors import open_executor
from thresher.executors.executor import Engines, Executor
from thresher.judging import winnow
from thresher.judging.check import check_golds
from thresher.judging.winnow import winnow_shard
from thresher.pool import judged as pool
from thresher.pool.store import Store, shard_name
from thresher.releases import publish as publishing
from thresher.releases.index_sync import take_in
from thresher.run.begun import Begun, Warm
from thresher.run.open_run import begin, begin_brought, warm
from thresher.run.progress import Progress
from thresher.run.sample_shard import sample_shard
from thresher.samplers.sampler import EngineFacts

__all__ = [
    "Begun",
    "begin",
    "begin_brought",
    "finished",
    "publish",
    "release",
    "run",
    "sample_on",
    "sample_shard",
    "winnow_corpus",
    "winnow_shard",
]


def winnow_corpus(root: str, each: out_of_core.Each = out_of_core.here) -> int:
    """Run the filters that must see every sample, once what others released meanwhile is known; returns how many there are.
    `each` spreads the work on duplicates over workers."""
    return winnow.winnow_corpus(root, each, take_in(Store(root)))


def release(root: str, gather: Gather = here) -> tuple[Audit, str]:
    """Audit the run, then write its dataset; returns both. `gather` spreads the audit over an executor's workers. Raises
    AuditError, and then writes nothing."""
    store = Store(root)
    found = audit(store, gather)
    check(found)
    dataset = write_dataset(store, audit=found)
    if _goes_to(store) is None:
        released.add_run(store)  # else when it is published
    return found, dataset


def publish(root: str) -> publishing.Published | None:
    """Publish the dataset to where the recipe says, if it says so. Raises PublishError, also where a gate refuses it."""
    return None if _goes_to(Store(root)) is None else publishing.publish(root)


def finished(begun: Begun) -> tuple[Audit, str] | None:
    """The audit and the dataset of a run that has nothing left to do, else None."""
    store = Store(begun.root)
    if (begun.missing and not begun.enough) or not dataset_finished(store):
        return None
    if not (released.added(store) if begun.recipe.publish.repo is None else publishing.published(store)):
        return None
    if winnow.unjudged(begun.root, pool.sampled(store))[0]:
        return None
    found = result(begun.root)
    return None if found[0].to_dict()["problems"] else found


def result(root: str) -> tuple[Audit, str]:
    """The audit of a run and where its dataset is."""
    return audit(Store(root)), f"{root}/dataset"


def run(begun: Begun, progress: Progress) -> tuple[Audit, str]:
    """All steps, without Prefect: sampling and filtering side by side, then the release."""
    with open_executor(begun.recipe) as executor:
        drive(
            begun,
            progress,
            executor,
            sample=lambda shard, engines: sample_on(engines, begun.root, shard, progress),
            judge=lambda shard: executor.apart(winnow_shard, begun.root, shard).model_dump(),
            corpus=lambda: winnow_corpus(
                begun.root, lambda function, items: executor.each(lambda one: executor.apart(function, *one), items)
            ),
        )
        done = release(begun.root, executor.gather)
    publish(begun.root)
    return done


def _goes_to(store: Store) -> str | None:
    manifest = store.manifest()
    assert manifest is not None
    return Recipe.model_validate(manifest.recipe).publish.repo


def drive(
    begun: Begun,
    progress: Progress,
    executor: Executor,
    *,
    sample: Callable[[int, Engines], Any],
    judge: Callable[[int], dict[str, Any] | None],
    corpus: Callable[[], Any] = lambda: None,
) -> None:
    """Sample the missing shards, filter each as soon as it is sampled, and run the filters over the corpus. The arguments are the
    steps themselves, or Prefect tasks round them. Raises the first error, after what was under way is done; RecipeError before
    anything is sampled when a verifier refuses references of its own prompts."""
    if not begun.missing or begun.enough:
        left, _ = winnow.unjudged(begun.root, pool.sampled(Store(begun.root)))
        executor.overlap([], left, lambda shard: None, judge, in_flight=lambda: 1)
        corpus()
        if not begun.missing or begun.enough:  # other filters may keep fewer
            return
    assert begun.model is not None
    executor.check(begun.root)
    executor.apart(check_golds, begun.root)
    announce(begun, progress)
    with engines_of(begun, progress, executor) as engines:
        through(begun, engines, progress, executor, sample=sample, judge=judge, corpus=corpus)


def announce(begun: Begun, progress: Progress) -> None:
    """Show what a run will sample, before its engine starts."""
    store = Store(begun.root)
    entry = store.entry("prompts")
    progress.begin(
        begun.recipe.sampling,
        prompts=int(entry.facts["prompts"]) if entry else 0,
        shards=begun.shards,
        missing=len(begun.missing),
        hits=pool.hits(store),
    )


@contextmanager
def engines_of(begun: Begun, progress: Progress, executor: Executor) -> Iterator[Engines]:
    """The run's engine, warm, or as many of it as the executor holds."""
    store = Store(begun.root)
    with executor.engines(
        partial(warm, begun.root, progress), slots=partial(_slots, begun.recipe), wanted=lambda: replicas_wanted(store)
    ) as engines:
        progress.sampling(engines.call(_facts))
        yield engines


def through(
    begun: Begun,
    engines: Engines,
    progress: Progress,
    executor: Executor,
    *,
    sample: Callable[[int, Engines], Any],
    judge: Callable[[int], dict[str, Any] | None],
    corpus: Callable[[], Any] = lambda: None,
) -> None:
    """Pass the missing shards through engines that are warm, with enough of them in flight to fill each twice; with target_rows
    until the run has them. What the filters over the corpus drop of those is sampled for again."""
    sampling = begun.recipe.sampling
    each = shards_in_flight(begun.recipe, engines.call(_facts))
    todo = begun.missing
    again = set(todo)
    every, known = winnow.unjudged(begun.root, (shard for shard in pool.sampled(Store(begun.root)) if shard not in again))
    for shard, hits in known.items():
        progress.judged(shard, hits)

    def judged(shard: int) -> None:
        found = judge(shard)
        if found is not None:
            progress.judged(shard, int(found["facts"]["hits"]))

    while todo:
        left = executor.overlap(
            todo,
            [*every, *todo],
            lambda shard: sample(shard, engines),
            judged,
            in_flight=lambda: each * max(1, engines.replicas),
            stop=engines.close,
            enough=lambda: sampling.target_rows is not None and progress.hits >= sampling.target_rows,
        )
        corpus()
        todo, every = ([], every) if begun.enough else (left, [])
        progress.hits = pool.hits(Store(begun.root)) if todo else progress.hits


def sample_on(engines: Engines, root: str, shard: int, progress: Progress) -> dict[str, Any]:
    """Sample one shard on one of the engines; returns its entry, as JSON values. Once per shard."""
    if engines.here:
        return engines.call(_sampled, root, shard)
    before = Store(root).entry(f"samples/{shard_name(shard)}")
    entry = engines.call(_sampled, root, shard)
    facts, had = entry["facts"], before.facts if before is not None else {}
    names = ("samples", "anchors")
    progress.drawn(
        sum(facts[name] - had.get(name, 0) for name in names), facts["completion_tokens"] - had.get("completion_tokens", 0)
    )
    return entry


def shards_in_flight(recipe: Recipe, facts: EngineFacts) -> int:
    """Shards that one engine is given at once: enough to fill it twice."""
    sampling = recipe.sampling
    per_prompt = sampling.samples_per_prompt * len(sampling.temperatures) + sampling.anchor
    shard_samples = max(recipe.run.shard_samples, per_prompt)
    return recipe.run.shards_in_flight or min(64, 2 + -(-2 * facts.sequences // shard_samples))


REPLICAS = "replicas.json"


def scale(store: Store, replicas: int) -> None:
    """Ask a run that is under way on a cluster for another number of replicas. Raises StoreError for what has none."""
    if (manifest := store.manifest()) is None:
        raise StoreError(f"{store.root}: not a run directory (it has no run.json); give the directory of a run")
    sampled = manifest.origin == "sampled"
    if not sampled or manifest.recipe["executor"]["kind"] == "local":
        why = "executor.kind is local: one engine, in its process" if sampled else "its samples were brought"
        raise StoreError(f"{store.root}: {why}; only a run on a cluster (executor.kind: ray) takes another number of engines")
    if dataset_finished(store) and (pool.enough(store, manifest) or len(pool.sampled(store)) == pool.shards(store)):
        raise StoreError(f"{store.root}: has sampled all it was to sample, and has no engine; raise sampling, and run it again")
    store.write_bytes(REPLICAS, f'{{"replicas": {replicas}}}\n'.encode())


def replicas_wanted(store: Store) -> int | None:
    """What `scale` asked for last; None where nobody did."""
    if not store.exists(REPLICAS):
        return None
    return int(json.loads(store.read_bytes(REPLICAS))["replicas"])


# -- where an engine is ----------------------------------------------------------------------------------------------------


def _sampled(engine: Warm, apart: Callable[..., Any], root: str, shard: int) -> dict[str, Any]:
    return sample_shard(root, shard, engine.sampler, engine.progress, apart).model_dump()


def _facts(engine: Warm, _apart: Callable[..., Any]) -> EngineFacts:
    return engine.sampler.facts


def _slots(recipe: Recipe, engine: Warm) -> int:
    return shards_in_flight(recipe, engine.sampler.facts)
