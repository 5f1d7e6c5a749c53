"""The journal: what is whole is read, wherever the writer was cut off."""

from pathlib import Path

import pyarrow as pa
import pytest

from schemas.sample import JOURNAL
from thresher.pool import journal
from thresher.pool.store import Store


def rows(first: int, count: int) -> pa.Table:
    made = [
        {
            **dict.fromkeys(JOURNAL.names),
            "sample_id": f"s{number}",
            "prompt_id": "p",
            "index": number,
            "anchor": False,
            "completion": "é" * number,
            "completion_ids": list(range(number)),
            "logprobs": [-0.5] * number,
            "calibration": [0.5] * 18 if number == first else None,
        }
        for number in range(first, first + count)
    ]
    return pa.Table.from_pylist(made, JOURNAL)


def written(store: Store, *tables: pa.Table, key: str = "k") -> Path:
    with journal.Journal(store, 3, key) as sink:
        for table in tables:
            sink.append(table)
    return Path(store.path(f"journal/{journal.names(store, 3)[-1]}"))


def test_appended_rows_are_read(tmp_path: Path) -> None:
    """Of every process that wrote, in order; another key's rows do not count."""
    store = Store(tmp_path)
    written(store, rows(0, 3), rows(3, 2))
    written(store, rows(5, 1))
    written(store, rows(9, 1), key="other")

    assert journal.read(store, 3, "k").equals(
        rows(0, 3 + 2 + 1)
        .set_column(
            JOURNAL.get_field_index("calibration"),
            JOURNAL.field("calibration"),
            pa.array([[0.5] * 18 if n in (0, 3, 5) else None for n in range(6)], JOURNAL.field("calibration").type),
        )
        .cast(JOURNAL)
    )
    assert len(journal.names(store, 3)) == 3
    journal.remove(store, 3)
    assert journal.names(store, 3) == []


def test_rows_are_there_before_the_journal_is_closed(tmp_path: Path) -> None:
    """A process that is killed has handed them to the operating system."""
    store = Store(tmp_path)
    sink = journal.Journal(store, 3, "k")
    sink.append(rows(0, 2))

    assert journal.read(store, 3, "k").num_rows == 2
    sink.__exit__(None, None, None)


@pytest.mark.slow
def test_a_torn_tail_is_dropped_wherever_it_is_torn(tmp_path: Path) -> None:
    """At every length of the file: the whole batches before it are read, never a part of one."""
    store = Store(tmp_path)
    path = written(store, rows(0, 2), rows(2, 3))
    data, found = path.read_bytes(), []
    for length in [*range(0, len(data), 7), len(data)]:
        path.write_bytes(data[:length])
        found.append(journal.read(store, 3, "k").num_rows)
    path.write_bytes(data)

    assert set(found) == {0, 2, 5}
    assert found == sorted(found)
    assert journal.read(store, 3, "k").num_rows == 5


@pytest.mark.parametrize("at", range(40, 4000, 111))
def test_a_byte_that_changed_is_found(tmp_path: Path, at: int) -> None:
    """After a power cut a file may hold rubbish: every batch that is read is as it was written."""
    store = Store(tmp_path)
    whole = pa.concat_tables([rows(0, 2), rows(2, 3)])
    path = written(store, rows(0, 2), rows(2, 3))
    data = bytearray(path.read_bytes())
    data[min(at, len(data) - 1)] ^= 0x5A
    path.write_bytes(data)
    found = journal.read(store, 3, "k")

    assert found.equals(whole.slice(0, found.num_rows))


def test_on_an_object_store_whole_objects_are_written() -> None:
    """Where nothing can be appended."""
    store = Store("memory://journal-test")
    with journal.Journal(store, 3, "k") as sink:
        sink.append(rows(0, 2))
        sink.append(rows(2, 1))
        assert journal.read(store, 3, "k").num_rows == 0
    assert journal.read(store, 3, "k").num_rows == 3
    with journal.Journal(store, 3, "k") as sink:
        sink.append(rows(3, 1))
    assert journal.names(store, 3) == ["00003-0001.arrows", "00003-0002.arrows"]
    journal.remove(store, 3)
