"""The view `rollouts`: one row per sample, including anchors and undecided samples, with tokens, log-probabilities and all
verdicts."""

import json
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.sample import Kind, to_json
from thresher.dataset.messages import combined
from thresher.dataset.views import VERDICT_LIST, json_column, prompt_and_completion, references, reward, view_table
from thresher.disclosure import public_detail, public_name, public_settings, public_source, public_text, servers_among
from thresher.pool.judged import FilterFacts


def rollouts(
    judged: pa.Table, verdicts: pa.Table, filters: Sequence[FilterFacts], prompt_format: str, *, details: bool = False
) -> pa.Table:
    """Every sample, in the order of the pool; `verdicts` (schema VERDICTS) are those of these filters on the samples. With
    `details` they name servers, further request fields and directories."""
    if not details:
        servers = servers_among(pc.unique(judged["source"]).to_pylist())
        judged = _public(judged, servers)
        open_ = pc.equal(verdicts["outcome"], "undecided")
        verdicts = _changed(verdicts, "detail", partial(public_detail, servers=servers), where=open_)
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


def _public(judged: pa.Table, servers: frozenset[str]) -> pa.Table:
    """The samples without what says on which machines they were drawn."""
    judged = _changed(judged, "source", public_source)
    judged = _changed(judged, "sampling", _public_sampling)
    judged = _changed(judged, "error", partial(public_text, servers=servers))
    for name in ("model", "adapter"):
        judged = _changed(judged, name, public_name)
    open_ = pc.equal(judged["outcome"], "undecided")
    return _changed(judged, "detail", partial(public_detail, servers=servers), where=open_)


def _public_sampling(text: str) -> str:
    recorded = json.loads(text)
    if isinstance(recorded, dict) and "engine" in recorded:
        return to_json(recorded | {"engine": public_settings(recorded["engine"])})
    return text


def _changed(table: pa.Table, name: str, change: Callable[[str], str], where: pa.ChunkedArray | None = None) -> pa.Table:
    """The table with other texts in a column, in the rows of `where`. Each different text is changed once."""
    column = table[name]
    if where is not None:
        column = pc.if_else(where, column, pa.scalar(None, column.type))
    texts = {text: change(text) for text in pc.unique(column).to_pylist() if text is not None}
    changed = {text: new for text, new in texts.items() if new != text}
    if not changed:
        return table
    rows = pc.index_in(column, pa.array(list(changed), column.type))
    new = pa.array(list(changed.values()), column.type).take(combined(rows))
    return table.set_column(table.schema.get_field_index(name), table.field(name), pc.coalesce(new, table[name]))


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
