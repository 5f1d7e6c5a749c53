"""Samples one shard: asks an engine for what its prompts still lack, journals what comes, and ends with a Parquet file.

What a prompt lacks is worked out from what is there: the shard's file, where an earlier run with fewer samples finished it, and
its journal, where one was stopped. So a rerun asks for nothing twice, and a raised samples_per_prompt only for the indices that
are new. With target_hits the prompts are judged while they are sampled, each as soon as its wave is back, and get further waves.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.manifest import Entry
from schemas.recipe import Recipe
from schemas.sample import JOURNAL, REPEATED
from thresher import ids
from thresher.errors import StoreError, ThresherError
from thresher.estimators import calibration, pass_rate
from thresher.executors.executor import Call, call_here
from thresher.inputs import models
from thresher.inputs.prompts import prompts_of
from thresher.judging.winnow import count_prompts
from thresher.pool import journal
from thresher.pool import rows as shards
from thresher.pool.judged import PromptCount
from thresher.pool.rows import ANCHOR_INDEX, Asked, Series
from thresher.pool.run import Run
from thresher.pool.store import Store, shard_name
from thresher.pool.wanted import complete, wanted
from thresher.run.progress import Progress
from thresher.samplers.sampler import Drawn, Group, Sampler, Stream

GROUP = 64
"""Completions of a prompt that an engine is asked for at once, at most."""
LINGER_S = 0.02
"""Seconds to wait for more after the first answer: tables are made of many groups at once, for little more than of one."""
WAIT_S = 1.0
"""Seconds to wait for an engine before looking after the journal."""

Counted = Callable[[pa.Table], dict[str, PromptCount]]


def sample_shard(run: Run, shard: int, sampler: Sampler, progress: Progress, call: Call = call_here) -> Entry:
    """Draw and write the samples that a shard lacks, unless it has them all. `call` calls a function on a filter worker."""
    store, recipe = run.store, run.recipe
    model = run.model
    if model is None:
        raise StoreError(f"{run.root}: its samples are the user's own; nothing is drawn for it")
    name, key = f"samples/{shard_name(shard)}", run.key
    before = store.finished(name, key)
    if before is not None and complete(before, recipe.sampling):
        return before
    prompts = store.read_group("prompts", shard)
    drawing = Drawing(prompts, recipe, model, sampler, progress)
    drawing.known(_earlier(store, shard, before, key))

    def count(rows: pa.Table) -> dict[str, PromptCount]:
        counts: dict[str, PromptCount] = call(count_prompts, run, shards.pool_rows(prompts, rows))
        return counts

    with journal.Journal(store, shard, key) as written, sampler.stream(shard) as stream:
        for rows in drawing.draw(stream, count):
            if rows is None:
                written.tick()
            else:
                written.append(rows)
    return _finish(store, shard, before, prompts, key=key, wants=wanted(recipe.sampling), seconds=progress.lap())


class Drawing:
    """What the prompts of a shard have, what the engine is asked for, and what they are to have after that."""

    def __init__(self, prompts: pa.Table, recipe: Recipe, model: models.Model, sampler: Sampler, progress: Progress) -> None:
        self._sampling, self._model, self._sampler, self._progress = recipe.sampling, model, sampler, progress
        self._prompts = prompts_of(prompts)
        self._ids = [prompt.prompt_id for prompt in self._prompts]
        self._series = shards.series_of(recipe.sampling, model, recipe.run.salt)
        self._totals = [recipe.sampling.samples_per_prompt] * len(self._prompts)
        self._has: dict[tuple[int, str], set[int]] = defaultdict(set)  # indices by prompt and parameters
        self._asked: dict[int, Asked] = {}
        self._outstanding = [0] * len(self._prompts)
        self._numbers = 0
        # With target_hits: the prompts that may get further waves, and what they have (schema JOURNAL).
        self._open = set(range(len(self._prompts))) if recipe.sampling.target_hits is not None else set()
        self._rows: dict[int, list[pa.Table]] = defaultdict(list)

    def known(self, rows: pa.Table) -> None:
        """Count in what is there already (schema JOURNAL). A wave that was begun is drawn to its end before it is judged, so that
        an interrupted run decides as an uninterrupted one."""
        at = {prompt: row for row, prompt in enumerate(self._ids)}
        for prompt, text, index in zip(*(rows[name].to_pylist() for name in ("prompt_id", "sampling", "index")), strict=True):
            self._has[at[prompt], text].add(index)
        for row in self._open:
            begun = max((index + 1 for s in self._series for index in self._has[row, s.text]), default=0)
            totals = pass_rate.schedule(self._sampling)
            self._totals[row] = next((total for total in totals if total >= begun), totals[-1])
        self._keep(rows)

    def draw(self, stream: Stream, count: Counted) -> Iterator[pa.Table | None]:
        """Yield rows as they are finished (schema JOURNAL), and None now and then while there are none."""
        self._ask(stream, range(len(self._prompts)))
        while True:
            self._ask(stream, self._further(count))
            if not self._asked:
                return
            came = stream.take(WAIT_S)
            if not came:
                yield None
                continue
            time.sleep(LINGER_S)
            try:
                came += stream.take(0)
            except ThresherError:  # what came before is kept
                yield self._taken(came)
                raise
            yield self._taken(came)

    def _ask(self, stream: Stream, prompts: Iterable[int]) -> None:
        """Ask the engine for what these prompts lack."""
        groups = [group for row in prompts for series in self._series for group in self._groups(row, series)]
        if groups:
            stream.submit(groups)

    def _groups(self, row: int, series: Series) -> Iterator[Group]:
        """What a prompt lacks as groups, so that the engine shares their prefix."""
        indices = {ANCHOR_INDEX} if series.anchor else set(range(self._totals[row]))
        missing = sorted(indices - self._has[row, series.text])
        for at in range(0, len(missing), GROUP):
            some = tuple(missing[at : at + GROUP])
            names = tuple(ids.sample_ids(self._ids[row], series.key, some))
            self._numbers += 1
            self._outstanding[row] += 1
            self._asked[self._numbers] = Asked(row, series, some, names)
            seeds = tuple(map(ids.sample_seed, names))
            yield Group(self._numbers, self._prompts[row].messages, len(some), series.parameters, seeds, some)

    def _taken(self, came: list[Drawn]) -> pa.Table:
        answers = []
        for drawn in came:
            asked = self._asked.pop(drawn.number)
            self._outstanding[asked.row] -= 1
            self._has[asked.row, asked.series.text].update(asked.indices)
            answers.append((asked, drawn))
        self._progress.drawn(sum(len(asked.indices) for asked, _ in answers), sum(drawn.tokens for _, drawn in answers))
        rows = shards.journal_rows(answers, self._ids, model=self._model, facts=self._sampler.facts)
        self._keep(rows)
        return rows

    def _keep(self, rows: pa.Table) -> None:
        """Keep the rows of the prompts that may get further waves."""
        if self._open:
            at = pc.index_in(rows["prompt_id"], pa.array(self._ids)).to_numpy()
            for row in self._open.intersection(np.unique(at).tolist()):
                self._rows[row].append(rows.filter(pa.array(at == row)))

    def _further(self, count: Counted) -> list[int]:
        """The prompts that get another wave now, out of those whose last one is back."""
        back = [row for row in self._open if not self._outstanding[row]]
        if not back:
            return []
        counts = count(pa.concat_tables([JOURNAL.empty_table(), *(table for row in back for table in self._rows[row])]))
        going_on = []
        for row in back:
            found = counts[self._ids[row]]
            total = pass_rate.next_total(self._sampling, self._totals[row], found.decided, found.passed, found.hits)
            if total is None or found.failed:
                self._open.discard(row)
                self._rows.pop(row, None)
            else:
                self._totals[row] = total
                going_on.append(row)
        self._progress.closed(len(back) - len(going_on))
        return sorted(going_on)


# -- inside --------------------------------------------------------------------------------------------------------------


def _earlier(store: Store, shard: int, before: Entry | None, key: str) -> pa.Table:
    """What a shard has already (schema JOURNAL): of its file and of its journal."""
    parts = [journal.read(store, shard, key)]
    if before is not None:
        old = store.read_table(f"samples/{shard_name(shard)}").drop_columns(list(REPEATED))
        for field in list(JOURNAL)[len(old.column_names) :]:
            old = old.append_column(field, pa.nulls(old.num_rows, field.type))
        parts.insert(0, old.cast(JOURNAL))
    return pa.concat_tables(parts)


def _finish(
    store: Store, shard: int, before: Entry | None, prompts: pa.Table, *, key: str, wants: dict[str, Any], seconds: float
) -> Entry:
    """Write a shard's file from its journal (read back, so that what is written is what was kept), then its entry."""
    name = f"samples/{shard_name(shard)}"
    rows = _earlier(store, shard, before, key)
    table = shards.pool_rows(prompts, rows)
    anchors = int(pc.sum(table["anchor"]).as_py() or 0)
    _, first = np.unique(table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy(), return_index=True)
    version = 1 if before is None else int(before.facts["version"]) + 1
    facts = {
        "samples": table.num_rows - anchors,
        "anchors": anchors,
        "failed": table.num_rows - table["error"].null_count,
        "prompt_tokens": _length(table["prompt_ids"].take(pa.array(first))),
        "completion_tokens": _length(table["completion_ids"]),
        "seconds": round(seconds + (0.0 if before is None else before.facts["seconds"]), 3),
        "engine_seeds": sorted(seed for seed in pc.unique(table["engine_seed"]).to_pylist() if seed is not None),
        "wanted": wants,
        "version": version,
        "extends": [] if before is None else [*before.facts.get("extends", []), before.sha256],
        "calibration": _calibration(rows, before),
    }
    entry = store.write_table(name, table, key=key, facts=facts, version=version)
    journal.remove(store, shard)
    return entry


def _length(lists: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.list_value_length(lists)).as_py() or 0)


def _calibration(rows: pa.Table, before: Entry | None) -> list[list[Any]]:
    """[source, declared, tokens, sums] of everything calibrated in a shard."""
    shape = calibration.nothing().shape
    found = rows.filter(pc.is_valid(rows["calibration"])).select(["source", "sampling", "calibrated_tokens", "calibration"])
    parts = [
        (
            row["source"] or "",
            shards.declared(json.loads(row["sampling"])),
            row["calibrated_tokens"],
            np.reshape(row["calibration"], shape),
        )
        for row in found.to_pylist()
    ]
    parts += [tuple(part) for part in (before.facts["calibration"] if before is not None else [])]
    return [[*source, tokens, sums.tolist()] for source, (tokens, sums) in sorted(calibration.merged(parts).items())]
