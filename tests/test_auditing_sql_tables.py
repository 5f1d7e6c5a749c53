"""The tables of `thresher sql`: their columns agree with the pool."""

import json
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from helpers import known
from helpers.runs import filter_rows
from helpers.small_run import SIX_DRAWS, judged_rows, small_run
from thresher.auditing.count_run import count
from thresher.auditing.query import query
from thresher.auditing.sql_tables import _interruptible
from thresher.cli import main
from thresher.errors import AuditError
from thresher.pool import judged
from thresher.pool.run import Run, open_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return small_run(tmp_path / "run", SIX_DRAWS, shard_prompts=2)


@pytest.mark.parametrize("corpus", [False, True])
def test_samples_in_sql_have_the_outcomes_of_the_pool(tmp_path: Path, corpus: bool) -> None:
    run = small_run(tmp_path, corpus=corpus)
    names = [
        "sample_id",
        "outcome",
        "kind",
        "reason",
        "failed_filter",
        "nearest",
        "similarity",
        "detail",
        "shard",
        "completion_ids",
    ]

    found = query(run, f'select {", ".join(names)} from samples order by shard, "row"').to_pylist()

    assert found == [{name: row[name] for name in names} for row in judged_rows(run)]


def test_near_misses_and_duplicates_in_sql(tmp_path: Path) -> None:
    """In a run with real filters, which name the related sample."""
    said = ["the answer is 42", "the answer is 42", "so the answer is 42", "the answer is 41", "nothing like it at all 7"]
    rows = [{"prompt": "what?", "reference": "42", "completion": text} for text in said]
    filters = [{"name": "exact_answer", "parameters": {"after": "is"}}]
    run = open_run(filter_rows(tmp_path, rows, {"filters": filters}))

    found = query(run, 'select kind, nearest, similarity from samples order by shard, "row"').to_pylist()

    assert found == [{name: row[name] for name in ("kind", "nearest", "similarity")} for row in judged_rows(run)]
    assert {"near_miss", "duplicate"} <= {row["kind"] for row in found}


def test_sql_has_four_tables_and_explains_errors(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    one = main(["sql", run.root, "select reason, count(*) as n from verdicts group by 1 order by 2 desc, 1", "--csv"])
    given = Counter(reason for shard in range(3) for reason in judged.verdicts(run.store, shard)[0]["reason"].to_pylist())
    lines = [f"{reason},{n}" for reason, n in sorted(given.items(), key=lambda item: (-item[1], item[0]))]
    assert (one, capsys.readouterr().out.splitlines()) == (0, ["reason,n", *lines])
    assert main(["sql", run.root, "select count(*) as n from prompts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 5}]
    found = query(run, "select value from stats where section = 'total' and name = 'pass_rate'").to_pylist()
    assert found == [{"value": count(run).total.pass_rate}]
    assert main(["sql", run.root, "select nothing from verdicts"]) == 1
    assert "the tables are prompts, samples, verdicts and stats" in capsys.readouterr().err
    with pytest.raises(AuditError, match="syntax error"):
        query(run, "selct 1")


def test_a_file_without_a_column_of_the_pool_is_named_as_unreadable(tmp_path: Path) -> None:
    run = small_run(tmp_path, SIX_DRAWS)
    entry, table = known(run.store.entry("samples/00000")), run.store.read_table("samples/00000").drop_columns(["temperature"])
    run.store.write_table("samples/00000", table, key=entry.key, facts=entry.facts)

    with pytest.raises(AuditError, match=r"a file of the run cannot be read: .*temperature"):
        query(run, "select count(*) from samples")


def test_only_signals_that_end_a_program_interrupt_a_query() -> None:
    """A handler of another signal, as of a timer or a child that ends, leaves the query alone."""

    class Connection:
        def __init__(self) -> None:
            self.interrupted = threading.Event()

        def interrupt(self) -> None:
            self.interrupted.set()

    numbers = (signal.SIGUSR1, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        for number, interrupts in zip(numbers, (False, True), strict=True):
            connection = Connection()
            with _interruptible(cast("Any", connection)):
                signal.raise_signal(number)
                assert connection.interrupted.wait(5 if interrupts else 0.1) is interrupts
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
