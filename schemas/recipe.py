"""The recipe: one YAML file that says what to sample, from which prompts and model, and which samples to keep.

`make schemas` writes schemas/recipe.schema.json from these models. thresher.inputs.recipe_file validates a file against it before
it builds the models. The docstring of each field is its description there and in docs/recipe.md.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from schemas.dataset import Dataset, PublishSpec
from schemas.engines import Engine, ModelSpec, VllmEngine
from schemas.executors import ExecutorSpec, LocalExecutorSpec, RunSpec
from schemas.part import Name, Part
from schemas.prompt_sets import PromptSet
from schemas.repeats import DedupeSpec, NearMissSpec
from schemas.sampling import Sampling

EVERY_FAMILY = "all"
"""Name of all families together in the audit; no family may have it."""


class FilterSpec(Part):
    """One filter. A sample that it does not keep is not shown to the filters after it; see run.filter_order for their order."""

    name: str
    """Registered name, or `module:build` for your own filter."""
    families: tuple[Name, ...] | None = None
    """Judge only the samples of these families; null judges all."""
    reads: Literal["answer", "reasoning", "completion"] | None = None
    """What the filter judges: the answer without the model's reasoning, the reasoning, or the whole completion; null takes the
    filter's own choice, which is the answer for most."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The filter's own settings; see docs/filters.md, or `thresher schema FILTER`."""


class AuditSpec(Part):
    """What is done so that the filters can be audited."""

    exhaustive: bool = False
    """Show every sample to every filter that judges each sample by itself, so that the overlap of filters can be measured. The
    first filter that does not keep a sample still decides. It costs the time of the filters."""


class Recipe(Part):
    """A recipe of thresher: prompts, model, sampling, filters, dataset."""

    name: Name
    """Name of the run and of its directory."""
    prompts: tuple[PromptSet, ...] = ()
    """Families of prompts. Required for sampling; `thresher filter` takes your own samples instead."""
    model: ModelSpec = ModelSpec()
    """The model to draw from."""
    engine: Engine = VllmEngine()
    """What runs the model."""
    sampling: Sampling = Sampling()
    """How completions are drawn."""
    filters: tuple[FilterSpec, ...] = (FilterSpec(name="finished"),)
    """Which samples are kept, filter by filter in this order. Duplicates are found after them."""
    dedupe: DedupeSpec | None = DedupeSpec()
    """Which hits repeat others; null does not search for duplicates."""
    near_miss: NearMissSpec | None = NearMissSpec()
    """Which misses are near misses; null calls all of them misses."""
    dataset: Dataset = Dataset()
    """What is written."""
    publish: PublishSpec = PublishSpec()
    """Where the dataset is published, and when it is not."""
    run: RunSpec = RunSpec()
    """How the run is cut into shards."""
    executor: ExecutorSpec = LocalExecutorSpec()
    """Where the run is executed."""
    audit: AuditSpec = AuditSpec()
    """What is done so that the filters can be audited."""

    @model_validator(mode="after")
    def _names_agree(self) -> "Recipe":
        families = [prompts.family for prompts in self.prompts]
        if EVERY_FAMILY in families:
            raise ValueError(
                f"prompts: {EVERY_FAMILY!r} is the name of all families together in the audit; give the family another name"
            )
        if len(set(families)) < len(families):
            twice = sorted({family for family in families if families.count(family) > 1})
            raise ValueError(f"prompts: two sets are named {', '.join(twice)}; give each family one name")
        for spec in self.filters:
            unknown = sorted(set(spec.families or ()) - set(families))
            if unknown and families:
                raise ValueError(f"filters: {spec.name} names the family {unknown[0]}, but prompts has only {families}")
        return self
