"""What duplicates must agree in: the accepted answer, what tells the meaning of the text apart (filters.similarity.meaning), and
the tool calls. Signatures hold it as a hash."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from filters.similarity.kernel import U64, jit, mix
from filters.similarity.meaning import meanings
from filters.similarity.signatures import Signed, signed
from schemas.repeats import DedupeSpec


def guards(table: pa.Table, spec: DedupeSpec) -> U64:
    """Hash (n,) of what duplicates of each sample must agree in: the meaning of the text, with the values of its numbers; with
    the guard `answer` the accepted reference (`accepted`, or its `answer_id`) in the place of these values, if there is one; and
    the tool calls."""
    if spec.guard == "none":
        return np.zeros(table.num_rows, np.uint64)
    column = "answer_id" if "answer_id" in table.column_names else "accepted"
    answered = pc.is_valid(table[column]).to_numpy(zero_copy_only=False)
    answered &= spec.guard == "answer"
    result = np.zeros(table.num_rows, np.uint64)
    for rows, values in ((~answered, True), (answered, False)):
        result[rows] = meanings(table["completion"].filter(pa.array(rows)), values=values)
    if answered.any():
        answers = table[column].filter(pa.array(answered))
        own = hashes(answers) if column == "accepted" else np.array([int(text, 16) for text in answers.to_pylist()], np.uint64)
        result[answered] ^= _spread(own)
    if "tool_calls" in table.column_names:
        called = pc.is_valid(table["tool_calls"]).to_numpy(zero_copy_only=False)
        result[called] ^= hashes(table["tool_calls"].filter(pa.array(called)))
    return result


@jit
def _spread(values: U64) -> Any:
    """The hashes (n,) with all bits changed, so that one of an answer is none of a text."""
    spread = np.empty(len(values), np.uint64)
    for number in range(len(values)):
        spread[number] = mix(values[number] + np.uint64(0x9E3779B97F4A7C15))
    return spread


def answer_ids(answers: pa.ChunkedArray) -> pa.Array:
    """The guards of accepted answers as text, which `guards` reads again; null where no answer was accepted."""
    texts = pa.array([f"{number:016x}" for number in hashes(answers.drop_null()).tolist()], pa.string())
    present = pc.is_valid(answers).to_numpy(zero_copy_only=False)
    return texts.take(pa.array(np.cumsum(present) - 1, mask=~present))


def hashes(texts: pa.ChunkedArray) -> U64:
    """64-bit hashes of texts; each distinct text is hashed once."""
    parts = [np.zeros(0, np.uint64)]
    for chunk in texts.chunks:
        encoded = chunk.dictionary_encode()
        distinct = np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in encoded.dictionary.to_pylist()], np.uint64)
        parts.append(distinct[encoded.indices.to_numpy()])
    return np.concatenate(parts)


def signed_in_run(table: pa.Table, spec: DedupeSpec) -> Signed:
    """Signatures for comparison across prompts: texts below `run_characters` can only be duplicates within their prompt."""
    own_guards = guards(table, spec)
    short = pc.less(pc.utf8_length(table["completion"]), spec.run_characters).to_numpy(zero_copy_only=False)
    own_guards[short] ^= hashes(table["prompt_id"].filter(pa.array(short)))
    return signed(table["completion"], own_guards)
