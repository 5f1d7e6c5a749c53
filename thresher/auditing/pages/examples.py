"""Samples to look at: a few of every filter, reason, kind and family, with the place of the fault marked.

The place that a filter's detail describes (a span, a value, a key) is located in the text. Near misses and duplicates are shown
beside the sample they are nearest to. Long texts are cut to the part around that place; both texts of a pair start at the same
character.
"""

import json
from typing import Any

from filters.similarity.near_miss import differing
from thresher.auditing.sql_tables import opened_tables, whole_shards
from thresher.pool.run import Run

PER_REASON = 6
"""Most examples of each filter, reason, kind and family; three times as many hits."""
MOST = 1500
"""Most examples in all."""
MOST_CHARACTERS = 2000
"""Most characters of a text that are shown; of a longer text those around the place of the fault."""
SHORT = 400
"""Most characters of an answer that is marked whole if its filter gives no place of the fault."""
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
_NEAREST = """ create temp table near as select sample_id, coalesce(answer, '') as answer from _samples where sample_id in (select
nearest from few where nearest is not null) """
_EXAMPLES = """
select f.sample_id, f.family, f.outcome,
    coalesce(f.kind, case when f.outcome = 'undecided' then 'undecided' else 'unfit' end) as kind, f.failed_filter as filter,
    f.reason, f.messages, coalesce(f.answer, '') as completion, f.detail, f.similarity, f.nearest as nearest_id, n.answer as
    nearest, f.reasoning, f.reasoning_tokens, f.answer is null as thinking, f.tool_calls, f.reference, f.cumulative_logprob as
    logprob, f.error
from samples f join few on f.shard = few.shard and f."row" = few."row" left join near n on f.nearest = n.sample_id
order by f.family, f.failed_filter, f.reason, f.kind, f.sample_id
"""


def examples(run: Run) -> dict[str, Any]:
    """The examples of a run, equal at each call: `rows`; `contexts`, the messages before the last, which many rows share; and
    `all`, whether every filter, reason, kind and family is included."""
    with opened_tables(run, whole_shards(run)) as connection:
        connection.execute(_FEW)
        few = connection.sql("select * from few").to_arrow_table()
        shards = {shard for (shard,) in connection.execute(_SHARDS).fetchall()}
    with opened_tables(run, shards) as connection:  # texts are large, and most shards have no example
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
    """Turn a row of the query into a row of the page. Texts are cut to what is shown; `completion` is the answer, and `mark` its
    faulty part (null if unknown); `cut` is whether the shown text ends where the completion was truncated, `thinking` whether it
    ended inside its reasoning. Contexts are numbered."""
    *before, last = row["messages"] or [{"content": ""}]
    context = "\n".join(f"{message['role']}: {message['content']}" for message in before)
    text, nearest = row["completion"], row["nearest"]
    names = ("sample_id", "family", "outcome", "kind", "filter", "reason", "similarity", "logprob", "nearest_id")
    example = {name: row[name] for name in names}
    example |= {name: row[name] for name in ("reasoning_tokens", "thinking")}
    example |= {name: _short(row[name]) for name in ("detail", "reference", "error", "reasoning", "tool_calls")}
    example |= {"nearest": None, "mark": None, "prompt": _short(last["content"])}
    example["context"] = contexts.setdefault(context, len(contexts)) if context else None
    if nearest is not None and row["kind"] in {"near_miss", "duplicate"}:
        start, end, nearest_end = differing(text, nearest)
        shorter = min(len(text), len(nearest))
        example["completion"], _, more = _window(text, start, end, shorter)
        example["nearest"] = _window(nearest, start, nearest_end, shorter)[0]
    else:
        span = located(row["detail"], row["kind"], text)
        start, end = span or (0, 0)
        example["completion"], moved, more = _window(text, start, end, len(text))
        example["mark"] = None if span is None else [start + moved, end + moved]
    example["cut"] = row["reason"] == "truncated" and not more
    return example


def located(detail: str | None, kind: str | None, text: str) -> tuple[int, int] | None:
    """Return the start and end of the fault in a completion, in characters: the filter's own span; else the last occurrence of
    the value that it names; else the whole text if it is a short wrong answer."""
    facts = _parsed(detail)
    start, end, span = facts.get("start"), facts.get("end"), facts.get("span")
    if isinstance(start, int) and isinstance(end, int) and (not isinstance(span, str) or text[start:end].startswith(span)):
        return start, end
    path = str(facts["path"]).rpartition("/")[2] if facts.get("path") else None
    # The result of a program does not occur in its text.
    value = None if {"call", "input"} & facts.keys() else facts.get("found")
    for candidate in (span, value, facts.get("key"), path):
        if candidate in (None, ""):
            continue
        for spelled in (candidate if isinstance(candidate, str) else json.dumps(candidate), json.dumps(candidate)):
            if (position := text.rfind(spelled)) >= 0:
                return position, position + len(spelled)
    return (0, len(text)) if kind in {"miss", "near_miss"} and 0 < len(text) <= SHORT else None


# -- inside --------------------------------------------------------------------------------------------------------------


def _parsed(detail: str | None) -> dict[str, Any]:
    try:
        facts = json.loads(detail or "{}")
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _window(text: str, start: int, end: int, shorter: int) -> tuple[str, int, bool]:
    """The part of a text around a place; by how many characters it has moved; and whether text follows after it. `shorter` is the
    length of the shorter text of a pair, so that both start at the same character."""
    left = max(0, min(start - MOST_CHARACTERS // 4, shorter - MOST_CHARACTERS))
    right = min(len(text), max(left + MOST_CHARACTERS, min(end, start + MOST_CHARACTERS) + MOST_CHARACTERS // 4))
    before, after = "… " if left else "", " …" if right < len(text) else ""
    return f"{before}{text[left:right]}{after}", len(before) - left, bool(after)


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"
