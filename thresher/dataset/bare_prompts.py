"""Prompts without the worked examples of their recipe, for the view `sft` with `dataset.prompt: bare`."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.prompt_sets import PromptSet

Examples = Mapping[str, tuple[str, ...]]
"""For each family with worked examples, the texts of their turns."""

SYSTEM_ROLES = ("system", "developer")


def examples_of(prompt_sets: Sequence[PromptSet]) -> Examples:
    """The worked examples of each family."""
    turns = {part.family: tuple(text for turn in part.few_shot for text in (turn.user, turn.assistant)) for part in prompt_sets}
    return {family: texts for family, texts in turns.items() if texts}


def without_examples(rows: pa.Table, examples: Examples) -> pa.Table:
    """The rows with `messages` that lack the worked examples of their `family`. They stand after the system messages; turns that
    are not the examples, as in prompts of another recipe, stay."""
    if not examples or not rows.num_rows:
        return rows
    bare = [_bare(batch["messages"], batch["family"], examples) for batch in rows.select(["messages", "family"]).to_batches()]
    return rows.set_column(rows.schema.get_field_index("messages"), "messages", pa.chunked_array(bare))


# -- inside --------------------------------------------------------------------------------------------------------------


def _bare(messages: pa.ListArray, families: pa.StringArray, examples: Examples) -> pa.Array:
    """Conversations (n,) without the worked examples of their family."""
    turns = messages.flatten()
    lengths = pc.list_value_length(messages).to_numpy()
    ends = np.cumsum(lengths)
    firsts = ends - lengths
    is_system = pc.is_in(turns.field("role"), pa.array(SYSTEM_ROLES)).to_numpy(zero_copy_only=False)
    others = np.flatnonzero(np.append(~is_system, True))
    starts = others[np.searchsorted(others, firsts)]  # the first turn of each row that is no system message
    kept = np.ones(len(turns), bool)
    for family, texts in examples.items():
        is_family = pc.equal(families, family).to_numpy(zero_copy_only=False)
        shown = starts[is_family & (starts + len(texts) <= ends)]
        for number, text in enumerate(texts):
            shown = shown[pc.equal(turns.field("content").take(pa.array(shown + number)), text).to_numpy(zero_copy_only=False)]
        kept[(shown[:, None] + np.arange(len(texts))).ravel()] = False
    offsets = np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], ends])]
    bare = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), turns.filter(pa.array(kept)))
    return bare.cast(messages.type)
