"""THE FILE TO READ FIRST: from a recipe to a dataset, as plain functions.

    begin          recipe  -> RUN/run.json and the plan: prompts, cut into shards                          (thresher.opening)
    sample_shard   prompts -> samples of one shard, by a warm sampler; once per shard                       (thresher.sampling)
    winnow_shard   samples -> verdicts of one shard, by the recipe's filters; while others are sampled      (thresher.winnow)
    winnow_corpus  verdicts of the filters that must see every sample; once                                 (thresher.winnow)
    release        the audit, then the dataset: views of pool and verdicts; once                            (thresher.publish)
    publish        the dataset -> a repository, where the recipe names one (publish.repo); once            (thresher.releases)

Every step finds its output complete, made from the same input, or makes it whole; so any of them may be stopped at any time and
called again. What is done is read from the entries in the run directory (thresher.store) and from nowhere else. flows/ adds
Prefect's retries, schedules and artifacts; `run` here goes without.
"""

from collections.abc import Callable
from typing import Any

from filters.base import Scope
from schemas.recipe import Recipe
from thresher import pool, released
from thresher.audit.stats import Audit, audit, check
from thresher.checks import check_golds
from thresher.executors.local import LocalExecutor
from thresher.opening import Begun, begin, begin_brought
from thresher.progress import Progress
from thresher.publish import dataset_finished, write_dataset
from thresher.releases import publishing
from thresher.samplers.base import Sampler
from thresher.sampling import sample_shard
from thresher.store import Store, shard_name
from thresher.winnow import built_filters, winnow_corpus, winnow_key, winnow_shard

__all__ = [
    "Begun",
    "begin",
    "begin_brought",
    "finished",
    "publish",
    "release",
    "run",
    "sample_shard",
    "winnow_corpus",
    "winnow_shard",
]


def release(root: str) -> tuple[Audit, str]:
    """Audit the run, then write its dataset; returns both. Raises AuditError, and then writes nothing."""
    store = Store(root)
    found = audit(store)
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
    manifest = store.manifest()
    assert manifest is not None
    if (begun.missing and not begun.enough) or not dataset_finished(store):
        return None
    if not (released.added(store) if begun.recipe.publish.repo is None else publishing.published(store)):
        return None
    local = [
        b for b in built_filters(begun.recipe, begun.base, brought=manifest.origin == "brought") if b[2].scope is not Scope.CORPUS
    ]
    for shard in pool.sampled(store):
        entry = store.entry(f"samples/{shard_name(shard)}")
        verdicts = store.entry(f"verdicts/{shard_name(shard)}")
        if entry is None or verdicts is None:
            return None
        if verdicts.key != winnow_key(local, [entry.sha256], exhaustive=begun.recipe.audit.exhaustive):
            return None
    found = result(begun.root)
    return None if found[0].to_dict()["problems"] else found


def result(root: str) -> tuple[Audit, str]:
    """The audit of a run and where its dataset is."""
    return audit(Store(root)), f"{root}/dataset"


def run(begun: Begun, progress: Progress) -> tuple[Audit, str]:
    """All steps on this machine, without Prefect: sampling and filtering side by side, then the release."""
    with LocalExecutor(begun.recipe.run.filter_workers) as executor:
        drive(
            begun,
            progress,
            executor,
            sample=lambda shard, sampler: sample_shard(begun.root, shard, sampler, progress, executor.apart),
            winnow=lambda shard: executor.apart(winnow_shard, begun.root, shard).model_dump(),
            corpus=lambda: winnow_corpus(
                begun.root, lambda function, items: executor.each(lambda one: executor.apart(function, *one), items)
            ),
        )
    done = release(begun.root)
    publish(begun.root)
    return done


def _goes_to(store: Store) -> str | None:
    manifest = store.manifest()
    assert manifest is not None
    return Recipe.model_validate(manifest.recipe).publish.repo


def drive(
    begun: Begun,
    progress: Progress,
    executor: LocalExecutor,
    *,
    sample: Callable[[int, Sampler], Any],
    winnow: Callable[[int], dict[str, Any] | None],
    corpus: Callable[[], Any] = lambda: None,
) -> None:
    """Sample the missing shards, filter each as soon as it is sampled, and run the filters over the corpus. The arguments are the
    steps themselves, or Prefect tasks round them. Raises the first error, after what was under way is done; RecipeError before
    anything is sampled when a verifier refuses references of its own prompts."""
    if not begun.missing or begun.enough:
        executor.overlap([], pool.sampled(Store(begun.root)), lambda shard: None, winnow, in_flight=1)
        corpus()
        if not begun.missing or begun.enough:  # other filters may keep fewer
            return
    assert begun.model is not None
    executor.apart(check_golds, begun.root)
    progress.begin(begun)
    with begun.sampler() as sampler:
        progress.sampling(sampler.facts)
        through(begun, sampler, progress, executor, sample=sample, winnow=winnow, corpus=corpus)


def through(
    begun: Begun,
    sampler: Sampler,
    progress: Progress,
    executor: LocalExecutor,
    *,
    sample: Callable[[int, Sampler], Any],
    winnow: Callable[[int], dict[str, Any] | None],
    corpus: Callable[[], Any] = lambda: None,
) -> None:
    """Pass the missing shards through a sampler that is warm, with enough of them in flight to fill it twice; with target_rows
    until the run has them. What the filters over the corpus drop of those is sampled for again."""
    sampling = begun.recipe.sampling
    per_prompt = sampling.samples_per_prompt * len(sampling.temperatures) + sampling.anchor
    shard_samples = max(begun.recipe.run.shard_samples, per_prompt)
    in_flight = begun.recipe.run.shards_in_flight or min(64, 2 + -(-2 * sampler.facts.sequences // shard_samples))
    todo = begun.missing
    every: list[int] = [shard for shard in pool.sampled(Store(begun.root)) if shard not in set(todo)]

    def winnowed(shard: int) -> None:
        found = winnow(shard)
        if found is not None:
            progress.judged(shard, int(found["facts"]["hits"]))

    while todo:
        left = executor.overlap(
            todo,
            [*every, *todo],
            lambda shard: sample(shard, sampler),
            winnowed,
            in_flight=in_flight,
            stop=sampler.close,
            enough=lambda: sampling.target_rows is not None and progress.hits >= sampling.target_rows,
        )
        corpus()
        todo, every = ([], every) if begun.enough else (left, [])
        progress.hits = pool.hits(Store(begun.root)) if todo else progress.hits
