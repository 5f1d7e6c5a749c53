"""Samples to look at: a few of every filter, reason, kind and family, with where their fault lies.

What a filter says of the place (a span, what it found, a key) is looked for in the text; near misses and duplicates are set
beside what they are near to. Long texts are cut to the part around that place, both texts of a pair to the same part."""

import json
from typing import Any

from filters.similarity.near_miss import differing
from thresher.audit.sql_tables import opened_tables, whole_shards
from thresher.pool.run import Run

PER_REASON = 6
"""Examples of each filter, reason, kind and family; three times as many hits."""
MOST = 1500
MOST_CHARACTERS = 2000
"""Of a text that are shown; of a longer one those around the place of its fault."""
SHORT = 400
"""Characters of an answer up to which all of it is marked where its filter says no more than that it is wrong."""
_FEW = f"""
create temp table few as
with chosen as (
    select shard, "row", nearest, failed_filter, reason, kind, family,
        row_number() over (partition by failed_filter, reason, kind, family order by hash(sample_id)) as place,
        {PER_REASON} * case when kind = 'hit' then 3 else 1 end as most
    from samples where not anchor
)
select shard, "row", nearest from chosen where place <= most order by place, failed_filter, reason, kind, family limit {MOST}
"""
_SHARDS = """
select shard from few union
select shard from _samples where sample_id in (select nearest from few where nearest is not null)
"""
_NEAREST = """
create temp table near as
select sample_id, completion from _samples where sample_id in (select nearest from few where nearest is not null)
"""
_EXAMPLES = """
select f.sample_id, f.family, f.outcome,
    coalesce(f.kind, case when f.outcome = 'undecided' then 'undecided' else 'unfit' end) as kind,
    f.failed_filter as filter, f.reason, f.messages, f.completion, f.detail, f.similarity,
    f.nearest as nearest_id, n.completion as nearest, f.reference, f.cumulative_logprob as logprob, f.error
from samples f join few on f.shard = few.shard and f."row" = few."row" left join near n on f.nearest = n.sample_id
order by f.family, f.failed_filter, f.reason, f.kind, f.sample_id
"""


def examples(run: Run) -> dict[str, Any]:
    """`rows`, the same at each call; `contexts`, the messages before the last, which many rows share; and `all`: whether there
    was room for every filter, reason, kind and family."""
    with opened_tables(run, whole_shards(run)) as connection:
        connection.execute(_FEW)
        few = connection.sql("select * from few").to_arrow_table()
        shards = {shard for (shard,) in connection.execute(_SHARDS).fetchall()}
    with opened_tables(run, shards) as connection:  # texts are large, and most shards have none of these
        connection.register("few", few)
        connection.execute(_NEAREST)
        rows = connection.sql(_EXAMPLES).to_arrow_table()
    contexts: dict[str, int] = {}
    return {
        "rows": [shown(row, contexts) for row in rows.to_pylist()],
        "contexts": list(contexts),
        "all": few.num_rows < MOST,
    }


def shown(row: dict[str, Any], contexts: dict[str, int]) -> dict[str, Any]:
    """A row of the page: texts cut to what is shown, `mark` the part of the completion that is at fault (null where that is not
    known), `cut` whether the completion itself stops there because it was cut off. Contexts are numbered."""
    *before, last = row["messages"] or [{"content": ""}]
    context = "\n".join(f"{one['role']}: {one['content']}" for one in before)
    text, other = row["completion"], row["nearest"]
    made = {name: row[name] for name in ("sample_id", "family", "outcome", "kind", "filter", "reason", "similarity", "logprob")}
    made |= {name: _short(row[name]) for name in ("detail", "reference", "error")}
    made |= {"nearest_id": row["nearest_id"], "nearest": None, "mark": None, "prompt": _short(last["content"])}
    made["context"] = contexts.setdefault(context, len(contexts)) if context else None
    if other is not None and row["kind"] in {"near_miss", "duplicate"}:
        start, end, finish = differing(text, other)
        shorter = min(len(text), len(other))
        made["completion"], _, more = _window(text, start, end, shorter)
        made["nearest"] = _window(other, start, finish, shorter)[0]
    else:
        found = located(row["detail"], row["kind"], text)
        start, end = found or (0, 0)
        made["completion"], at, more = _window(text, start, end, len(text))
        made["mark"] = None if found is None else [start + at, end + at]
    made["cut"] = row["reason"] == "truncated" and not more
    return made


def located(detail: str | None, kind: str | None, text: str) -> tuple[int, int] | None:
    """Where the fault of a completion lies, in characters: where the filter says; the last place of what it found; or all of it,
    where a short answer is wrong and nothing says more."""
    said = _said(detail)
    start, end, span = said.get("start"), said.get("end"), said.get("span")
    if isinstance(start, int) and isinstance(end, int) and (not isinstance(span, str) or text[start:end].startswith(span)):
        return start, end
    path = str(said["path"]).rpartition("/")[2] if said.get("path") else None
    # What a program gave back stands nowhere in it.
    found = None if {"call", "input"} & said.keys() else said.get("found")
    for one in (span, found, said.get("key"), path):
        for spelled in () if one in (None, "") else (one if isinstance(one, str) else json.dumps(one), json.dumps(one)):
            if (at := text.rfind(spelled)) >= 0:
                return at, at + len(spelled)
    return (0, len(text)) if kind in {"miss", "near_miss"} and 0 < len(text) <= SHORT else None


# -- inside --------------------------------------------------------------------------------------------------------------


def _said(detail: str | None) -> dict[str, Any]:
    try:
        found = json.loads(detail or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _window(text: str, start: int, end: int, shorter: int) -> tuple[str, int, bool]:
    """The part of a text around a place; how far that part's characters have moved; and whether there is more after it. Two texts
    begin at the same character: `shorter` is the length of the shorter one."""
    begin = max(0, min(start - MOST_CHARACTERS // 4, shorter - MOST_CHARACTERS))
    finish = min(len(text), max(begin + MOST_CHARACTERS, min(end, start + MOST_CHARACTERS) + MOST_CHARACTERS // 4))
    before, after = "… " if begin else "", " …" if finish < len(text) else ""
    return f"{before}{text[begin:finish]}{after}", len(before) - begin, bool(after)


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"
