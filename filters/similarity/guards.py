"""What duplicates must agree in: the accepted answer, or the numbers in the text, and the tool calls. Signatures hold it as a
hash."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from filters.similarity.kernel import U64, numbers
from filters.similarity.signatures import Signed, signed
from schemas.repeats import DedupeSpec


def guards(table: pa.Table, spec: DedupeSpec) -> U64:
    """Hash (n,) of what duplicates of each sample must agree in: the accepted reference (`accepted`, or its `answer_id`), or the
    numbers in the text if no answer was accepted; and the tool calls."""
    result = np.zeros(table.num_rows, np.uint64)
    if spec.guard == "none":
        return result
    column = "answer_id" if "answer_id" in table.column_names else "accepted"
    answered = pc.is_valid(table[column]).to_numpy(zero_copy_only=False)
    if spec.guard == "answer":
        answers = table[column].filter(pa.array(answered))
        result[answered] = hashes(answers) if column == "accepted" else [int(text, 16) for text in answers.to_pylist()]
    else:
        answered[:] = False
    if not answered.all():
        result[~answered] = numbers(table["completion"].filter(pa.array(~answered)))
    if "tool_calls" in table.column_names:
        called = pc.is_valid(table["tool_calls"]).to_numpy(zero_copy_only=False)
        result[called] ^= hashes(table["tool_calls"].filter(pa.array(called)))
    return result


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
