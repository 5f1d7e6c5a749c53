"""THE FILE TO READ FIRST: from a recipe to a dataset, as plain functions.

    begin          recipe  -> RUN/run.json and the plan: prompts, cut into shards
    sample_shard   prompts -> samples of one shard, by a warm sampler          (once per shard)
    winnow_shard   samples -> verdicts of one shard, by the recipe's filters   (once per shard, while others are sampled)
    winnow_corpus  verdicts of the filters that must see every sample          (once)
    release        the audit, then the dataset: views of pool and verdicts     (once)

Every step finds its output complete, made from the same input, or makes it whole; so any of them may be stopped at any time and
called again. What is done is read from the entries in the run directory (thresher.store) and from nowhere else. flows/ adds
Prefect's retries, schedules and artifacts; `run` here goes without.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filters.base import Scope
from schemas.manifest import Entry, RunManifest
from schemas.recipe import JsonlSource, ParquetSource, Recipe
from schemas.sample import PROMPTS, Prompt
from thresher import __version__, ids, models, publish
from thresher.audit.stats import Audit, audit, check
from thresher.brought import ingest
from thresher.errors import SourceError, StoreError
from thresher.executors.local import LocalExecutor
from thresher.progress import Progress
from thresher.prompts import plan, prompt_table, prompts_of
from thresher.recipes import Loaded, build_filters
from thresher.samplers import open_sampler
from thresher.samplers.base import Drawn, Group, Sampler, anchor_parameters, draw_parameters
from thresher.shards import sample_table
from thresher.store import HASHED_BYTES, Store, shard_name
from thresher.winnow import built_filters, winnow_corpus, winnow_key, winnow_shard

__all__ = [
    "Begun",
    "begin",
    "begin_brought",
    "finished",
    "release",
    "run",
    "sample_shard",
    "winnow_corpus",
    "winnow_shard",
]


@dataclass(frozen=True)
class Begun:
    """A run that may be sampled: its root, its number of shards, and the shards that still lack samples."""

    root: str
    shards: int
    missing: list[int]
    recipe: Recipe
    model: models.Model | None
    base: Path

    def sampler_seed(self, start: int) -> int:
        """The engine's seed for its start number `start` in this process: from the salt and from what is done already."""
        store = Store(self.root)
        done = [entry.sha256 for shard in range(self.shards) if (entry := store.entry(f"samples/{shard_name(shard)}"))]
        return ids.engine_seed(self.recipe.run.salt, str(start), done)


def begin(loaded: Loaded, out: str | Path | None = None, *, salt: str | None = None) -> Begun:
    """Open the run of a recipe, or begin it: resolve the model, check the filters, write the plan.

    Raises RecipeError, ModelError, SourceError; StoreError when `out` holds a run that samples something else.
    """
    recipe = loaded.recipe
    if salt is not None:
        recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"salt": salt})})
    if not recipe.prompts:
        raise SourceError(f"{loaded.where(())}: the recipe has no prompts; add `prompts`, or bring samples: thresher filter")
    build_filters(loaded)
    built_filters(recipe, brought=False)
    model = models.resolve(recipe.model.name, recipe.model.revision, base=loaded.base)
    store = Store(out or f"data/runs/{recipe.name}")
    decides = {
        "prompts": [prompts.model_dump(mode="json") for prompts in recipe.prompts],
        "files": _fingerprints(recipe, loaded.base),
        "model": [model.name, model.revision, recipe.model.prompt_format, recipe.engine.kind],
        "sampling": recipe.sampling.model_dump(mode="json"),
        "salt": recipe.run.salt,
    }
    manifest = RunManifest(
        name=recipe.name,
        origin="sampled",
        sampling_key=ids.digest(decides),
        recipe=recipe.model_dump(mode="json"),
        model={**asdict(model), "prompt_format": _prompt_format(recipe, model), "decides": decides},
        thresher_version=__version__,
    )
    _open(store, manifest)
    return _planned(store, loaded, recipe, model, manifest.sampling_key)


