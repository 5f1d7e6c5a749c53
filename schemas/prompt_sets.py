"""Families of prompts in a recipe: where their rows come from, and how a row becomes chat messages."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas.part import Name, Part


class Turn(Part):
    """One worked example, shown to the model as a user turn and an assistant turn."""

    user: str
    """The user's message, as plain text."""
    assistant: str
    """The answer to imitate."""


class JsonlSource(Part):
    """One JSON object per line; plain, or compressed with gzip, zstd, bzip2 or xz."""

    kind: Literal["jsonl"]
    path: str
    """File, directory, or pattern such as `chats/*.jsonl.gz`, relative to the recipe."""


class ParquetSource(Part):
    """Parquet or Arrow IPC files. Several are one table: a column that a file lacks is null there."""

    kind: Literal["parquet"]
    path: str
    """File, directory, or pattern such as `data/train-*.parquet`, relative to the recipe."""


class DatasetSource(Part):
    """Any dataset that `datasets.load_dataset` reads: a Hub id or a local dataset directory."""

    kind: Literal["dataset"]
    path: str
    """Hub id (`org/name`), or a directory relative to the recipe."""
    config: str | None = None
    """Name of the config (subset); null takes the default config."""
    split: str = "train"
    """Name of the split. A dataset that save_to_disk wrote, if it is no DatasetDict, has only the split that it was made of."""
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


TEMPLATE_ARGUMENTS_TAKEN = (
    "messages", "conversation", "tools", "tokenize", "chat_template", "add_generation_prompt", "continue_final_message",
    "return_dict", "return_tensors", "return_assistant_tokens_mask", "tokenizer_kwargs", "padding", "truncation", "max_length",
)  # fmt: skip
"""Arguments of a chat template that thresher sets itself; `chat_template_kwargs` may not."""

Source = Annotated[JsonlSource | ParquetSource | DatasetSource | ReasoningGymSource | GridSource, Field(discriminator="kind")]


class PromptSet(Part):
    """One family of prompts: where its rows come from and how a row becomes chat messages."""

    family: Name
    """Name of the task family. Statistics are reported per family, and a filter may be limited to some families."""
    source: Source
    """Where the rows come from."""
    template: str | None = "{{ question }}"
    """Sandboxed Jinja template of the user's message, over the fields of the row. A field that the row lacks is an error, and so
    is a list or an object that is written as it is: use `{{ field | tojson }}` or `{{ field | join(', ') }}`. A set with
    `messages` has no template."""
    messages: str | None = None
    """Field that holds a conversation (chat messages), which is taken as it is; null makes the user's message from `template`.
    docs/prompts.md has the forms that are read. A row whose conversation cannot be carried (an image, an unknown role, no user
    turn) is left out and counted."""
    until: Literal["all", "last_user", "before_answer"] = "all"
    """How much of the conversation in `messages` is the prompt. `all`: every turn. `last_user`: up to the last turn of the user.
    `before_answer`: up to the turn before the last one of the assistant, so that calls of tools and their results before that
    answer stay."""
    reference_from_messages: bool = False
    """Take the last turn of the assistant that `until` cut off as the reference: its text, or, if it calls tools, the list of
    {name, arguments}. It replaces `reference`."""
    tools: str | None = None
    """Field that holds the tools that the model may call: a list of function tools with JSON Schemas, given to the chat template.
    A row may lack it."""
    chat_template_kwargs: dict[str, Any] | str | None = None
    """Further arguments of the chat template, such as {enable_thinking: false}: a mapping for all rows, or the name of the field
    that holds each row's mapping."""
    system: str | None = None
    """Template of the system message, over the same fields; null sends none. A conversation in `messages` that has a system
    message of its own is refused if this renders to another one."""
    few_shot: tuple[Turn, ...] = ()
    """Worked examples, sent as chat turns before the question, or before the conversation in `messages` and after its system
    message."""
    reference: str | tuple[str, ...] | None = "answer"
    """Field that holds the reference answer (any JSON value), or several fields, which become an object; null if the prompts have
    no reference. A row may lack the field."""
    reference_template: str | None = None
    """Jinja template that renders the reference from the row instead. The result is text."""
    metadata: tuple[str, ...] | None = None
    """Fields stored beside each sample; null stores all fields except the reference, the conversation, its tools and template
    arguments, and columns of images or sound. Columns that no setting names are not read from Parquet files and datasets."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only this many rows, from the first; null uses all."""
    license: str | None = None
    """Licence of the prompts for the dataset card, as a Hub identifier such as `mit`."""

    @model_validator(mode="before")
    @classmethod
    def _one_origin(cls, values: Any) -> Any:
        """Messages replace the template, and the reference from messages the field."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for chosen, replaced in (("messages", "template"), ("reference_from_messages", "reference")):
            if values.get(chosen):
                if values.get(replaced) is not None:
                    raise ValueError(f"{chosen} and {replaced} exclude each other; remove one")
                values[replaced] = None
        return values

    @model_validator(mode="after")
    def _settings_agree(self) -> "PromptSet":
        if self.messages is None and self.template is None:
            raise ValueError("template: a set without messages needs one; write the template of the user's message")
        for name in ("until", "reference_from_messages"):
            if self.messages is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} applies to conversations; name their field in messages, or remove {name}")
        if self.reference_from_messages and self.until == "all":
            raise ValueError("reference_from_messages needs an answer that is cut off: set until to last_user or before_answer")
        if self.reference_from_messages and self.reference_template is not None:
            raise ValueError("reference_from_messages and reference_template exclude each other; remove one")
        if isinstance(self.chat_template_kwargs, dict):
            taken = sorted(self.chat_template_kwargs.keys() & set(TEMPLATE_ARGUMENTS_TAKEN))
            if taken:
                raise ValueError(f"chat_template_kwargs: {taken[0]} is set by thresher; remove it")
        return self
