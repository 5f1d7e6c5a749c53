"""Starts a run or opens it again: resolves its model, builds its filters, writes run.json and the plan, finds what is missing."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters import trust
from filters.tools import Tools
from schemas.manifest import Entry, RunManifest
from schemas.prompt_sets import DatasetSource, JsonlSource, ParquetSource
from schemas.recipe import Recipe
from schemas.sample import PROMPTS, Prompt, to_json
from thresher import __version__, ids
from thresher.errors import RecipeError, SourceError, StoreError
from thresher.inputs.files.named_files import TABLES, NamedFile, all_named, files_below, named_files
from thresher.inputs.parser_names import check_parsers
from thresher.inputs.prompts import Refusals, plan, prompt_table
from thresher.inputs.recipe_file import Loaded
from thresher.inputs.thinking import marking_of, noted
from thresher.judging.build import build_filters
from thresher.pool import journal, judged
from thresher.pool.ingest import ingest
from thresher.pool.model_rows import has_samples
from thresher.pool.rows import parts_of_prompts
from thresher.pool.run import Run
from thresher.pool.store import HASHED_BYTES, Store, shard_name
from thresher.pool.undrawn import may_be_tried_again
from thresher.pool.wanted import shards_of
from thresher.running import describe_models


@dataclass(frozen=True)
class Begun:
    """A run that may be sampled: its number of shards, and the shards that still lack samples."""

    run: Run
    shards: int
    lacking: tuple[list[int], ...]
    """The shards that lack samples of each model, in the order of the recipe."""
    undrawn: frozenset[int] = frozenset()
    """Those that lack only samples which could not be drawn before, and are tried again."""

    @property
    def missing(self) -> list[int]:
        """The shards that lack samples of any model."""
        return sorted({shard for shards in self.lacking for shard in shards})

    @property
    def root(self) -> str:
        """The run directory."""
        return self.run.root

    @property
    def recipe(self) -> Recipe:
        """The recipe in full."""
        return self.run.recipe

    @property
    def enough(self) -> bool:
        """Whether the run has its target_rows, whatever is left to sample."""
        return self.run.enough


BUDGET = {
    "samples_per_prompt", "target_hits", "max_samples_per_prompt", "give_up_below", "target_rows", "anchor", "seeds",
    "calibration",
}  # fmt: skip
"""Settings of `sampling` that decide how many samples are drawn, and not which: a run continues when they change."""


def begin(
    loaded: Loaded, out: str | Path | None = None, *, salt: str | None = None, prompts: Iterable[Prompt] | None = None
) -> Begun:
    """Start the run of a recipe, or open it again: resolve the model, build the filters, write the plan. `prompts` replace the
    recipe's.

    Raises RecipeError, ModelError, SourceError; StoreError when `out` holds a run of other samples.
    """
    recipe = loaded.recipe
    if salt is not None:
        recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"salt": salt})})
    if not recipe.prompts:
        raise SourceError(
            f"{loaded.where(())}: the recipe has no prompts; add `prompts`, or filter your own samples: thresher filter"
        )
    store = Store(_placed(recipe, str(out or f"data/runs/{recipe.name}")))
    recipe = _with_its_index(recipe, store, loaded.base)
    build_filters(recipe, Tools(loaded.base, loaded.home), imported=False, where=loaded.where)
    described = describe_models.describe(loaded)
    sampling = recipe.sampling.model_dump(mode="json")
    decides = {
        "prompts": [prompts.model_dump(mode="json", exclude={"license"}) for prompts in recipe.prompts],
        "files": _fingerprints(recipe, loaded.base),
        **described["decides"],
        "sampling": {name: value for name, value in sampling.items() if name not in BUDGET and value is not None},
        "salt": recipe.run.salt,
    }
    manifest = RunManifest(
        name=recipe.name,
        origin="sampled",
        sampling_key=ids.digest(decides),
        recipe=recipe,
        base=str(loaded.base.absolute()),
        model={**described, "decides": decides},
        thresher_version=__version__,
    )
    with store.writing("thresher run"):
        return _planned(Run(store, _open(store, manifest), named=True), loaded.base, prompts)


def begin_brought(
    loaded: Loaded, samples: str | Path | Sequence[str | Path], out: str | Path, *, allow_empty: bool = False
) -> Begun:
    """Import a user's own samples into a pool instead of sampling: those of a file, of the files in a folder, of the files that a
    pattern matches, or of several of these. A file in which no row can be read is refused unless `allow_empty`. Raises
    SourceError, StoreError, RecipeError."""
    if loaded.recipe.models:
        raise RecipeError(
            f"{loaded.where(('models',))}: nothing is drawn for your own samples; remove it, and set model.reasoning where their "
            "reasoning has marks of its own"
        )
    build_filters(loaded.recipe, Tools(loaded.base, loaded.home), imported=True, where=loaded.where)
    check_parsers(loaded.recipe.model, None, loaded.where)
    given = [samples] if isinstance(samples, str | Path) else list(samples)
    files = all_named(given)
    store = Store(out)
    marking = marking_of(loaded.recipe.model, "")
    decides = {"samples": _fingerprint(files, given[0]), "reasoning": noted(marking)}
    manifest = RunManifest(
        name=loaded.recipe.name,
        origin="brought",
        sampling_key=ids.digest(decides),
        recipe=loaded.recipe,
        base=str(loaded.base.absolute()),
        model={
            "prompt_format": "chat",
            "samples": ", ".join(Path(each).name for each in given),
            "reasoning": noted(marking),
            "decides": decides,
        },
        thresher_version=__version__,
    )
    is_new = store.manifest() is None  # an error before anything is written, where it is of another version
    with store.writing("thresher filter"):
        manifest = _open(store, manifest)
        try:
            shards = ingest(
                files,
                store,
                key=manifest.sampling_key,
                marking=marking,
                allow_empty=allow_empty,
                shard_bytes=loaded.recipe.run.shard_bytes,
            )
        except SourceError:
            if is_new:  # The directory stays free for the mended samples.
                store.remove("run.json")
                store.remove("begun.json")
            raise
    return Begun(Run(store, manifest, named=True), shards, ())


# -- inside --------------------------------------------------------------------------------------------------------------


def _placed(recipe: Recipe, root: str) -> str:
    """On a cluster a path must not depend on the directory in which a process was started."""
    return str(Path(root).absolute()) if recipe.executor.kind == "ray" and "://" not in root else root


def _with_its_index(recipe: Recipe, store: Store, base: Path) -> Recipe:
    """Keep the index of released samples that a schedule gave the run, where the recipe itself sets none."""
    before = store.manifest()
    released = before.recipe.dedupe.released if before is not None and before.recipe.dedupe is not None else None
    if released is None or recipe.dedupe is None or "released" in recipe.dedupe.model_fields_set:
        return recipe
    if refused := trust.refused_path(base / released.index, *([Path(store.base)] if store.local else [])):
        raise StoreError(f"{store.path('run.json')}: recipe.dedupe.released.index: {refused}")
    dedupe = recipe.dedupe.model_copy(update={"released": released})
    return recipe.model_copy(update={"dedupe": dedupe})


def _planned(run: Run, base: Path, prompts: Iterable[Prompt] | None) -> Begun:
    """Write the plan, unless it is written, and find the shards that lack samples."""
    store, recipe = run.store, run.recipe
    entry = store.finished("prompts", run.key)
    if entry is None:
        refused: Refusals = {}
        entry = _write_plan(run, plan(recipe, base, refused=refused) if prompts is None else prompts, refused)
    shards, hashed = int(entry.facts["shards"]), 0
    lacking: list[list[int]] = [[] for _ in run.models]
    undrawn = set(range(shards))
    for shard in range(shards):
        samples = store.finished(f"samples/{shard_name(shard)}", run.key, hashed=hashed < HASHED_BYTES)
        if samples is not None:
            hashed += samples.bytes
        for one, lacks in zip(run.models, lacking, strict=True):
            if samples is None or not has_samples(samples, run, one):
                lacks.append(shard)
                undrawn.discard(shard)
            elif may_be_tried_again(samples, one):
                lacks.append(shard)
    begun = Begun(run, shards, tuple(lacking), frozenset(undrawn))
    missing = set(begun.missing)
    for name in store.names(journal.FOLDER, ".arrows"):  # of shards that were finished right before an interruption
        if int(name.partition("-")[0]) not in missing:
            store.remove(f"{journal.FOLDER}/{name}")
    return begun


def _write_plan(run: Run, prompts: Iterable[Prompt], refused: Refusals) -> Entry:
    """Write the prompts, a row group for each shard. Memory holds one shard."""
    families, parts, facts = Counter[str](), set[str](), dict[str, Any]()

    def groups() -> Iterator[pa.Table]:
        shards = text = 0
        for shards, (shard, size) in enumerate(shards_of(prompts, run.recipe), 1):  # noqa: B007
            table, text = prompt_table(shard), text + size
            families.update(prompt.family for prompt in shard)
            parts.update(parts_of_prompts(table))
            shard.clear()
            yield table
        facts.update(shards=shards, prompts=families.total(), text_bytes=text, families=dict(families), parts=sorted(parts))
        if refused:
            facts["left_out"] = {family: dict(reasons) for family, reasons in refused.items()}

    return run.store.write_groups("prompts", PROMPTS, groups(), key=run.key, facts=facts)


def _open(store: Store, manifest: RunManifest) -> RunManifest:
    """Write run.json, or compare it with the existing one: filters and dataset may change and models be added, the samples of the
    others may not change. Returns it with the sampling key that the run began with."""
    existing = store.manifest()
    theirs, ours = _decides(existing), _decides(manifest)
    if existing is not None and existing.sampling_key != manifest.sampling_key and theirs != ours:
        sampled = manifest.origin == existing.origin == "sampled"
        grown, first = describe_models.grown(theirs, ours, lambda: _drawn(store, existing)) if sampled else (False, "")
        if not grown:
            raise StoreError(_refusal(store, theirs, ours, str(existing.model.get("name"))))
        if first:
            manifest.model["began_with"] = first
    if existing is not None:
        if "began_with" in existing.model:
            manifest.model["began_with"] = existing.model["began_with"]
        manifest = manifest.model_copy(update={"sampling_key": existing.sampling_key})
    if existing is None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        store.write_bytes("begun.json", f'{{"begun": "{now}"}}\n'.encode())
    if existing is None or (existing.base, existing.recipe.model_dump()) != (manifest.base, manifest.recipe.model_dump()):
        store.write_model("run.json", manifest)
    return manifest


def _drawn(store: Store, existing: RunManifest) -> set[str]:
    """The keys of the models that have samples in the pool; of all of them where some are in a journal."""
    if store.names(journal.FOLDER, ".arrows"):
        return describe_models.keys_of(_decides(existing))
    first = existing.model.get("began_with", "")
    entries = (store.entry(f"samples/{shard_name(shard)}") for shard in judged.sampled(store))
    noted = [entry.facts.get("models", {first: {"rows": entry.rows}}) for entry in entries if entry is not None]
    return {key for models in noted for key, counts in models.items() if counts["rows"]}


def _decides(manifest: RunManifest | None) -> Any:
    return {} if manifest is None else json.loads(to_json(manifest.model.get("decides", {})))


def _refusal(store: Store, theirs: Any, ours: Any, name: str) -> str:
    """Why a directory is not that of a recipe, setting by setting."""
    if "models" in theirs or "models" in ours:
        theirs, ours = describe_models.by_label(theirs, name), describe_models.by_label(ours, "model")
    changed = ", ".join(_differences(theirs, ours, "")) or "the samples differ"
    return (
        f"{store.path('run.json')}: this directory holds a run of other samples; {changed}; "
        "choose another directory with --out, or remove this one"
    )


def _differences(theirs: Any, ours: Any, key: str) -> Iterator[str]:
    """Each value that differs, by its name: what it was and what it is. Nothing set is an empty object."""
    if isinstance(theirs, dict | None) and isinstance(ours, dict | None) and (theirs or ours):
        theirs, ours = theirs or {}, ours or {}
        for name in sorted(theirs.keys() | ours.keys()):
            yield from _differences(theirs.get(name), ours.get(name), f"{key}.{name}".removeprefix("."))
    elif theirs != ours:
        was, now = ("not set" if value is None else str(value)[:60] for value in (theirs, ours))
        yield f"{key} was {was} and is now {now}"


def _fingerprints(recipe: Recipe, base: Path) -> dict[str, str]:
    """The hash of the files of each source that is read from files, by the name of the file, or by the source's path. A source
    without files has none; the plan says what is wrong with it."""
    found: dict[str, str] = {}
    for source in (prompt_set.source for prompt_set in recipe.prompts):
        try:
            match source:
                case JsonlSource():
                    files = named_files(source.path, base, ("JSONL",))
                case ParquetSource():
                    files = named_files(source.path, base, TABLES)
                case DatasetSource() if (base / source.path).is_dir():
                    files = files_below(source.path, base)
                case _:
                    continue
        except SourceError:
            continue
        name = files[0].name if _is_one(files, source.path) else source.path
        hashed = _fingerprint(files, source.path)
        found[name if found.get(name, hashed) == hashed else source.path] = hashed
    return found


def _fingerprint(files: Sequence[NamedFile], given: str | Path) -> str:
    """Hash of a file's bytes; of a folder or a pattern, hash of the names of its files and the hashes of their bytes. Raises
    SourceError."""
    hashed = []
    for file in files:
        try:
            with file.path.open("rb") as stream:
                hashed.append(hashlib.file_digest(stream, "sha256").hexdigest())
        except OSError as error:
            raise SourceError(f"{file.shown}: cannot be read: {error.strerror or error}") from error
    if _is_one(files, given):
        return hashed[0]
    return ids.digest([[file.name, each] for file, each in zip(files, hashed, strict=True)])


def _is_one(files: Sequence[NamedFile], given: str | Path) -> bool:
    """Whether the user named a single file."""
    return len(files) == 1 and files[0].shown == str(given)
