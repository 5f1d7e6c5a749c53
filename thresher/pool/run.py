"""A run, opened: every step, filter pass, audit and view is given one.

It lies below the steps, because everything that reads a pool takes one. `thresher.running.open_run` starts runs; `open_run` here
opens an existing one.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from filters import trust
from filters.reasoning import Marking
from schemas.dataset import PublishSpec
from schemas.manifest import RunManifest
from schemas.recipe import Recipe
from thresher.errors import StoreError
from thresher.inputs.adapters import Adapter
from thresher.inputs.models import Model
from thresher.inputs.recipe_file import spelled
from thresher.inputs.recipe_trust import Key, refusals
from thresher.inputs.thinking import marking_from
from thresher.pool import judged
from thresher.pool.rows import COMPLETION_PARTS
from thresher.pool.store import Store, shard_name

AGAIN = {"sampled": "thresher run", "brought": "thresher filter"}
"""The command that completes a run, by its origin."""


@dataclass(frozen=True)
class Run:
    """One run directory and what it is. Opened once per process and passed down; it can be pickled, so that filter processes and
    actors are given it instead of opening the run again."""

    store: Store
    manifest: RunManifest
    named: bool = False
    """Whether its recipe is one that the user named for this run, and not only what run.json says."""

    @property
    def root(self) -> str:
        """The run directory or its URL, as it was named."""
        return self.store.root

    @property
    def recipe(self) -> Recipe:
        """The recipe in full, defaults filled in."""
        return self.manifest.recipe

    @cached_property
    def base(self) -> Path:
        """The recipe's directory: relative paths of the recipe start there. Raises StoreError (require_consent)."""
        self.require_consent(publishes=False)
        return Path(self.manifest.base)

    def require_consent(self, *, publishes: bool) -> None:
        """Raise StoreError where the recipe of a run that others may have made names code, or files and folders elsewhere, that
        judging would use and the user has not allowed (filters.trust). With `publishes`, so is the repository that it names."""
        if self.named:
            return
        recipe = self.recipe if publishes else self.recipe.model_copy(update={"publish": PublishSpec()})
        try:
            refused = next(refusals(recipe, Path(self.manifest.base), self.home, drawn=False), None)
        except trust.ConfigError as error:
            raise StoreError(str(error)) from error
        if refused is not None:
            key, why = refused
            raise StoreError(f"{self.where(key)}: {why}")

    @property
    def home(self) -> Path:
        """The folder whose files the recipe may name, besides the working directory and the user's roots: that of its project if
        the user named it, else the run directory."""
        if self.named:
            return trust.project_of(Path(self.manifest.base))
        return Path(self.store.base if self.store.local else self.root)  # a URL is no local folder

    def where(self, key: Key) -> str:
        """The place of a key of the recipe in run.json."""
        return f"{self.store.path('run.json')}: {spelled(('recipe', *key))}"

    @property
    def key(self) -> str:
        """The sampling key: hash of everything that decides which samples are drawn."""
        return self.manifest.sampling_key

    @property
    def sampled(self) -> bool:
        """Whether its samples were drawn from an engine; otherwise they are the user's own."""
        return self.manifest.origin == "sampled"

    @property
    def command(self) -> str:
        """The command that completes it."""
        return AGAIN[self.manifest.origin]

    @cached_property
    def models(self) -> tuple["Run", ...]:
        """The run as each of its models sees it: with the recipe by which that model draws (`recipe.model`, `recipe.engine`) and
        with its own notes; the run itself where it has one model. Empty where the samples are the user's own."""
        noted = self.manifest.model.get("models")
        if noted is None:
            return (replace(self),) if self.sampled else ()
        recipes = self.recipe.of_each_model()
        return tuple(
            replace(self, manifest=self.manifest.model_copy(update={"model": dict(model), "recipe": recipe}))
            for model, recipe in zip(noted, recipes, strict=True)
        )

    @property
    def several(self) -> bool:
        """Whether it draws from several models."""
        return "models" in self.manifest.model

    @property
    def label(self) -> str:
        """The name of its model among those of the run, in words."""
        return str(self.manifest.model.get("label") or self.manifest.model.get("name"))

    @property
    def model_key(self) -> str:
        """The hash of what identifies its model among several; empty where the run has one."""
        return str(self.manifest.model.get("key", ""))

    @property
    def first_key(self) -> str:
        """The key of the model with which the run began, where others were added later; else empty."""
        return str(self.manifest.model.get("began_with", ""))

    @cached_property
    def prompt_format(self) -> str:
        """The form of messages in the views: `text`, or `chat` with the further parts that occur (thresher.dataset.messages)."""
        form = str(self.manifest.model["prompt_format"])
        plan, reasoning = self.store.entry("prompts"), self.recipe.dataset.reasoning
        if form == "text":
            return form
        parts = {*(plan.facts.get("parts", ()) if plan else ()), *self._completion_parts()}
        if reasoning != "keep":
            parts -= {"reasoning_content"} - set(plan.facts.get("parts", ()) if plan else ())
        return "+".join([form, *sorted(parts), *(["inline"] if reasoning == "inline" else [])])

    def _completion_parts(self) -> set[str]:
        """The parts of messages that completions have besides their text, as the entries of the shards note them."""
        parts: set[str] = set()
        for shard in judged.sampled(self.store):
            entry = self.store.entry(f"samples/{shard_name(shard)}")
            parts |= set(entry.facts.get("parts", ()) if entry else ())
            if len(parts) == len(COMPLETION_PARTS):
                break
        return parts

    @cached_property
    def marking(self) -> Marking | None:
        """How the model marks its thinking; None where nothing is taken apart."""
        return marking_from(self.manifest.model.get("reasoning"))

    @cached_property
    def model(self) -> Model | None:
        """The model as the manifest notes it; None where the samples are the user's own, or of several models (`models`)."""
        if not self.sampled or self.several:
            return None
        noted: Mapping[str, Any] = self.manifest.model
        fields = {name: noted[name] for name in Model.__dataclass_fields__ if name != "adapter"}
        adapter = noted.get("adapter")
        return Model(**fields, adapter=None if adapter is None else Adapter(**adapter))

    @property
    def settings(self) -> Mapping[str, Any]:
        """The engine's settings that can change the distribution (thresher.inputs.identity)."""
        settings: Mapping[str, Any] = self.manifest.model.get("settings") or {}
        return settings

    @property
    def template(self) -> str | None:
        """The hash of the chat template, where it is part of what identifies a sample."""
        template: str | None = self.manifest.model.get("template")
        return template

    @property
    def enough(self) -> bool:
        """Whether it has its target_rows, so that the shards without samples are not needed."""
        target = self.recipe.sampling.target_rows if self.sampled else None
        return target is not None and judged.hits(self.store) >= target

    def samples(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The samples, a table per shard: the columns of the pool (all, or the ones named) and what became of each sample
        (docs/formats.md: outcome, kind, reason, ...). Raises StoreError on a damaged file."""
        yield from judged.each_judged(self.store, columns)

    def verdicts(self) -> Iterator[pa.Table]:
        """The verdicts, a table per shard (schema VERDICTS). Raises StoreError on a damaged file."""
        for shard in judged.sampled(self.store):
            yield judged.verdicts(self.store, shard)[0]

    def view(self, name: str, split: str = "train") -> Iterator[pa.Table]:
        """A view of the finished dataset, a table per file; none where it has no rows. Raises StoreError where the dataset is not
        written or damaged, or has no such view."""
        entry = self.store.entry("dataset")
        if entry is None:
            raise StoreError(f"{self.root}: has no dataset yet; run `{self.command}` again to complete the run")
        if name not in entry.facts["views"] and name not in self.recipe.dataset.views:
            raise StoreError(f"{self.root}: its dataset has no view {name!r}; wanted one of {', '.join(entry.facts['views'])}")
        for file in entry.facts["files"]:
            if file.startswith(f"{name}/{split}/"):
                data = self.store.read_bytes(f"dataset/{file}")
                if not hashlib.sha256(data).hexdigest().startswith(digest_of(file)):
                    raise StoreError(
                        f"{self.store.path(f'dataset/{file}')}: damaged, its SHA-256 differs from the one in its name; run "
                        f"`{self.command}` again: it writes the dataset again"
                    )
                yield pq.read_table(pa.BufferReader(data))


def digest_of(file: str) -> str:
    """The first digits of the SHA-256 of a file of a dataset, which its name ends with."""
    return file.removesuffix(".parquet").rpartition("-")[2]


def open_run(root: str | Path | Store) -> Run:
    """Open a run directory. Raises StoreError where there is none, and on a pool of another version."""
    store = root if isinstance(root, Store) else Store(root)
    manifest = store.manifest()
    if manifest is None:
        raise StoreError(f"{store.root}: not a run directory (it has no run.json); give the directory of a run")
    return Run(store, manifest)
