"""Chooses samples for a review by hand, and renders the page on which a person marks them."""

from collections.abc import Iterable, Mapping
from typing import Any

from thresher.auditing.pages.page import rendered
from thresher.auditing.review import FILE, ReviewLine, create_strata, read_review
from thresher.auditing.sql_tables import opened_tables
from thresher.disclosure import public_name
from thresher.errors import AuditError
from thresher.ids import digest
from thresher.pool.run import Run

PAGE = "review.html"
_CHOSEN = """
with placed as (
    select *, row_number() over (partition by verdict, stratum order by hash(sample_id)) as place,
        count(*) over (partition by verdict, stratum) as stands_for
    from strata
), counted as (select verdict, count(distinct stratum) as strata from strata group by all) select s.sample_id, p.verdict,
p.stratum, p.stands_for, s.messages, coalesce(s.answer, '') as completion, s.reasoning, s.reference, s.detail from placed p join
counted using (verdict) join samples s on s.shard = p.shard and s."row" = p."row" where p.place <= greatest(1, ceil(? / 2.0 /
strata)) order by hash(s.sample_id) """


def write_review(run: Run, samples: int) -> str:
    """Write about `samples` samples of a run to RUN/review.jsonl, and the page to mark them; existing marks are kept. Returns
    where the page is. Raises AuditError if nothing was judged right or wrong."""
    if samples < 2:
        raise AuditError(f"--review: wanted 2 samples or more, found {samples}")
    store = run.store
    with opened_tables(run) as connection:
        create_strata(connection)
        connection.execute(_CHOSEN, [samples])
        names = [column[0] for column in connection.description or ()]
        rows = [_line(dict(zip(names, row, strict=True))) for row in connection.fetchall()]
    if not rows:
        raise AuditError(f"{store.root}: nothing was judged right or wrong yet, so there is nothing to review")
    before = {line.sample_id: line for line in read_review(store)}
    lines = [ReviewLine(**row, mark=before[row["sample_id"]].mark if row["sample_id"] in before else None) for row in rows]
    chosen = {line.sample_id for line in lines}
    lines += [line for sample_id, line in before.items() if line.mark and sample_id not in chosen]
    store.write_bytes(FILE, "".join(line.model_dump_json() + "\n" for line in lines).encode())
    store.write_bytes(PAGE, review_page(store.root, lines).encode())
    return f"{store.root}/{PAGE}"


def review_page(root: str, lines: Iterable[ReviewLine]) -> str:
    """Render the page on which a person marks the samples one by one and saves review.jsonl. Until then the browser keeps the
    marks of this run."""
    return rendered(
        "review.html.j2",
        {},
        run=public_name(root),
        key=digest("review", root),
        lines=[line.model_dump(mode="json") for line in lines],
    )


# -- inside --------------------------------------------------------------------------------------------------------------


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the query as the fields of a ReviewLine."""
    *before, last = row["messages"]
    fields = {name: value for name, value in row.items() if name != "messages"}
    context = "\n".join(f"{message['role']}: {message['content']}" for message in before)
    return fields | {"prompt": last["content"], "context": context or None}
