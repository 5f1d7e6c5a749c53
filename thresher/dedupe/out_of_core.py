"""Duplicates among more texts than memory holds: functions from files to files, which a worker pool may map over.

    sign(part)       signatures of some of the texts, and their keys in order              (thresher.dedupe.signed_texts)
    inside(bucket)   duplicates of the same group, where texts have groups                 (thresher.dedupe.duplicate_links)
    equal(bucket)    texts that are word for word the same
    join(bucket)     links between similar texts that share a key of a band
    unite()          connected components of the links                                     (thresher.dedupe.components)
    choose(bucket)   what each text of some of the components repeats
    gather()         what each text repeats

A function finds its file complete or writes it complete, so the files are the checkpoint and a retry costs one file. The result
equals that of filters.similarity.duplicates in memory, whichever worker runs which function in whatever order.

In memory are the signatures of one chunk, and ROW_BYTES for each key of a bucket. Of all texts only pages of mapped files are in
memory; `unite` needs 4 bytes a text of them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from filters.similarity.kernel import I64
from filters.similarity.signatures import BANDS, SCHEME
from thresher.dedupe.components import choose, gather, unite
from thresher.dedupe.duplicate_links import equal, inside, join, mark_repeats
from thresher.dedupe.signed_texts import MOST_TEXTS, open_texts
from thresher.dedupe.step_files import ROW_BYTES, STEPS, Plan, files_of
from thresher.errors import SourceError
from thresher.executors.executor import Map, map_here


def find_repeats(plan: Plan, map_parts: Map = map_here, *, across: bool = True) -> None:
    """Run all steps after `sign`; then `read_repeats` returns what each text repeats. Without `across` only texts of
    one group are compared. Raises SourceError on signatures of another scheme."""
    _discard_other_plan(plan)
    texts = open_texts(plan.folder)
    if len(texts) > MOST_TEXTS:
        raise SourceError(f"{plan.folder}: {len(texts)} texts; at most {MOST_TEXTS} can be compared in one search, so split them")
    ranges = max(1, -(-len(texts) * ROW_BYTES // plan.memory))
    by_range = [(plan, number, ranges) for number in range(ranges)]
    if texts.grouped:
        map_parts(inside, by_range)
    mark_repeats(plan, "inside")
    if across:
        map_parts(equal, by_range)
    mark_repeats(plan, "equal")
    if across:
        map_parts(join, [(plan, number, ranges) for number in range(ranges * BANDS)])
    map_parts(unite, [(plan,)])
    map_parts(choose, [(plan, number) for number in range(len(files_of(plan.folder, "members")))])
    map_parts(gather, [(plan,)])


def first_row(plan: Plan, part: int) -> int:
    """The row of the first text of a part."""
    texts = open_texts(plan.folder)
    return int(texts.firsts[texts.numbers.index(part)])


def column(plan: Plan, name: str, rows: I64) -> Any:
    """A column of some of the texts (k,), as it was given to `sign`."""
    return open_texts(plan.folder).column(name, rows)


def are_equal(plan: Plan, rows: I64, other_rows: I64) -> Any:
    """Whether texts (k,) are word for word the same as other texts (k,)."""
    return column(plan, "contents", rows) == column(plan, "contents", other_rows)


def _discard_other_plan(plan: Plan) -> None:
    """Remove what an earlier plan with other settings left; its signatures stay."""
    path = Path(plan.folder, "plan.json")
    parts = len(files_of(plan.folder, "parts"))
    wanted = {"scheme": SCHEME, "threshold": plan.threshold, "memory": plan.memory, "parts": parts}
    earlier = json.loads(path.read_text()) if path.exists() else None
    if earlier is not None and earlier["scheme"] != SCHEME:
        raise SourceError(
            f"{plan.folder}: signatures of the scheme {earlier['scheme']}, this thresher makes {SCHEME}; remove the folder"
        )
    if earlier != wanted:
        for name in STEPS:
            shutil.rmtree(Path(plan.folder, name), ignore_errors=True)
        path.write_text(json.dumps(wanted))
