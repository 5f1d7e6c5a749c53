"""Samples one shard: requests the samples that its prompts lack, journals the answers, and ends with a Parquet file.

What a prompt lacks follows from the shard's file, if an earlier run with fewer samples finished it, and from its journal, if a
run was interrupted. So a rerun requests no sample twice, and a raised samples_per_prompt only the new indices. With target_hits
the prompts are judged while they are sampled, each as soon as its wave is complete, and get further waves.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.manifest import Entry
from schemas.sample import JOURNAL, REPEATED
from thresher import ids
from thresher.errors import StoreError, ThresherError
from thresher.estimators import calibration, pass_rate
from thresher.executors.executor import Call, call_here
from thresher.inputs.prompts import prompts_of
from thresher.judging.winnow import count_prompts
from thresher.pool import journal, undrawn
from thresher.pool import rows as shards
from thresher.pool.model_rows import counts_by_model, drawn_by, has_samples, sources_of
from thresher.pool.prompt_counts import PromptCount
from thresher.pool.rows import ANCHOR_INDEX, Request, Series
from thresher.pool.run import Run
from thresher.pool.store import Store, shard_name
from thresher.pool.wanted import answered, noted_with, wanted
from thresher.running.progress import Progress
from thresher.samplers.sampler import Drawn, Group, Sampler, Stream

GROUP = 64
"""Completions of a prompt in one request, at most."""
LINGER_S = 0.02
"""Seconds to wait for more after the first answer: a table of many groups costs little more than one of a single group."""
WAIT_S = 1.0
"""Seconds to wait for an engine before the journal is synced."""

CountPrompts = Callable[[pa.Table], dict[str, PromptCount]]


def sample_shard(run: Run, shard: int, sampler: Sampler, progress: Progress, call: Call = call_here, *, number: int = 0) -> Entry:
    """Draw and write the samples of one model that a shard lacks, unless it has them all. `number` is the model's, from 0; `call`
    calls a function on a filter worker."""
    if not run.models:
        raise StoreError(f"{run.root}: its samples are the user's own; nothing is drawn for it")
    store, one = run.store, run.models[number]
    name, key = f"samples/{shard_name(shard)}", run.key
    before, began_from = store.finished(name, key), store.entry(name)
    if before is not None and has_samples(before, run, one) and not undrawn.may_be_tried_again(before, one, sampler.facts):
        return before
    prompts = store.read_group("prompts", shard)
    drawing = Drawing(prompts, one, sampler, progress)
    drawing.count_in(undrawn.without_tried_again(_earlier(store, shard, before, key), before, one, sampler.facts))

    def count(rows: pa.Table) -> dict[str, PromptCount]:
        counts: dict[str, PromptCount] = call(count_prompts, run, shards.pool_rows(prompts, rows))
        return counts

    with journal.Journal(store, shard, key) as log, sampler.stream(shard) as stream:
        for rows in drawing.draw(stream, count):
            if rows is None:
                log.tick()
            else:
                log.append(rows)
    noted = before.facts["wanted"] if before is not None else None
    budget = noted_with(noted, wanted(one.recipe.sampling, one.recipe.model), one.model_key, run.first_key)
    store.check_lease(now=True)
    if store.entry(name) != began_from:
        raise StoreError(f"{store.path(name)}.parquet: another process wrote it meanwhile; run the same command again")
    tally = drawing.tally
    del drawing  # its prompts
    return _finish(run, shard, before, prompts, tally, budget=budget, seconds=progress.lap())


class Drawing:
    """The samples of one model that the prompts of a shard have, those that are requested, and how many they are to have."""

    def __init__(self, prompts: pa.Table, run: Run, sampler: Sampler, progress: Progress) -> None:
        recipe, model = run.recipe, run.model
        if model is None:
            raise StoreError(f"{run.root}: it draws from several models; give the run of one of them")
        prompts = prompts.filter(pa.array(answered(recipe.model, prompts)))
        self._sampling, self._model, self._sampler, self._progress = recipe.sampling, model, sampler, progress
        self._marking, self._spec, self._own = run.marking, recipe.model, run
        self._prompts = prompts_of(prompts)
        self._ids = [prompt.prompt_id for prompt in self._prompts]
        self._series = shards.series_of(recipe.sampling, model, recipe.run.salt, settings=run.settings, template=run.template)
        self._totals = [recipe.sampling.samples_per_prompt] * len(self._prompts)
        self._indices: dict[tuple[int, str], set[int]] = defaultdict(set)  # drawn or in the journal, by prompt and parameters
        self._requests: dict[int, Request] = {}
        self._outstanding = [0] * len(self._prompts)
        self._numbers = 0
        self._undrawn: dict[str, str] = {}
        # With target_hits: the prompts that may get further waves, and their samples (schema JOURNAL).
        self._open = set(range(len(self._prompts))) if recipe.sampling.target_hits is not None else set()
        self._rows: dict[int, list[pa.Table]] = defaultdict(list)

    def count_in(self, rows: pa.Table) -> None:
        """Count in earlier samples (schema JOURNAL). A wave that was started is drawn to its end before it is judged, so that an
        interrupted run decides as an uninterrupted one. Samples of other models are left out."""
        if self._own.model_key:
            known = pc.is_in(rows["prompt_id"], pa.array(self._ids, pa.string())).to_numpy()
            rows = rows.filter(pa.array(known & drawn_by(self._own, rows)))
        row_of = {prompt_id: row for row, prompt_id in enumerate(self._ids)}
        columns = (rows[name].to_pylist() for name in ("prompt_id", "sampling", "index"))
        for prompt_id, text, index in zip(*columns, strict=True):
            self._indices[row_of[prompt_id], text].add(index)
        for row in self._open:
            drawn = max((index + 1 for series in self._series for index in self._indices[row, series.text]), default=0)
            totals = pass_rate.schedule(self._sampling)
            self._totals[row] = next((total for total in totals if total >= drawn), totals[-1])
        self._keep(rows)

    def draw(self, stream: Stream, count: CountPrompts) -> Iterator[pa.Table | None]:
        """Yield rows as they are finished (schema JOURNAL), and None from time to time while there are none."""
        self._submit(stream, range(len(self._prompts)))
        while True:
            self._submit(stream, self._next_wave(count))
            if not self._requests:
                return
            answers = stream.take(WAIT_S)
            if not answers:
                yield None
                continue
            time.sleep(LINGER_S)
            try:
                answers += stream.take(0)
            except ThresherError:  # what was drawn before is kept
                yield self._finished(answers)
                raise
            yield self._finished(answers)

    @property
    def tally(self) -> "Tally":
        """What was drawn, without the prompts."""
        return Tally(self._own, pa.array(self._ids, pa.string()), sum(map(len, self._indices.values())), self._undrawn)

    def _submit(self, stream: Stream, prompts: Iterable[int]) -> None:
        """Request what these prompts lack."""
        groups = [group for row in prompts for series in self._series for group in self._groups(row, series)]
        if groups:
            stream.submit(groups)

    def _groups(self, row: int, series: Series) -> Iterator[Group]:
        """What a prompt lacks, in groups, so that the engine shares their prefix."""
        indices = {ANCHOR_INDEX} if series.anchor else set(range(self._totals[row]))
        missing = sorted(indices - self._indices[row, series.text])
        for first in range(0, len(missing), GROUP):
            part = tuple(missing[first : first + GROUP])
            sample_ids = tuple(ids.sample_ids(self._ids[row], series.key, part))
            self._numbers += 1
            self._outstanding[row] += 1
            self._requests[self._numbers] = Request(row, series, part, sample_ids)
            seeds = tuple(map(ids.sample_seed, sample_ids))
            prompt = self._prompts[row]
            yield Group(
                self._numbers,
                prompt.messages,
                len(part),
                series.parameters,
                seeds,
                part,
                tools=prompt.tools,
                template=prompt.template,
                keep_top=self._sampling.keep_top_logprobs or 0,
            )

    def _finished(self, drawn: list[Drawn]) -> pa.Table:
        """Rows of finished groups (schema JOURNAL)."""
        answers = []
        for group in drawn:
            request = self._requests.pop(group.number)
            if group.error is not None:
                decides = undrawn.decided_by(self._own, self._sampler.facts) if group.refused else ""
                prompt = self._ids[request.row]  # of several groups one that may succeed is tried again
                self._undrawn[prompt] = decides if self._undrawn.get(prompt, decides) else ""
            self._outstanding[request.row] -= 1
            self._indices[request.row, request.series.text].update(request.indices)
            answers.append((request, group))
        samples = sum(len(request.indices) for request, _ in answers)
        failed = sum(len(request.indices) for request, group in answers if group.error is not None)
        self._progress.drawn(samples, sum(group.tokens for _, group in answers), failed=failed)
        rows = shards.journal_rows(
            answers,
            self._ids,
            model=self._model,
            facts=self._sampler.facts,
            marking=self._marking,
            token_bytes=self._sampler.token_bytes,
        )
        self._progress.unmarked.look(rows, self._spec, self._marking)
        self._keep(rows)
        return rows

    def _keep(self, rows: pa.Table) -> None:
        """Keep the rows of the prompts that may get further waves."""
        if self._open:
            prompt = pc.index_in(rows["prompt_id"], pa.array(self._ids)).to_numpy()
            for row in self._open.intersection(np.unique(prompt).tolist()):
                self._rows[row].append(rows.filter(pa.array(prompt == row)))

    def _next_wave(self, count: CountPrompts) -> list[int]:
        """The prompts that get another wave now, out of those whose last wave is complete."""
        complete_rows = [row for row in self._open if not self._outstanding[row]]
        if not complete_rows:
            return []
        tables = [JOURNAL.empty_table(), *(table for row in complete_rows for table in self._rows[row])]
        counts = count(pa.concat_tables(tables))
        continued = []
        for row in complete_rows:
            prompt = counts[self._ids[row]]
            total = pass_rate.next_total(self._sampling, self._totals[row], prompt.decided, prompt.passed, prompt.hits)
            if total is None or prompt.failed:
                self._open.discard(row)
                self._rows.pop(row, None)
            else:
                self._totals[row] = total
                continued.append(row)
        self._progress.closed(len(complete_rows) - len(continued))
        return sorted(continued)


@dataclass(frozen=True)
class Tally:
    """How many `samples` a shard is to have of the model of `own` and the `prompts` that it answers now, and which of these could
    not be drawn (thresher.pool.undrawn)."""

    own: Run
    prompts: pa.Array
    samples: int
    undrawn: Mapping[str, str]


# -- inside --------------------------------------------------------------------------------------------------------------


def _earlier(store: Store, shard: int, before: Entry | None, key: str) -> pa.Table:
    """The samples that a shard has already, in its file and in its journal (schema JOURNAL)."""
    parts = [journal.read(store, shard, key)]
    if before is not None:
        finished = store.read_table(f"samples/{shard_name(shard)}").drop_columns(list(REPEATED))
        for field in list(JOURNAL)[len(finished.column_names) :]:
            finished = finished.append_column(field, pa.nulls(finished.num_rows, field.type))
        parts.insert(0, finished.cast(JOURNAL))
    return pa.concat_tables(parts)


def _finish(
    run: Run,
    shard: int,
    before: Entry | None,
    prompts: pa.Table,
    tally: Tally,
    *,
    budget: dict[str, Any],
    seconds: float,
) -> Entry:
    """Write a shard's file from its journal (read back, so that what was journalled is what is written), then its entry. Raises
    StoreError where the journal lacks samples."""
    store, key, name = run.store, run.key, f"samples/{shard_name(shard)}"
    rows = undrawn.latest(_earlier(store, shard, before, key))
    table = shards.pool_rows(prompts, rows)
    answered_now = pc.is_in(table["prompt_id"], tally.prompts).to_numpy()
    if (read_back := int((undrawn.own(tally.own, table) & answered_now).sum())) != tally.samples:
        raise StoreError(
            f"{store.path(journal.FOLDER)}: wanted the {tally.samples} samples of shard {shard} that were drawn, found "
            f"{read_back}; run the same command again: it draws the rest"
        )
    anchors = int(pc.sum(table["anchor"]).as_py() or 0)
    _, first = np.unique(table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy(), return_index=True)
    version = 1 if before is None else int(before.facts["version"]) + 1
    facts = {
        "samples": table.num_rows - anchors,
        "anchors": anchors,
        "failed": table.num_rows - table["error"].null_count,
        **({"undrawn": lacking} if (lacking := undrawn.noted(table, before, tally.own, tally.undrawn)) else {}),
        "prompt_tokens": _total_length(table["prompt_ids"].take(pa.array(first))),
        "completion_tokens": _total_length(table["completion_ids"]),
        "seconds": round(seconds + (0.0 if before is None else before.facts["seconds"]), 3),
        "engine_seeds": sorted(seed for seed in pc.unique(table["engine_seed"]).to_pylist() if seed is not None),
        "parts": shards.completion_parts(table),
        "wanted": budget,
        "version": version,
        "extends": [] if before is None else [*before.facts.get("extends", []), before.sha256],
        "calibration": _calibration(rows, before, run),
        **({"models": counts_by_model(run, table)} if run.several else {}),
    }
    entry = store.write_table(name, table, key=key, facts=facts, version=version)
    journal.remove(store, shard)
    return entry


def _total_length(lists: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.list_value_length(lists)).as_py() or 0)


def _calibration(rows: pa.Table, before: Entry | None, run: Run) -> list[list[Any]]:
    """[source, declared, tokens, sums, masked tokens] of all that was calibrated in a shard. Of several models a source is named
    after its model, since one server may serve them all."""
    shape = calibration.empty_sums().shape
    columns = ["source", "sampling", "calibrated_tokens", "calibration", "masked_tokens"]
    calibrated = rows.filter(pc.is_valid(rows["calibration"]))
    names = sources_of(run, calibrated)
    calibrated = calibrated.select(columns).set_column(0, "source", pa.array(names, pa.string()))
    parts = [
        (
            row["source"] or "",
            shards.declared(json.loads(row["sampling"])),
            row["calibrated_tokens"],
            np.reshape(row["calibration"], shape),
            row["masked_tokens"],
        )
        for row in calibrated.to_pylist()
    ]
    parts += [tuple(part) for part in (before.facts["calibration"] if before is not None else [])]
    totals = sorted(calibration.merged(parts).items())
    return [[*source, total.tokens, total.sums.tolist(), total.masked] for source, total in totals]