def begin_brought(loaded: Loaded, file: Path, out: str | Path) -> Begun:
    """Take a user's own samples into a pool, in place of sampling. Raises SourceError, StoreError, RecipeError."""
    build_filters(loaded)
    built_filters(loaded.recipe, brought=True)
    if not file.is_file():
        raise SourceError(f"{file}: no such file; --samples wants a JSONL or Parquet file")
    store = Store(out)
    decides = {"samples": _fingerprint(file)}
    manifest = RunManifest(
        name=loaded.recipe.name,
        origin="brought",
        sampling_key=ids.digest(decides),
        recipe=loaded.recipe.model_dump(mode="json"),
        model={"prompt_format": "chat", "samples": file.name, "decides": decides},
        thresher_version=__version__,
    )
    _open(store, manifest)
    shards = ingest(file, store, key=manifest.sampling_key)
    return Begun(store.root, shards, [], loaded.recipe, None, loaded.base)


def sample_shard(root: str, shard: int, sampler: Sampler, progress: Progress) -> Entry:
    """Draw and write the samples of one shard, unless they are there already."""
    store = Store(root)
    manifest = store.manifest()
    assert manifest is not None
    name = f"samples/{shard_name(shard)}"
    if done := store.finished(name, manifest.sampling_key):
        return done
    recipe = Recipe.model_validate(manifest.recipe)
    model = models.Model(**{field: manifest.model[field] for field in models.Model.__dataclass_fields__})
    prompts = store.read_group("prompts", shard)
    parameters = {False: draw_parameters(recipe.sampling), True: anchor_parameters(recipe.sampling)}
    drawn: dict[int, Drawn] = {}
    for group in sampler.sample(list(_groups(prompts_of(prompts), recipe, parameters))):
        drawn[group.number] = group
        progress.drawn(len(group.completions), _tokens(group))
    table = sample_table(prompts, drawn, model=model, facts=sampler.facts, salt=recipe.run.salt, parameters=parameters)
    anchors = sum(len(group.completions) for number, group in drawn.items() if number % 2)
    facts = {
        "samples": table.num_rows - anchors,
        "anchors": anchors,
        "prompt_tokens": sum(0 if group.prompt_ids is None else len(group.prompt_ids) for group in drawn.values()),
        "completion_tokens": sum(map(_tokens, drawn.values())),
        "seconds": round(progress.lap(), 3),
        "engine_seed": next((group.seed for group in drawn.values()), None),
    }
    return store.write_table(name, table, key=manifest.sampling_key, facts=facts)


def release(root: str) -> tuple[Audit, str]:
    """Audit the run, then write its dataset; returns both. Raises AuditError, and then writes nothing."""
    store = Store(root)
    found = audit(store)
    check(found)
    return found, publish.write_dataset(store, audit=found)


def finished(begun: Begun) -> tuple[Audit, str] | None:
    """The audit and the dataset of a run that has nothing left to do, else None."""
    store = Store(begun.root)
    manifest = store.manifest()
    assert manifest is not None
    if begun.missing or not publish.dataset_finished(store):
        return None
    local = [b for b in built_filters(begun.recipe, brought=manifest.origin == "brought") if b[2].scope is not Scope.CORPUS]
    for shard in range(begun.shards):
        entry = store.entry(f"samples/{shard_name(shard)}")
        verdicts = store.entry(f"verdicts/{shard_name(shard)}")
        if entry is None or verdicts is None or verdicts.key != winnow_key(local, [entry.sha256]):
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
            sample=sample_shard,
            winnow=lambda shard: executor.apart(winnow_shard, begun.root, shard),
        )
        winnow_corpus(begun.root)
    return release(begun.root)


def drive(
    begun: Begun,
    progress: Progress,
    executor: LocalExecutor,
    *,
    sample: Callable[[str, int, Sampler, Progress], Any],
    winnow: Callable[[int], Any],
) -> None:
    """Sample the missing shards and filter each as soon as it is sampled. `sample` and `winnow` are the steps themselves, or
    Prefect tasks round them. Raises the first error, after what was under way is done."""
    if not begun.missing:
        executor.overlap([], range(begun.shards), lambda shard: None, winnow, in_flight=1)
        return
    assert begun.model is not None
    progress.begin(begun)
    with open_sampler(begun.recipe, begun.model, base=begun.base, seed=begun.sampler_seed) as sampler:
        progress.sampling(sampler.facts)
        through(begun, sampler, progress, executor, sample=sample, winnow=winnow)


