"""Rows come from files, datasets, reasoning-gym and grids; an error names what cannot be read."""

import gzip
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.reasoning_gym import EVALUATING
from schemas.prompt_sets import DatasetSource, GridSource, JsonlSource, ParquetSource, ReasoningGymSource
from thresher.errors import SourceError
from thresher.inputs.json_values import json_value
from thresher.inputs.sources import HASH_DEPENDENT, NOT_READ, Columns, is_media, rows

TABLE = pa.table({"country": ["Peru", "Chad", "Cuba"], "n": [1, 2, None]})
READ: list[dict[str, Any]] = [{"country": "Peru", "n": 1}, {"country": "Chad", "n": 2}, {"country": "Cuba", "n": None}]


def jsonl(folder: Path, content: Any) -> Any:
    (folder / "x.jsonl").write_bytes(content)
    return list(rows(JsonlSource(kind="jsonl", path="x.jsonl"), folder))


def parquet(folder: Path, name: Any) -> Any:
    return list(rows(ParquetSource(kind="parquet", path=name), folder))


def test_jsonl_rows_carry_their_line(tmp_path: Path) -> None:
    """Blank lines are not rows but count as lines; a byte order mark and Windows line ends are not part of a row."""
    placed = jsonl(tmp_path, b'\xef\xbb\xbf{"a": "\xc3\xa9"}\r\n\n  \n{"a": NaN}\n')

    assert [where for where, _ in placed] == ["x.jsonl:1", "x.jsonl:4"]
    assert (placed[0][1], str(placed[1][1])) == ({"a": "é"}, "{'a': nan}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1', "x.jsonl:2: not JSON: .* in column 8; wanted one JSON object per line"),
        (b"[1]", "x.jsonl:2: not an object: found list; wanted one JSON object per line"),
        (b"null", "x.jsonl:2: not an object: found NoneType"),
        (b'{"a": "\xff"}', "x.jsonl:2: not UTF-8: byte 0xff in column 8; save the file as UTF-8"),
        (b"1" * 5000, "x.jsonl:2: not JSON that can be read: .*4300 digits"),
        (b"[" * 100_000, "x.jsonl:2: not JSON that can be read: .*recursion"),
    ],
    ids=["torn", "list", "null", "latin-1", "huge number", "deep"],
)
def test_bad_line_is_named_after_the_good_ones(tmp_path: Path, line: Any, message: str) -> None:
    """The error has file and line, what was wanted and what was found."""
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n' + line + b"\n")
    placed = rows(JsonlSource(kind="jsonl", path="x.jsonl"), tmp_path)

    assert next(placed) == ("x.jsonl:1", {"a": 1})
    with pytest.raises(SourceError, match=message):
        next(placed)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    """So does a missing Parquet file."""
    (tmp_path / "capitals.jsonl").touch()

    with pytest.raises(SourceError, match=r"^capital.jsonl: no such file; looked for .*; did you mean capitals.json"):
        list(rows(JsonlSource(kind="jsonl", path="capital.jsonl"), tmp_path))
    with pytest.raises(SourceError, match=r"^no.parquet: no such file"):
        parquet(tmp_path, "no.parquet")


def test_source_without_rows_is_an_error(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 0), tmp_path / "x.parquet")

    with pytest.raises(SourceError, match=r"^x.jsonl holds no rows$"):
        jsonl(tmp_path, b"\n \n")
    with pytest.raises(SourceError, match=r"^x.parquet holds no rows$"):
        parquet(tmp_path, "x.parquet")


def test_parquet_and_both_kinds_of_arrow_files_give_the_same_rows(tmp_path: Path) -> None:
    """The first bytes decide, not the name; rows count from 0."""
    pq.write_table(TABLE, tmp_path / "x.parquet", row_group_size=2)
    for name, make in (("file.arrow", pa.ipc.new_file), ("stream.bin", pa.ipc.new_stream)):
        with make(tmp_path / name, TABLE.schema) as writer:
            writer.write_table(TABLE)

    for name in ("x.parquet", "file.arrow", "stream.bin"):
        assert parquet(tmp_path, name) == [(f"{name} row {number}", row) for number, row in enumerate(READ)]


