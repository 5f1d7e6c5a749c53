"""`thresher dedupe`: any table in; rows that stay and rows that are dropped out."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.crash_cases import of_a_dead_process
from helpers.recorded_disk import RecordedDisk, put
from thresher.cli import main
from thresher.dedupe import table
from thresher.dedupe.table import effective_number

LONG = "We take the first number and add the second number to it, step by step, until nothing is left, and so we find {}."


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return str(path)


def dedupe(data: str, out: Path, *more: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    assert main(["dedupe", data, "--out", str(out), *more]) == 0
    return pq.read_table(out / "kept").to_pylist(), pq.read_table(out / "duplicates").to_pylist()


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_every_row_is_kept_or_names_the_row_it_repeats(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [LONG.format("out"), "Something else.", LONG.format("it"), LONG.format("it").upper(), LONG.format("7")]
    data = written(tmp_path / name, [{"id": number, "text": text} for number, text in enumerate(texts)])

    kept, dropped = dedupe(data, tmp_path / "out")

    assert [(row["id"], row["multiplicity"]) for row in kept] == [(1, 1), (2, 3), (4, 1)]
    assert [(row["id"], row["row"], row["duplicate_of"], row["scope"]) for row in dropped] == [(0, 0, 2, "all"), (3, 3, 2, "all")]
    assert dropped[1]["similarity"] == 1
    assert dropped[0]["similarity"] == pytest.approx(22 / 24, abs=1e-4)
    said = capsys.readouterr().out
    assert "3 kept (60.0 %), 1 exact and 1 near duplicates dropped" in " ".join(said.split())
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["largest"] == [3, 1, 1]


def test_a_crash_or_power_cut_leaves_no_output_or_all_of_it(tmp_path: Path) -> None:
    """Where there is none, the same command works, and nothing else is left."""
    root = tmp_path / "root"
    root.mkdir()
    data = written(tmp_path / "rows.jsonl", [{"text": LONG.format(text)} for text in ("out", "out", "it")])
    disk = RecordedDisk(root)
    with disk.recording():
        rows = dedupe(data, root / "runs/out")
    whole = {str(path.relative_to(root)) for path in root.rglob("*")}

    for _, state in [*disk.crash_states, *disk.power_cut_states]:
        if "runs/out" in state:
            assert whole <= state.keys()
            assert None not in [state[name] or None for name in whole if "." in name]
            continue
        put(root, of_a_dead_process(state))
        assert dedupe(data, root / "runs/out") == rows
        assert {str(path.relative_to(root)) for path in root.rglob("*")} == whole


def test_chat_messages_are_compared_by_their_last_one(tmp_path: Path) -> None:
    said = [("hello", "yes"), ("what is it", "yes"), ("hello", "no")]
    rows = [{"completion": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]} for a, b in said]

    kept, dropped = dedupe(written(tmp_path / "rows.parquet", [*rows, {"completion": []}]), tmp_path / "out")

    assert [row["duplicate_of"] for row in dropped] == [0]
    assert len(kept) == 3


def test_a_column_guards_and_a_score_decides(tmp_path: Path) -> None:
    rows = [{"text": LONG.format(number), "answer": number % 2, "score": number / 10} for number in range(4)]
    data = written(tmp_path / "rows.parquet", rows)

    assert len(dedupe(data, tmp_path / "numbers")[0]) == 4
    assert [row["score"] for row in dedupe(data, tmp_path / "none", "--guard", "none", "--score", "score")[0]] == [0.3]
    assert [row["score"] for row in dedupe(data, tmp_path / "answer", "--guard", "answer", "--score", "score")[0]] == [0.2, 0.3]


@pytest.mark.slow
def test_groups_come_first_and_may_be_all(tmp_path: Path) -> None:
    """What a row repeats is always a row that stays, whichever scope found it."""
    texts = [LONG.format("out"), LONG.format("it"), LONG.format("us"), LONG.format("it now")]
    data = written(tmp_path / "rows.parquet", [{"text": text, "prompt": row // 2} for row, text in enumerate(texts)])

    kept, dropped = dedupe(data, tmp_path / "across", "--group", "prompt")
    assert len(kept) == 1
    assert {row["duplicate_of"] for row in dropped} == {texts.index(kept[0]["text"])}
    assert sorted(row["scope"] for row in dropped) == ["all", "group", "group"]
    kept, dropped = dedupe(data, tmp_path / "within", "--group", "prompt", "--within-groups")
    assert [row["scope"] for row in dropped] == ["group", "group"]


def test_earlier_draws_are_added_up(tmp_path: Path) -> None:
    kept, _ = dedupe(written(tmp_path / "a.parquet", [{"text": "a b", "multiplicity": n} for n in (3, 4)]), tmp_path / "out")

    assert [row["multiplicity"] for row in kept] == [7]


def test_bytes_that_are_no_utf8_and_nulls_are_texts_too(tmp_path: Path) -> None:
    column = pa.Array.from_buffers(
        pa.string(), 3, pa.array([b"ab\xff\xfe", b"ab\xff\xfe", b"caf\xc3\xa9"], pa.binary()).buffers()
    )
    pq.write_table(pa.table({"text": pa.chunked_array([column, pa.nulls(2, pa.string())])}), tmp_path / "rows.parquet")

    assert main(["dedupe", str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "out")]) == 0
    dropped = pq.read_table(tmp_path / "out" / "duplicates")
    assert dropped.select(["row", "duplicate_of"]).to_pylist() == [{"row": 1, "duplicate_of": 0}, {"row": 4, "duplicate_of": 3}]
    assert dropped["text"].cast(pa.binary())[0].as_py() == b"ab\xff\xfe"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_column_that_appears_late_is_kept(tmp_path: Path, ending: str) -> None:
    """In a later row or a later file; an object gets no key that it does not have."""
    first = [{"text": "a b", "call": {"q": 1}}, {"text": "a b", "call": {"q": 2}}]
    late = {"text": "c d", "call": {"q": 1, "limit": 2}, "late": "z"}
    written(tmp_path / f"0.{ending}", first)
    written(tmp_path / f"1.{ending}", [late])

    kept, dropped = dedupe(str(tmp_path / f"*.{ending}"), tmp_path / "out")
    calls = [row["call"] for row in kept]
    assert [row["late"] for row in (*kept, *dropped)] == [None, "z", None]
    if ending == "jsonl":
        assert [json.loads(call) for call in calls] == [{"q": 1}, {"q": 1, "limit": 2}]
    else:
        assert calls == [{"q": 1, "limit": None}, {"q": 1, "limit": 2}]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([2**38, 0], pa.timestamp("s")), pa.array([b"\xff", b"\xfe"]), pa.array([1, 2], pa.duration("s")),
        pa.array([{"x": 2**38}, {"x": 0}], pa.struct([("x", pa.timestamp("s"))])), pa.array(["[1]", "[2]"], pa.json_()),
        pa.array([Decimal("1.1"), Decimal("2.2")]), pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int8())),
        pa.array(["x", "y"]).dictionary_encode(), pa.array([1.5, float("nan")]), pa.array([True, None]),
    ],
    ids=lambda values: str(values.type),
)  # fmt: skip
def test_a_column_of_any_type_groups_and_guards(tmp_path: Path, values: pa.Array) -> None:
    """Equal values are equal texts, others are not."""
    both = pa.concat_arrays([values, values])
    pq.write_table(pa.table({"text": ["a b", "a b", "a b", "a b"], "by": both}), tmp_path / "x.parquet")

    for flags in (["--guard", "by"], ["--group", "by", "--within-groups"]):
        assert main(["dedupe", str(tmp_path / "x.parquet"), "--out", str(tmp_path / flags[0]), *flags]) == 0
        assert pq.read_table(tmp_path / flags[0] / "duplicates")["duplicate_of"].to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([{"a": "x"}], [], "which column holds the text. It has a; name one with --text"),
        ([{"text": 1}], [], "column 'text': wanted text or chat messages, found int64"),
        ([{"text": "x"}], ["--group", "txt"], "no column 'txt'; it has text.*did you mean text"),
        ([{"text": "x", "s": "y"}], ["--score", "s"], "column 's': wanted numbers, found string"),
        ([{"text": "x", "s": datetime(2024, 5, 1, tzinfo=UTC)}], ["--score", "s"], "column 's': wanted numbers, found timestamp"),
        ([{"text": "x"}], ["--split", "test"], "a file has no config and no split; leave out --config and --split"),
        ([{"text": "x"}], ["--threshold", "1.5"], "--threshold: wanted a number above 0 and up to 1, found 1.5"),
        ([{"text": "x", "row": 1}], [], "has a column 'row' already"),
    ],
)
def test_impossible_requests_are_refused_with_the_reason(
    tmp_path: Path, rows: list[dict[str, Any]], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path / "rows.parquet", rows)

    assert main(["dedupe", data, "--out", str(tmp_path / "out"), *more]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "broken.jsonl").write_text('{"text": \n')
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    (tmp_path / "there").mkdir()

    for name, message in (
        ("nowhere.jsonl", "no such file"),
        ("broken.parquet", "cannot be read"),
        ("broken.jsonl", "broken.jsonl:1: not JSON"),
        ("empty.parquet", "holds no rows"),
    ):
        assert main(["dedupe", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err, name
    assert main(["dedupe", str(tmp_path / "empty.parquet"), "--out", str(tmp_path / "there")]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err


def test_what_another_process_wrote_meanwhile_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several commands with one --out, one writes it and the others say so."""
    sign, theirs = table._sign, tmp_path / "out" / "kept" / "theirs"

    def slow(*arguments: Any) -> None:
        sign(*arguments)
        theirs.parent.mkdir(parents=True)
        theirs.write_text("theirs")

    monkeypatch.setattr(table, "_sign", slow)
    data = written(tmp_path / "rows.jsonl", [{"text": "a text"}])

    assert main(["dedupe", data, "--out", str(tmp_path / "out")]) == 1
    assert "another process wrote it meanwhile" in capsys.readouterr().err
    assert theirs.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.jsonl"]


def test_the_effective_number_is_that_of_equal_shares() -> None:
    assert effective_number(np.array([5, 5, 5, 5])) == pytest.approx(4)
    assert effective_number(np.array([1_000_000, 1])) == pytest.approx(1, abs=1e-4)
    assert effective_number(np.array([], np.int64)) == 0