def through(
    begun: Begun,
    sampler: Sampler,
    progress: Progress,
    executor: LocalExecutor,
    *,
    sample: Callable[[str, int, Sampler, Progress], Any] = sample_shard,
    winnow: Callable[[int], Any],
) -> None:
    """Pass the missing shards through a sampler that is warm, with enough of them in flight to fill it twice."""
    per_prompt = begun.recipe.sampling.samples_per_prompt + begun.recipe.sampling.anchor
    shard_samples = max(begun.recipe.run.shard_samples, per_prompt)
    in_flight = begun.recipe.run.shards_in_flight or min(64, 2 + -(-2 * sampler.facts.sequences // shard_samples))
    executor.overlap(
        begun.missing,
        range(begun.shards),
        lambda shard: sample(begun.root, shard, sampler, progress),
        winnow,
        in_flight=in_flight,
        stop=sampler.close,
    )


# -- inside --------------------------------------------------------------------------------------------------------------


def _groups(prompts: list[Prompt], recipe: Recipe, parameters: dict[bool, dict[str, Any]]) -> Iterator[Group]:
    """The samples of each prompt as one group, so that the engine shares its prefix, and its anchor as another."""
    for row, prompt in enumerate(prompts):
        yield Group(2 * row, prompt.messages, recipe.sampling.samples_per_prompt, parameters[False])
        if recipe.sampling.anchor:
            yield Group(2 * row + 1, prompt.messages, 1, parameters[True])


def _tokens(group: Drawn) -> int:
    return sum(len(c.token_ids) for c in group.completions if c.token_ids is not None)


def _planned(store: Store, loaded: Loaded, recipe: Recipe, model: models.Model, key: str) -> Begun:
    """Write the plan, unless it is there, and find the shards that lack samples."""
    entry = store.finished("prompts", key)
    if entry is None:
        per_prompt = recipe.sampling.samples_per_prompt + recipe.sampling.anchor
        size = max(1, recipe.run.shard_samples // per_prompt)
        prompts = list(plan(recipe, loaded.base))
        groups = [prompt_table(prompts[at : at + size]) for at in range(0, len(prompts), size)]
        families: dict[str, int] = {}
        for prompt in prompts:
            families[prompt.family] = families.get(prompt.family, 0) + 1
        facts = {"shards": len(groups), "prompts": len(prompts), "families": families}
        entry = store.write_groups("prompts", PROMPTS, groups, key=key, facts=facts)
    shards, hashed = int(entry.facts["shards"]), 0
    missing = []
    for shard in range(shards):
        done = store.finished(f"samples/{shard_name(shard)}", key, hashed=hashed < HASHED_BYTES)
        if done is None:
            missing.append(shard)
        else:
            hashed += done.bytes
    return Begun(store.root, shards, missing, recipe, model, loaded.base)


def _open(store: Store, manifest: RunManifest) -> None:
    """Write run.json, or compare with the one there: filters and dataset may change, what is sampled may not."""
    found = store.manifest()
    if found is not None and found.sampling_key != manifest.sampling_key:
        theirs, ours = found.model.get("decides", {}), manifest.model["decides"]
        changed = ", ".join(_differences(theirs, ours, "")) or "what is sampled"
        raise StoreError(
            f"{store.path('run.json')}: this directory holds a run of other samples; {changed}; "
            "choose another directory with --out, or remove this one"
        )
    if found is None or found.recipe != manifest.recipe:
        store.write_model("run.json", manifest)


def _differences(theirs: Any, ours: Any, key: str) -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in sorted(theirs.keys() | ours.keys()):
            yield from _differences(theirs.get(name), ours.get(name), f"{key}.{name}".removeprefix("."))
    elif theirs != ours:
        yield f"{key} was {str(theirs)[:60]} and is now {str(ours)[:60]}"


def _fingerprints(recipe: Recipe, base: Path) -> dict[str, str]:
    files = [base / s.source.path for s in recipe.prompts if isinstance(s.source, JsonlSource | ParquetSource)]
    return {file.name: _fingerprint(file) for file in files if file.is_file()}


def _fingerprint(file: Path) -> str:
    """Hash of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _prompt_format(recipe: Recipe, model: models.Model) -> str:
    wanted = recipe.model.prompt_format
    return wanted if wanted != "auto" else "chat" if model.chat_template_sha256 else "text"