def test_a_directory_is_one_table(tmp_path: Path) -> None:
    """A column that the first file lacks is kept, and null there; files that are not Parquet are ignored."""
    (tmp_path / "d" / "b").mkdir(parents=True)
    pq.write_table(TABLE.select(["n"]), tmp_path / "d" / "a.parquet")
    pq.write_table(TABLE, tmp_path / "d" / "b" / "x.parquet")
    (tmp_path / "d" / "README.md").touch()
    placed = parquet(tmp_path, "d")

    assert [where for where, _ in placed][2:4] == ["d/a.parquet row 2", "d/b/x.parquet row 0"]
    assert [row for _, row in placed] == [{"n": row["n"], "country": None} for row in READ] + READ
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty: the directory holds no \*.parquet or \*.arrow file"):
        parquet(tmp_path, "empty")


def test_folders_and_patterns_of_files_are_one_source(tmp_path: Path) -> None:
    """Sorted, each file once, compressed or not; hidden files are no data."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.jsonl").write_text('{"n": 1}\n')
    (tmp_path / "d" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"n": 0}\n'))
    (tmp_path / "d" / "._b.jsonl").write_bytes(b"\0")
    for name in ("x.parquet", "y.parquet", "._x.parquet"):
        pq.write_table(TABLE, tmp_path / "d" / name)

    for path in ("d", "d/*.jsonl*"):
        placed = list(rows(JsonlSource(kind="jsonl", path=path), tmp_path))
        assert placed == [("d/a.jsonl.gz:1", {"n": 0}), ("d/b.jsonl:1", {"n": 1})]
    assert [where for where, _ in parquet(tmp_path, "d/*.parquet")][2:4] == ["d/x.parquet row 2", "d/y.parquet row 0"]
    assert parquet(tmp_path, "d") == parquet(tmp_path, "d/*.parquet")
    with pytest.raises(SourceError, match=r"^d/\*.arrow: no file matches this pattern"):
        parquet(tmp_path, "d/*.arrow")


def test_files_whose_columns_differ(tmp_path: Path) -> None:
    """Are matched by name, or refused by it if the column is read."""
    pq.write_table(pa.table({"n": [1], "s": [{"x": 1}], "id": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"s": [{"y": "b"}], "n": [0.5], "late": ["c"], "id": ["x"]}), tmp_path / "1.parquet")
    source = ParquetSource(kind="parquet", path="?.parquet")

    read = [row for _, row in rows(source, tmp_path, Columns(frozenset({"n", "s", "late"}), others=False))]
    assert read == [
        {"n": 1, "s": {"x": 1, "y": None}, "id": NOT_READ, "late": None},
        {"n": 0.5, "s": {"x": None, "y": "b"}, "id": NOT_READ, "late": "c"},
    ]
    with pytest.raises(SourceError, match=r"^1.parquet: the column 'id' is string, and int64 in 0.parquet"):
        list(rows(source, tmp_path))


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    """A truncated file, and one of another format."""
    pq.write_table(TABLE, tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "torn.parquet").write_bytes(whole[:-20])
    (tmp_path / "text.parquet").write_text("country\nPeru\n")

    with pytest.raises(SourceError, match=r"^torn.parquet: cannot be read from row 0 on; is it damaged"):
        parquet(tmp_path, "torn.parquet")
    with pytest.raises(SourceError, match=r"^text.parquet: neither Parquet nor Arrow IPC: it starts with b'countr'"):
        parquet(tmp_path, "text.parquet")


def test_arrow_values_that_python_cannot_hold_are_read(tmp_path: Path) -> None:
    """Arrow's JSON is parsed; nanoseconds are kept, by pandas; a far date becomes text."""
    columns = {
        "json": pa.array(['{"a": [1, null]}', None], pa.json_()),
        "ns": pa.array([1, 2], pa.timestamp("ns")),
        "far": pa.array([2**38, 0], pa.timestamp("s")),
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int8())),
    }
    table = pa.table(columns)
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    (_, first), (_, second) = parquet(tmp_path, "x.arrow")

    assert json_value(first, "x") == {
        "json": {"a": [1, None]},
        "ns": "1970-01-01T00:00:00.000000001",
        "far": "10680-07-14T06:09:04",
        "map": [["k", 1]],
    }
    assert second["json"] is None


