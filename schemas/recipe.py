"""The recipe: one YAML file that says what to sample, from which prompts and model, and which samples to keep.

`make schemas` writes schemas/recipe.schema.json from these models. thresher.inputs.recipe_file validates a file against it before
it builds the models. The docstring of each field is its description there and in docs/recipe.md.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from schemas.dataset import Dataset, PublishSpec
from schemas.engines import Engine, HttpEngine, ModelEntry, ModelSpec, ReplayEngine, VllmEngine
from schemas.executors import ExecutorSpec, LocalExecutorSpec, RunSpec
from schemas.part import Name, Part
from schemas.prompt_sets import PromptSet
from schemas.repeats import DedupeSpec, NearMissSpec
from schemas.sampling import Sampling

MOST_KEPT_CHAT = 19
"""Likeliest tokens that a chat answer surely lists: vLLM and OpenAI give 20, one of which may be the drawn token instead."""
EVERY_FAMILY = "all"
"""Name of all families together in the audit; no family may have it."""


class FilterSpec(Part):
    """One filter. A sample that it does not keep is not shown to the filters after it; see run.filter_order for their order."""

    name: str
    """Registered name, or `module:build` for your own filter, which needs your consent; see docs/security.md."""
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
    models: tuple[ModelEntry, ...] = ()
    """Several models to draw from, instead of `model`. Each draws its own samples of the prompts that it answers, one model
    after the other. See docs/models.md."""
    engine: Engine = VllmEngine()
    """What runs the model; of several models those without an engine of their own."""
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

    def of_model(self, number: int) -> "Recipe":
        """The recipe as one of its models draws by it: `model` and `engine` are those of this model, counted from 0."""
        if not self.models:
            return self
        entry = self.models[number]
        return self.model_copy(update={"model": entry, "engine": entry.engine or self.engine, "models": ()})

    def of_each_model(self) -> tuple["Recipe", ...]:
        """The recipe as each of its models draws by it; itself where it names one model."""
        return tuple(self.of_model(number) for number in range(max(1, len(self.models))))

    @model_validator(mode="after")
    def _models_agree(self) -> "Recipe":
        if not self.models:
            return self
        if self.model != ModelSpec():
            raise ValueError("wanted model, one model, or models, a list of them: one of the two; move the model into the list")
        if len(set(map(str, self.models))) < len(self.models):
            raise ValueError("models: two entries are equal, so they would draw the same samples; remove one")
        if self.sampling.target_rows is not None:
            raise ValueError(
                "sampling.target_rows counts the rows of all models, and the first could draw them all; remove it, or run a "
                "recipe for each model"
            )
        families = [prompts.family for prompts in self.prompts]
        for number, entry in enumerate(self.models):
            unknown = sorted(set(entry.families or ()) - set(families))
            if unknown and families:
                raise ValueError(f"models[{number}]: {entry.name} names the family {unknown[0]}, but prompts has only {families}")
        idle = [name for name in families if not any(entry.families is None or name in entry.families for entry in self.models)]
        if idle:
            raise ValueError(f"models: no model answers the family {idle[0]}; name it in one of them, or remove its prompts")
        return self

    @model_validator(mode="after")
    def _engines_can_force(self) -> "Recipe":
        for recipe in self.of_each_model():
            recipe._engine_can_force()
        return self

    def _engine_can_force(self) -> None:
        sampling, engine = self.sampling, self.engine
        wanted = [*sampling.declared, *(["keep_top_logprobs"] if sampling.keep_top_logprobs else [])]
        if isinstance(engine, ReplayEngine) and wanted:
            raise ValueError(f"sampling.{wanted[0]}: the engine replay draws nothing, so it cannot do this; remove it")
        if sampling.thinking_tokens is not None and self.model.reasoning is None:
            raise ValueError(
                "sampling.thinking_tokens and model.reasoning null contradict each other: the end of the thinking cannot be "
                "forced without its marks; remove one of them"
            )
        if isinstance(engine, HttpEngine) and engine.api == "completions" and sampling.reasoning_effort is not None:
            raise ValueError(
                "sampling.reasoning_effort is an argument of the chat template, and engine.api completions has none; set "
                "engine.api to chat, or remove it"
            )
        if isinstance(engine, HttpEngine) and engine.api == "chat" and (sampling.keep_top_logprobs or 0) > MOST_KEPT_CHAT:
            raise ValueError(
                f"sampling.keep_top_logprobs {sampling.keep_top_logprobs}: a chat server lists 20 tokens per position, and the "
                f"drawn one takes the place of the last; lower it to {MOST_KEPT_CHAT}, or set engine.api to completions"
            )
        if "distill" in self.dataset.views and sampling.keep_top_logprobs is None:
            raise ValueError(
                "dataset.views names distill, which shows the likeliest tokens of each position; set "
                "sampling.keep_top_logprobs (such as 8), or remove distill"
            )

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
