"""The view `rollouts`: one row per sample, including anchors and undecided samples, with tokens, log-probabilities and all
verdicts."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.sample import Kind
from thresher.dataset.messages import combined
from thresher.dataset.views import VERDICT_LIST, json_column, prompt_and_completion, references, reward, view_table
from thresher.pool.judged import FilterFacts


def rollouts(judged: pa.Table, verdicts: pa.Table, filters: Sequence[FilterFacts], prompt_format: str) -> pa.Table:
    """Every sample, in the order of the pool; `verdicts` (schema VERDICTS) are those of these filters on the samples."""
    hit = pc.equal(judged["kind"], Kind.HIT.value)
    columns = {
        **prompt_and_completion(judged, prompt_format),
        "group_id": judged["prompt_id"],
        "policy_model": judged["model"],
        "policy_revision": judged["model_revision"],
        "policy_adapter": judged["adapter"],
        "reference": references(judged["reference"]),
        "reward": reward(judged),
        "multiplicity": pc.if_else(hit, judged["multiplicity"], pa.scalar(None, pa.int32())),
        "verdicts": _verdict_lists(judged.num_rows, verdicts, filters),
    }
    return view_table("rollouts", judged, columns, prompt_format)


# -- inside --------------------------------------------------------------------------------------------------------------


def _verdict_lists(rows: int, verdicts: pa.Table, filters: Sequence[FilterFacts]) -> pa.Array:
    """The verdicts on each row, as a list in the order the filters ran."""
    row_of = verdicts["row"].to_numpy()
    verdicts = verdicts.take(pa.array(np.argsort(row_of, kind="stable")))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=rows))])
    labels = pa.array([facts.label for facts in filters], pa.string())
    versions = pa.array([facts.version for facts in filters], pa.string())
    columns = {
        **{name: combined(verdicts[name]) for name in ("filter", "outcome", "reason", "score")},
        "version": versions.take(combined(pc.index_in(verdicts["filter"], labels))),
        "detail": combined(json_column(verdicts["detail"])),
    }
    names = [field.name for field in VERDICT_LIST.value_type]
    structs = pa.StructArray.from_arrays([columns[name] for name in names], names=names)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), structs)
