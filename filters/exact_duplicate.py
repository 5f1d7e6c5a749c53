"""Drops a completion that repeats another word for word, and names the one it repeats."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from filters.base import Filter, Role, Scope, verdict_table
from schemas.sample import Outcome, to_json


class Config(BaseModel):
    """Parameters of `exact_duplicate`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    within: Literal["prompt", "run"] = "prompt"
    """Look among the samples of the same prompt, or of the whole run: one pass, about 200 bytes of memory per kept sample."""
    normalise: Literal["none", "whitespace", "casefold"] = "whitespace"
    """What makes two texts the same: every character, all but the amount of white space, or also upper and lower case."""


def normalised(text: str, how: str) -> str:
    """The form in which texts are compared."""
    if how == "none":
        return text
    text = " ".join(text.split())
    return text.casefold() if how == "casefold" else text


def build(config: Config) -> Filter:
    """Drop `exact_duplicate`: the sample of the lowest index stays, of its prompt or of the prompt that comes first."""

    def within_prompts(table: pa.Table) -> pa.Table:
        texts = [normalised(text, config.normalise) for text in table["completion"].to_pylist()]
        keys = pa.array(texts).dictionary_encode().indices.to_numpy().astype(np.int64)
        prompts = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        order = np.lexsort((table["index"].to_numpy(), keys, prompts))
        starts = np.ones(len(order), bool)
        starts[1:] = (keys[order][1:] != keys[order][:-1]) | (prompts[order][1:] != prompts[order][:-1])
        first = np.empty(len(order), np.int64)
        first[order] = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
        return _verdicts(table["sample_id"], table["sample_id"].take(pa.array(first)))

    def within_run(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        seen: dict[bytes, str] = {}
        for table in batches:
            ids, repeats = table["sample_id"].to_pylist(), []
            for text, sample_id in zip(table["completion"].to_pylist(), ids, strict=True):
                key = hashlib.blake2b(
                    normalised(text, config.normalise).encode("utf-8", "surrogatepass"), digest_size=16
                ).digest()
                repeats.append(seen.setdefault(key, sample_id))
            yield _verdicts(pa.chunked_array([pa.array(ids, pa.string())]), pa.chunked_array([pa.array(repeats, pa.string())]))

    parameters: dict[str, Any] = config.model_dump(mode="json")
    if config.within == "run":
        return Filter("exact_duplicate", "1", Scope.CORPUS, Role.DUPLICATE, within_run, ("sample_id", "completion"), parameters)
    columns = ("sample_id", "prompt_id", "index", "completion")
    return Filter("exact_duplicate", "1", Scope.PROMPT, Role.DUPLICATE, within_prompts, columns, parameters)


def _verdicts(ids: pa.ChunkedArray, originals: pa.ChunkedArray) -> pa.Table:
    """Kept where a sample is its own original, else dropped with the original's id."""
    same = pc.equal(ids, originals)
    detail = [
        None if kept else to_json({"duplicate_of": original})
        for kept, original in zip(same.to_pylist(), originals.to_pylist(), strict=True)
    ]
    return verdict_table(
        pc.if_else(same, Outcome.KEEP.value, Outcome.DROP.value).combine_chunks(),
        pc.if_else(same, "", "exact_duplicate").combine_chunks(),
        detail=detail,
    )