def test_grid_is_every_combination_in_written_order() -> None:
    """The last field changes fastest."""
    placed = list(rows(GridSource(kind="grid", fields={"b": [1, 2], "a": ["x", None]}), Path()))

    assert [where for where, _ in placed] == [f"grid row {number}" for number in range(4)]
    assert [list(row.items()) for _, row in placed] == [[("b", b), ("a", a)] for b in (1, 2) for a in ("x", None)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Directories as `datasets` writes them, and as they are on the Hub."""
    import datasets

    folder, table = tmp_path_factory.mktemp("saved"), datasets.Dataset.from_dict(TABLE.to_pydict())
    datasets.disable_progress_bars()
    table.save_to_disk(folder / "one")
    datasets.DatasetDict({"train": table, "test": table.select([2])}).save_to_disk(folder / "many")
    for config in ("a", "b"):
        (folder / "hub" / config).mkdir(parents=True)
        table.to_parquet(folder / "hub" / config / "train.parquet")
    configs = [f"- config_name: {config}\n  data_files: {config}/*.parquet\n" for config in ("a", "b")]
    (folder / "hub" / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    return folder


def dataset(folder: Path, path: str, **settings: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(rows(DatasetSource(kind="dataset", path=path, **settings), folder))


def test_local_datasets_are_read(saved: Any) -> None:
    """A saved dataset, one split of several, and a directory laid out as on the Hub."""
    assert [row for _, row in dataset(saved, "one")] == READ
    assert dataset(saved, "many", split="test") == [("many test row 0", READ[2])]
    assert dataset(saved, "hub", config="a") == [(f"hub a train row {number}", row) for number, row in enumerate(READ)]


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("many", {"split": "tests"}, r"^many tests: no such split; did you mean test\?; it has train, test$"),
        ("hub", {"config": "a", "split": "dev"}, r"^hub a dev: cannot be loaded: .*dev.*\['train'\]; check"),
        ("hub", {"config": "c"}, r"^hub c train: cannot be loaded: .*'c' not found. Available: \['a', 'b'\]; check"),
        ("hub", {}, r"^hub train: cannot be loaded: .*available configs: \['a', 'b'\]"),
        ("one", {"split": "test"}, r"^one test: wanted the split 'test' of a dataset that was saved without any; remove split"),
        ("many", {"config": "b"}, r"^many b train: wanted the config 'b' of a dataset that was saved without any"),
        (
            "hub",
            {"config": "a", "revision": "v1"},
            r"^hub a train: revision 'v1' of a directory, which has none; remove revision",
        ),
        ("./no", {}, "^./no: no such directory, and no Hub id"),
        ("hub/README.md", {}, "^hub/README.md: wanted a dataset, found a file"),
    ],
    ids=["saved split", "split", "config", "no config", "no split", "saved config", "revision", "directory", "file"],
)
def test_dataset_that_cannot_be_loaded_is_explained(saved: Any, path: str, settings: dict[str, Any], message: str) -> None:
    """The message lists the splits or configs that exist."""
    with pytest.raises(SourceError, match=message):
        dataset(saved, path, **settings)


def gym(name: Any, **settings: Any) -> Any:
    return list(rows(ReasoningGymSource(kind="reasoning_gym", name=name, **settings), Path()))


@pytest.mark.slow
def test_reasoning_gym_items_can_be_made_again_from_their_row() -> None:
    """Item i uses seed + i, so the same item comes from two seeds."""
    where, row = gym("chain_sum", size=3, seed=7, config={"max_terms": 3})[1]

    assert (where, set(row)) == ("reasoning_gym chain_sum row 1", {"question", "answer", "reasoning_gym"})
    origin = {"name": "chain_sum", "config": {"max_terms": 3}, "seed": 7, "index": 1}
    assert row["reasoning_gym"] == origin | {"version": version("reasoning-gym")}
    assert gym("chain_sum", size=1, seed=8, config={"max_terms": 3})[0][1]["question"] == row["question"]


@pytest.mark.parametrize("name", sorted(EVALUATING))
def test_families_that_run_answers_are_refused(name: Any) -> None:
    """Before reasoning-gym is even imported."""
    with pytest.raises(SourceError, match=f"^reasoning_gym {name}: refused, because its scorer runs answers as code"):
        gym(name, size=1)


@pytest.mark.slow
def test_bad_reasoning_gym_family_or_config_is_explained() -> None:
    """An unknown family, with the closest name, and a config that the family does not accept."""
    with pytest.raises(SourceError, match=r"^reasoning_gym chain_sun: no such family; did you mean chain_sum\?"):
        gym("chain_sun", size=1)
    with pytest.raises(SourceError, match=r"chain_sum: config {'max_terms': 1}: AssertionError: max_terms must be"):
        gym("chain_sum", size=1, config={"max_terms": 1})


def test_missing_reasoning_gym_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)

    with pytest.raises(SourceError, match=r"pip install 'thresher\[reasoning\]'"):
        gym("chain_sum", size=1)


@pytest.mark.slow
def test_families_that_depend_on_the_hash_seed_need_it_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting the variable inside a running Python has no effect, so the interpreter's flag is read."""
    name = max(HASH_DEPENDENT)

    monkeypatch.setattr("thresher.inputs.sources.sys", SimpleNamespace(flags=SimpleNamespace(hash_randomization=1)))
    with pytest.raises(SourceError, match=f"{name}: its prompts change with .*; start thresher with PYTHONHASHSEED=0"):
        gym(name, size=1)
    monkeypatch.setattr("thresher.inputs.sources.sys", SimpleNamespace(flags=SimpleNamespace(hash_randomization=0)))
    assert len(gym(name, size=1)) == 1


# -- columns -------------------------------------------------------------------------------------------------------------

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SEEN = [{"bytes": b"not an image", "path": None}] * 2
PART = pa.struct([("type", pa.string()), ("text", pa.string()), ("image", PICTURE)])
PARTS = [[{"type": "text", "text": "a", "image": None}], [{"type": "image", "text": None, "image": SEEN[0]}]]
WITH_PICTURES = pa.table(
    {
        "n": [1, 2],
        "picture": pa.array(SEEN, PICTURE),
        "more": pa.array([SEEN, []], pa.list_(PICTURE)),
        "parts": pa.array(PARTS, pa.list_(PART)),
    }
)


def test_unused_columns_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Parquet they are not even decompressed: their bytes may be damaged. Their names stay in the row, for error messages."""
    table = pa.table({"n": [1, 2], "text": ["a" * 5000, "b" * 5000]})
    pq.write_table(table, tmp_path / "x.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    content[content.index(b"aaaa") + 8] ^= 1
    (tmp_path / "x.parquet").write_bytes(content)
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    used = Columns(frozenset({"n", "missing"}), others=False)

    for name in ("x.parquet", "x.arrow"):
        placed = list(rows(ParquetSource(kind="parquet", path=name), tmp_path, used))
        assert [row for _, row in placed] == [{"n": 1, "text": NOT_READ}, {"n": 2, "text": NOT_READ}]
    none = list(rows(ParquetSource(kind="parquet", path="x.parquet"), tmp_path, Columns(others=False)))
    assert [row for _, row in none] == [{"n": NOT_READ, "text": NOT_READ}] * 2


def test_columns_of_images_are_left_out_of_parquet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a warning that names them, wherever in a column the images are; a conversation is read all the same."""
    pq.write_table(WITH_PICTURES, tmp_path / "x.parquet")
    source = ParquetSource(kind="parquet", path="x.parquet")

    assert [row for _, row in rows(source, tmp_path)] == [
        {"n": n, **dict.fromkeys(("picture", "more", "parts"), NOT_READ)} for n in (1, 2)
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "x.parquet: left out the columns of images or sound: picture, more, parts"
    ]
    chats = Columns(frozenset({"parts"}), others=False, chats=frozenset({"parts"}))
    assert [row["parts"] for _, row in rows(source, tmp_path, chats)] == PARTS
    with pytest.raises(SourceError, match=r"x.parquet: the column 'more' holds images or sound .*; leave it out of template"):
        list(rows(source, tmp_path, Columns(frozenset({"more"}))))


def test_images_of_datasets_are_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bytes are no image, and decoding raises; columns beside them are decoded as ever."""
    import datasets

    features = {
        "n": datasets.Value("int64"),
        "any": datasets.Json(),
        "picture": datasets.Image(),
        "sound": datasets.Audio(),
        "parts": datasets.List({"type": datasets.Value("string"), "text": datasets.Value("string"), "image": datasets.Image()}),
    }
    schema = datasets.Features(features).arrow_schema
    columns = {"n": [1, 2], "any": ['{"a": 1}', "[2]"], "picture": SEEN, "sound": SEEN, "parts": PARTS}
    table = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema)
    datasets.Dataset(table, datasets.DatasetInfo(features=datasets.Features(features))).save_to_disk(tmp_path / "x")

    def decode(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    for feature in (datasets.Image, datasets.Audio):
        monkeypatch.setattr(feature, "decode_example", decode)
    source = DatasetSource(kind="dataset", path="x")
    missing = dict.fromkeys(("picture", "sound", "parts"), NOT_READ)
    plain = [{"n": 1, "any": {"a": 1}, **missing}, {"n": 2, "any": [2], **missing}]

    assert [row for _, row in rows(source, tmp_path)] == plain
    chats = Columns(frozenset({"parts"}), chats=frozenset({"parts"}))
    assert [row for _, row in rows(source, tmp_path, chats)] == [
        row | {"parts": part} for row, part in zip(plain, PARTS, strict=True)
    ]
    only = Columns(frozenset({"parts"}), others=False, chats=frozenset({"parts"}))
    assert [row["parts"] for _, row in rows(source, tmp_path, only)] == PARTS
    with pytest.raises(SourceError, match=r"x train: the column 'picture' holds images or sound"):
        list(rows(source, tmp_path, Columns(frozenset({"picture"}))))
    with pytest.raises(AssertionError, match="decoded"):
        datasets.load_from_disk(str(tmp_path / "x"))[0]


def test_columns_of_datasets_are_read_whatever_they_hold(tmp_path: Path) -> None:
    """JSON below the top level is parsed; a date beyond Python's calendar is a text."""
    import datasets

    features = {
        "turns": datasets.List(datasets.Json()),
        "far": datasets.Value("timestamp[s]"),
        "of": datasets.ClassLabel(names=["a"]),
    }
    schema = datasets.Features(features).arrow_schema
    columns = {"turns": pa.array([['{"a": 1}', "[2]"]]), "far": pa.array([2**38]), "of": pa.array([0])}
    table = pa.table([columns[field.name].cast(field.type) for field in schema], schema)
    datasets.Dataset(table, datasets.DatasetInfo(features=datasets.Features(features))).save_to_disk(tmp_path / "x")
    ((_, row),) = rows(DatasetSource(kind="dataset", path="x"), tmp_path)

    assert row == {"turns": [{"a": 1}, [2]], "far": "10680-07-14T06:09:04", "of": 0}
    with pytest.raises(SourceError, match=r"^x: is a dataset that save_to_disk wrote; read it with `kind: dataset`"):
        parquet(tmp_path, "x")


def test_a_struct_of_other_fields_is_no_image() -> None:
    assert is_media(PICTURE)
    assert is_media(pa.list_(pa.large_list(PICTURE)))
    assert is_media(pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]))
    assert not is_media(PART)
    assert is_media(PART, anywhere=True)
    assert not is_media(pa.struct([("bytes", pa.string()), ("path", pa.string())]), anywhere=True)
    assert not is_media(pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("n", pa.int8())]))
