"""The views for preference training, as pure functions of one judged shard: pairs for DPO, labelled samples for KTO.

preference   a near miss and its nearest hit: the few words in which they differ decide which is right
unpaired     hits (label true) and misses (label false), each text once per prompt
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.chunks import take, text_codes
from filters.judging import compared_text
from filters.similarity.kernel import I64, U64
from filters.similarity.meaning import meanings
from filters.similarity.signatures import signed
from schemas.dataset import PreferenceSpec, UnpairedSpec
from schemas.sample import Kind
from thresher.dataset.views import prompt_and_completion, view_table


def preference(judged: pa.Table, prompt_format: str, spec: PreferenceSpec) -> pa.Table:
    """The pairs of each prompt: fewest edits first, at most `pairs_per_prompt`. Both halves have about the same length and
    differ in more than form; no near miss and no text occurs twice."""
    near = np.flatnonzero(_is(judged, Kind.NEAR_MISS))
    hits = pc.index_in(judged["nearest"].take(pa.array(near)), judged["sample_id"].combine_chunks())
    near, hit = near[pc.is_valid(hits).to_numpy()], hits.drop_null().to_numpy().astype(np.int64)
    similarity = judged["similarity"].take(pa.array(near)).to_numpy()
    involved, place = np.unique(np.concatenate([near, hit]), return_inverse=True)
    prompt = _prompts(judged)[involved]
    judged = take(judged, involved)  # texts are costly to compare, and most samples are in no pair
    near, hit = place[: len(near)], place[len(near) :]
    answers = _answers(judged)
    lengths = pc.utf8_length(answers).to_numpy()
    longer, shorter = np.maximum(lengths[near], lengths[hit]), np.minimum(lengths[near], lengths[hit])
    texts, forms = text_codes(answers), _forms(answers)
    fit = longer <= spec.length_ratio * shorter
    fit &= (forms[near] != forms[hit]) | (spec.form & (texts[near] != texts[hit]))
    order = np.flatnonzero(fit)
    order = order[np.lexsort((judged["index"].take(pa.array(near[order])).to_numpy(), -similarity[order], prompt[near[order]]))]
    order = order[_first_of(prompt[near[order]], texts[near[order]])]
    order = order[_place_in_group(prompt[near[order]]) < spec.pairs_per_prompt]
    rejected, chosen = take(judged, near[order]), take(judged, hit[order])
    columns = {
        "prompt": prompt_and_completion(rejected, prompt_format)["prompt"],
        "chosen": prompt_and_completion(chosen, prompt_format)["completion"],
        "rejected": prompt_and_completion(rejected, prompt_format)["completion"],
        "chosen_id": chosen["sample_id"],
        "rejected_id": rejected["sample_id"],
        "chosen_logprob": chosen["cumulative_logprob"],
        "rejected_logprob": rejected["cumulative_logprob"],
    }
    return view_table("preference", rejected, columns, prompt_format)


def unpaired(judged: pa.Table, prompt_format: str, spec: UnpairedSpec) -> pa.Table:
    """Hits and misses without anchors, in the order of the pool. With `balance` each prompt has as many hits as misses."""
    drawn = ~judged["anchor"].to_numpy()
    hit, near = _is(judged, Kind.HIT) & drawn, _is(judged, Kind.NEAR_MISS) & drawn
    rows = np.flatnonzero(hit | near | (_is(judged, Kind.MISS) & drawn))
    prompt, texts = _prompts(judged), text_codes(_answers(judged))
    rows = rows[np.lexsort((judged["index"].to_numpy()[rows], ~near[rows], ~hit[rows], prompt[rows]))]
    rows = rows[_first_of(prompt[rows], texts[rows])]
    if spec.balance:
        prompts = prompt.max(initial=-1) + 1
        right, wrong = (np.bincount(prompt[rows[side]], minlength=prompts) for side in (hit[rows], ~hit[rows]))
        most = np.minimum(right, wrong)
        rows = rows[_place_in_group(2 * prompt[rows] + ~hit[rows]) < most[prompt[rows]]]
    rows = np.sort(rows)
    table = take(judged, rows)
    columns = {**prompt_and_completion(table, prompt_format), "label": pa.array(hit[rows])}
    return view_table("unpaired", table, columns, prompt_format)


# -- inside --------------------------------------------------------------------------------------------------------------


def _is(judged: pa.Table, kind: Kind) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(pc.fill_null(pc.equal(judged["kind"], kind.value), False).to_numpy())


def _prompts(judged: pa.Table) -> I64:
    codes: I64 = judged["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _answers(judged: pa.Table) -> pa.ChunkedArray:
    return compared_text(pc.fill_null(judged["answer"], ""), judged["tool_calls"])


def _forms(answers: pa.ChunkedArray) -> U64:
    """Hashes of the answers (n,), without case, white space and punctuation, but for what has a meaning: signs, operators,
    comparisons, units, the order of numbers, indentation."""
    plain = pc.replace_substring_regex(answers, r"[^\pL\pM\pN]+", " ")
    contents = signed(pc.utf8_trim(plain, " "), np.zeros(len(answers), np.uint64)).contents
    return contents * np.uint64(0x9E3779B97F4A7C15) + meanings(answers.combine_chunks())


def _first_of(groups: I64, values: I64) -> I64:
    """Indices of the first occurrence of each value in its group, in order."""
    _, first = np.unique(np.stack([groups, values]), axis=1, return_index=True)
    return np.sort(first)


def _place_in_group(groups: I64) -> I64:
    """How many members of its group precede each element; the members of a group are adjacent."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
