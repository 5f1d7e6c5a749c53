"""Families of prompts in a recipe: where their rows come from, and how a row becomes chat messages."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.part import Name, Part


class Turn(Part):
    """One worked example, shown to the model as a user turn and an assistant turn."""

    user: str
    """The user's message, as plain text."""
    assistant: str
    """The answer to imitate."""


class JsonlSource(Part):
    """One JSON object per line."""

    kind: Literal["jsonl"]
    path: str
    """File, relative to the recipe."""


class ParquetSource(Part):
    """A Parquet or Arrow IPC file, or a directory of Parquet files."""

    kind: Literal["parquet"]
    path: str
    """File or directory, relative to the recipe."""


class DatasetSource(Part):
    """Any dataset that `datasets.load_dataset` reads: a Hub id or a local dataset directory."""

    kind: Literal["dataset"]
    path: str
    """Hub id (`org/name`), or a directory relative to the recipe."""
    config: str | None = None
    """Name of the config (subset); null takes the default config."""
    split: str = "train"
    """Name of the split."""
    revision: str | None = None
    """Branch, tag or commit on the Hub. Name a commit for a run that can be repeated; `main` moves."""


class ReasoningGymSource(Part):
    """A task family of reasoning-gym. Its rows are generated and have the fields `question` and `answer`."""

    kind: Literal["reasoning_gym"]
    name: str
    """Family, as in `reasoning_gym.create_dataset(name)`. The nine families that evaluate an answer as code are refused."""
    size: Annotated[int, Field(ge=1)]
    """Number of prompts."""
    seed: int = 0
    """Seed of the first item. Item i uses seed + i, so keep the seeds of two sources of one family at least `size` apart."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the family."""


class GridSource(Part):
    """Every combination of the listed values, in the order written; each combination is one row."""

    kind: Literal["grid"]
    fields: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    """Name of each field, and its values."""


Source = Annotated[JsonlSource | ParquetSource | DatasetSource | ReasoningGymSource | GridSource, Field(discriminator="kind")]


class PromptSet(Part):
    """One family of prompts: where its rows come from and how a row becomes chat messages."""

    family: Name
    """Name of the task family. Statistics are reported per family, and a filter may be limited to some families."""
    source: Source
    """Where the rows come from."""
    template: str = "{{ question }}"
    """Sandboxed Jinja template of the user's message, over the fields of the row. A field that the row lacks is an error, and so
    is a list or an object that is written as it is: use `{{ field | tojson }}` or `{{ field | join(', ') }}`."""
    system: str | None = None
    """Template of the system message, over the same fields; null sends none."""
    few_shot: tuple[Turn, ...] = ()
    """Worked examples, sent as chat turns before the question."""
    reference: str | tuple[str, ...] | None = "answer"
    """Field that holds the reference answer (any JSON value), or several fields, which become an object; null if the prompts have
    no reference. A row may lack the field."""
    reference_template: str | None = None
    """Jinja template that renders the reference from the row instead. The result is text."""
    metadata: tuple[str, ...] | None = None
    """Fields stored beside each sample; null stores all fields except the reference."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only this many rows, from the first; null uses all."""
    license: str | None = None
    """Licence of the prompts for the dataset card, as a Hub identifier such as `mit`."""
