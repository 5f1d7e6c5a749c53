"""The cache of built filters: each recipe has its own worker processes, evicted ones end, and threads may share a set."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from filters.code.text import fenced
from filters.judging import judge
from helpers.filter_tables import pool_table
from thresher.inputs import recipe_file
from thresher.judging.filter_sets import FilterSet, FilterSets
from thresher.judging.winnow import count_prompts, judge_shard
from thresher.pool import judged as judged_pool
from thresher.pool.run import Run, open_run
from thresher.pool.store import shard_name
from thresher.running import steps
from thresher.running.progress import Progress

Write = Callable[..., Path]
MATHS = {"name": "math_answer"}
HALVES = pool_table(
    *({"completion": f"\\boxed{{\\frac{{{2 * n}}}{{4}}}}", "reference": f"\\frac{{{n}}}{{2}}"} for n in range(1, 81))
)
"""More comparisons than two workers are sent at the same time, so that a pool starts all of its workers and a spare."""


@pytest.fixture
def sets() -> Iterator[FilterSets]:
    cache = FilterSets(most=2)
    yield cache
    cache.close()


@pytest.fixture
def run_with(recipe: Write, tmp_path: Path) -> Callable[[int], Run]:
    """Opens a run whose verifiers have this many worker processes."""

    def opened(workers: int) -> Run:
        path = recipe(filters=[MATHS])
        return steps.begin(recipe_file.load(path, [f"run.verifier_workers={workers}"]), tmp_path / f"run{workers}").run

    return opened


def judged(filter_set: FilterSet, table: pa.Table = HALVES) -> list[str]:
    [built] = filter_set.local
    outcomes: list[str] = judge(built.filter, table)["outcome"].to_pylist()
    return outcomes


def processes(filter_set: FilterSet) -> set[int]:
    return set(filter_set.tools.workers.pids())


def ended(pids: set[int]) -> bool:
    """Whether all these processes end within some seconds."""
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_recipes_in_turn_have_their_own_workers(sets: FilterSets, run_with: Callable[[int], Run]) -> None:
    """A, B, A: the counts hold, no process is shared, and A finds its own again."""
    pids: list[set[int]] = []
    for workers in (1, 2, 1):
        with sets.use(run_with(workers)) as filter_set:
            assert judged(filter_set) == ["keep"] * 80
            pids.append(processes(filter_set))

    assert [len(own) for own in pids] == [1 + 1, 2 + 1, 1 + 1]  # and a spare each
    assert pids[0] == pids[2]
    assert not pids[0] & pids[1]


@pytest.mark.slow
def test_processes_of_an_evicted_set_end(run_with: Callable[[int], Run]) -> None:
    sets = FilterSets(most=1)
    with sets.use(run_with(1)) as filter_set:
        judged(filter_set)
        first = processes(filter_set)
    assert first
    with sets.use(run_with(2)) as filter_set:
        assert ended(first)
        judged(filter_set)
        second = processes(filter_set)
    sets.close()

    assert ended(second)


@pytest.mark.slow
def test_an_evicted_set_in_use_ends_with_its_last_user(run_with: Callable[[int], Run]) -> None:
    sets = FilterSets(most=1)
    with sets.use(run_with(1)) as filter_set:
        judged(filter_set)
        pids = processes(filter_set)
        with sets.use(run_with(2)):
            assert judged(filter_set) == ["keep"] * 80
            assert processes(filter_set) == pids
    sets.close()

    assert ended(pids)


def test_a_set_is_built_once_for_all_threads(sets: FilterSets, run_with: Callable[[int], Run]) -> None:
    run = run_with(1)

    def used(_: int) -> int:
        with sets.use(run) as filter_set:
            return id(filter_set)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(used, range(64)))) == 1


PROGRAMS = ["def f(x): return 2 * x", "def f(x): return x", "def f(x): return x + x", "def f(x): return 0"]


@pytest.fixture
def adaptive(recipe: Write, tmp_path: Path) -> Callable[..., Run]:
    """Runs a recipe that draws programs and fractions until it has enough hits. With 0 filter processes, threads judge them."""

    def run(name: str, *changes: str, seconds: float = 20.0) -> Run:
        def prompts(family: str, template: str) -> dict[str, Any]:
            return {"family": family, "source": {"kind": "jsonl", "path": f"{family}.jsonl"}, "template": template}

        path = recipe(
            prompts=[prompts("code", "Double {{ n }}."), prompts("maths", "Halve {{ n }}.")],
            engine={"kind": "replay", "path": "drawn.jsonl"},
            filters=[
                {"name": "code_tests", "parameters": {"seconds": seconds}, "families": ["code"]},
                {"name": "math_answer", "parameters": {"seconds": seconds}, "families": ["maths"]},
            ],
        )
        numbers = range(1, 7)
        write(tmp_path / "code.jsonl", [{"n": n, "answer": [f"assert f({n}) == {2 * n}"]} for n in numbers])
        write(tmp_path / "maths.jsonl", [{"n": n, "answer": f"\\frac{{{n}}}{{2}} "} for n in numbers])
        programs = [{"prompt": f"Double {n}.", "completion": fenced(text)} for n in numbers for text in PROGRAMS]
        fractions = [
            {"prompt": f"Halve {n}.", "completion": f"\\boxed{{\\frac{{{above}}}{{{below}}}}}"}
            for n in numbers
            for above, below in ((n, 2), (n, 3), (2 * n, 4), (1, 99))
        ]
        write(tmp_path / "drawn.jsonl", programs + fractions)
        waves = ["sampling.target_hits=3", "sampling.max_samples_per_prompt=8", "sampling.samples_per_prompt=2"]
        begun = steps.begin(recipe_file.load(path, ["run.shard_samples=1", *waves, *changes]), tmp_path / name)
        with Progress() as progress:
            assert steps.run_steps(begun, progress).audit.problems == ()
        return open_run(tmp_path / name)

    return run


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pool_verdicts(run: Run) -> dict[str, list[tuple[str, ...]]]:
    """The verdicts of every sample, without the times."""
    tables = [run.store.read_table(f"verdicts/{shard_name(shard)}") for shard in judged_pool.sampled(run.store)]
    verdicts: dict[str, list[tuple[str, ...]]] = {}
    for row in pa.concat_tables(tables).to_pylist():
        verdicts.setdefault(row["sample_id"], []).append((row["filter"], row["outcome"], row["reason"], row["detail"]))
    return verdicts


@pytest.mark.slow
def test_threads_judge_an_adaptive_run_as_one_process_does(adaptive: Callable[..., Run]) -> None:
    """Without filter processes, the threads that draw shards count hits while another thread judges finished shards."""
    threads = adaptive("threads", "run.filter_workers=0", "run.shards_in_flight=6", "run.verifier_workers=2")
    process = adaptive("process", "run.filter_workers=1", "run.shards_in_flight=1", "run.verifier_workers=1")

    assert pool_verdicts(threads) == pool_verdicts(process)
    outcomes = {outcome for verdicts in pool_verdicts(threads).values() for _, outcome, _, _ in verdicts}
    assert outcomes == {"keep", "drop"}


@pytest.mark.slow
def test_shards_may_be_counted_and_judged_by_threads(adaptive: Callable[..., Run]) -> None:
    """Each thread gets what one thread gets. Another process judged the run, so this one remembers no verdict."""
    run = adaptive("run", "run.filter_workers=1", seconds=21.0)
    verdicts, shards = pool_verdicts(run), judged_pool.sampled(run.store)
    samples = {shard: run.store.read_table(f"samples/{shard_name(shard)}") for shard in shards}
    for shard in shards:
        for suffix in ("json", "parquet"):
            (Path(run.root) / f"verdicts/{shard_name(shard)}.{suffix}").unlink()
    with ThreadPoolExecutor(8) as threads:
        counts = [(shard, threads.submit(count_prompts, run, samples[shard])) for shard in shards * 3]
        entries = [threads.submit(judge_shard, run, shard) for shard in shards]
    for future in entries:
        future.result()

    assert pool_verdicts(run) == verdicts
    assert [future.result() for _, future in counts] == [count_prompts(run, samples[shard]) for shard, _ in counts]
