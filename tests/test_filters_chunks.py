"""Rows are taken, cut and compared as Arrow does it, whatever the chunks; only what Arrow refuses differs."""

import numpy as np
import pyarrow as pa
import pytest

from filters import chunks
from schemas.sample import MESSAGES

TURNS = [[{"role": "user", "content": "y" * (7 * row)}] * (row % 3) for row in range(50)]
WHOLE = pa.table(
    {
        "text": pa.array([None if row == 9 else "x" * row for row in range(50)]),
        "number": pa.array(range(50), pa.int32()),
        "messages": pa.array(TURNS, MESSAGES),
        "tokens": pa.array([None if row == 3 else list(range(row)) for row in range(50)], pa.list_(pa.int32())),
        "json": pa.array(["{}"] * 50).cast(pa.json_()),
        "seen": pa.array([row % 2 == 0 for row in range(50)]),
    }
)
TABLE = pa.concat_tables([WHOLE.slice(3, 20), WHOLE, WHOLE.slice(40)])
"""80 rows in three chunks, which are slices."""
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("most", [300, 5_000, 1 << 20])
@pytest.mark.parametrize(
    "rows",
    [
        np.arange(80),
        RANDOM.permutation(80),
        RANDOM.integers(0, 80, 500),
        np.array([5]),
        np.zeros(0, np.int64),
        np.arange(0, 80, 7),
    ],
    ids=["all", "permuted", "repeated", "one", "none", "some"],
)
def test_rows_are_taken_as_arrow_takes_them(most: int, rows: chunks.Ints, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks that are no larger than allowed, unless one row is."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", most)

    taken = chunks.take(TABLE, rows)

    assert taken.equals(TABLE.take(pa.array(rows)))
    if len(rows) == 500 and most < 1 << 20:
        assert all(batch.num_rows == 1 or chunks.row_bytes(batch).sum() <= most for batch in taken.to_batches())


def test_the_bytes_of_a_row_are_those_of_its_values() -> None:
    """Text at any depth, tokens and numbers; a slice has those of its own rows."""
    sizes = chunks.row_bytes(WHOLE.select(["text", "number", "messages", "tokens"]))

    assert sizes[:4].tolist() == [0 + 4, 1 + 4 + 11 + 4, 2 + 4 + 2 * 18 + 8, 3 + 4]
    assert chunks.row_bytes(TABLE).tolist() == [
        *chunks.row_bytes(WHOLE)[3:23],
        *chunks.row_bytes(WHOLE),
        *chunks.row_bytes(WHOLE)[40:],
    ]


@pytest.mark.parametrize(
    ("borders", "expected"),
    [(None, [(0, 1), (1, 3), (3, 4), (4, 6)]), ([2, 4, 6], [(0, 2), (2, 4), (4, 6)]), ([6], [(0, 6)])],
)
def test_cuts_fill_what_is_allowed(borders: list[int] | None, expected: list[tuple[int, int]]) -> None:
    """An item that is larger stands alone, and a run ends only at a border."""
    sizes = np.array([5, 1, 1, 9, 2, 2])

    assert list(chunks.cuts(sizes, 4, None if borders is None else np.array(borders))) == expected
    assert not list(chunks.cuts(sizes[:0], 4))


def test_pieces_are_all_rows_in_order() -> None:
    parts = list(chunks.pieces(TABLE, 400))

    assert pa.concat_tables(parts).equals(TABLE)
    assert len(parts) > 10
    assert all(part.num_rows == 1 or chunks.row_bytes(part).sum() <= 400 for part in parts)
    assert list(chunks.pieces(TABLE, 1 << 20)) == [TABLE]


@pytest.mark.parametrize("most", [1, 1 << 20])
def test_equal_texts_have_equal_codes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", most)

    assert chunks.text_codes(pa.chunked_array([["a", None, "b"], ["a", "", "b\0"]])).tolist() == [0, -1, 1, 0, 2, 3]
    assert chunks.text_codes(pa.chunked_array([], pa.string())).tolist() == []
