"""Runs that cannot be judged fully have a report all the same, which says what is missing; seen through the command line."""

import csv
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.small_run import small_run
from schemas.recipe import Recipe
from schemas.sample import SAMPLES
from thresher.audit.count_run import audit
from thresher.cli import main
from thresher.errors import StoreError
from thresher.pool.older_format import fitted
from thresher.pool.store import Store

pytestmark = pytest.mark.slow  # what draws charts takes a second to import
SINCE_2 = ["temperature", "seed", "source", "error"]
"""Columns of samples that pools of format 1 lack."""


class Page(HTMLParser):
    """What a page says: `notes` (missing), `bad` (problems), `figures`, and by heading the rows of its tables and its ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.notes, self.bad, self.figures, self.rows, self.charts = [], [], {}, {}, set()
        self.into, self.heading, self.text = None, None, ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        given = dict(attrs)
        if tag == "div" and given.get("class") == "chart":
            self.charts.add(given["id"])
        if tag in ("p", "h2", "td", "th", "b"):
            self.into, self.text = (tag, given.get("class")), ""
        if tag == "tr":
            self.rows.setdefault(self.heading, []).append([])

    def handle_data(self, data: Any) -> None:
        if self.into:
            self.text += data
        elif self.figure and data.strip():
            self.figures[data.strip()] = self.figure
            self.figure = None

    figure = None

    def handle_endtag(self, tag: Any) -> None:
        if self.into is None or tag != self.into[0]:
            return
        text = " ".join(self.text.split())
        if tag == "p":
            {"missing": self.notes, "bad": self.bad}.get(self.into[1], []).append(text)
        elif tag == "h2":
            self.heading = text
        elif tag == "b":
            self.figure = text
        else:
            self.rows[self.heading][-1].append(text)
        self.into = None


def seen(store: Store, capsys: pytest.CaptureFixture[str]) -> Any:
    """Status, what the terminal shows in one line, the errors, and the page."""
    place = Path(store.root).parent / "page.html"
    status = main(["audit", store.root, "--html", str(place)])
    said = capsys.readouterr()
    return status, " ".join(said.out.split()), said.err, Page(place.read_text())


def test_run_that_was_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err, page = seen(small_run(tmp_path / "run", stop_after=1), capsys)

    assert status == 1
    assert "3 shards planned, 1 sampled and 1 judged" in err
    unfinished = "The run is unfinished: 1 of 3 shards are sampled and judged, and what follows is of those."
    assert page.notes == [unfinished]
    assert f"NOTE {unfinished}" in out
    assert len(page.bad) == 1
    assert page.figures["samples"] == "8"
    assert [row[:2] for row in page.rows["Funnel"][1:]] == [["finished", "8"], ["answer", "7"], ["exact_duplicate", "2"]]


@pytest.mark.parametrize("planned", [True, False])
def test_empty_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str], planned: bool) -> None:
    store = small_run(tmp_path / "run", stop_after=0)
    if not planned:
        store.remove("prompts.json")

    status, out, _, page = seen(store, capsys)

    assert status == 1
    shards = 3 if planned else 0
    unfinished = f"The run is unfinished: 0 of {shards} shards are sampled and judged, and what follows is of those."
    assert page.notes == [unfinished, "There are no samples yet."]
    assert "NOTE There are no samples yet." in out
    assert page.figures["samples"] == page.figures["hits"] == "0"
    assert page.figures["pass rate"] == "\u2013"
    assert page.rows["Funnel"][1:] == []
    assert [row[0] for row in page.rows["Families"][1:]] == []


def test_pool_of_rows_that_none_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, _, page = seen(small_run(tmp_path / "run", [("sums", ["torn", "torn"], None)] * 3, origin="brought"), capsys)

    assert status == 0
    assert "No sample was judged right or wrong, so there are no pass rates." in page.notes
    assert page.rows["Funnel"][1][:3] == ["readable", "6", "0"]
    assert "pass@k" not in page.rows
    assert page.figures["undecided"] == "6"


def test_zero_hits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _, page = seen(small_run(tmp_path / "run", [("sums", ["wrong", "cut"], "wrong")] * 4), capsys)

    assert status == 0
    assert page.notes == ["Nothing was kept: there are no hits, and so no diversity of them."]
    assert "Diversity" not in out
    assert (page.figures["hits"], page.figures["pass rate"], page.figures["tokens per hit"]) == ("0", "0 %", "\u2013")
    assert page.rows["Cost"][1][-1] == ""


def test_one_prompt_of_brought_samples_without_log_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, _, page = seen(small_run(tmp_path / "run", [("sums", ["right", "wrong"], None)], origin="brought"), capsys)

    assert status == 0
    assert page.notes == [
        "There are no greedy answers (anchors) to compare with.",
        "The samples have no log-probabilities, so there is no surprisal.",
        "There is one prompt: an interval over prompts says little.",
    ]
    assert "likelihood" not in page.charts
    assert "pass_at_k" in page.charts
    assert page.rows["Length"][1][-2] == "characters"


def test_families_without_references_and_some_without_log_probabilities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_run(tmp_path / "run", [("sums", ["right"] * 2, "right"), ("words", ["open"] * 2, "open")])
    entry, rows = store.entry("samples/00000"), store.read_table("samples/00000").to_pylist()
    for row in rows:
        if row["family"] == "words":
            row |= {"reference": None, "logprobs": None, "cumulative_logprob": None}
    store.write_table("samples/00000", pa.Table.from_pylist(rows, SAMPLES), key=entry.key, facts=entry.facts)

    status, _, _, page = seen(store, capsys)

    assert status == 0
    assert page.notes == [
        "Families without reference answers: words; filters that compare with one cannot judge them.",
        "2 of 4 samples have no log-probabilities; surprisal is of the others.",
    ]


@pytest.mark.parametrize("name", ["samples/00001", "verdicts/00001"])
def test_file_that_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    store = small_run(tmp_path / "run")
    file = tmp_path / "run" / f"{name}.parquet"
    file.write_bytes(file.read_bytes()[:-20])

    status, _, err, page = seen(store, capsys)

    assert status == 1
    assert f"{name}.parquet: damaged" in err
    assert any("damaged" in line for line in page.bad)
    assert page.figures["samples"] == "12"


# -- older formats -------------------------------------------------------------------------------------------------------


def made_older(store: Store, *, lose: Any = SINCE_2, add: str = "flavour") -> Any:
    """Make of a run what an older thresher might have written: columns fewer and others, entries and a recipe of other shape."""
    root = Path(store.root)
    for shard in range(3):
        name = f"samples/0000{shard}"
        entry, table = store.entry(name), store.read_table(name)
        table = table.drop_columns(list(lose)).append_column(add, pa.array(["plain"] * table.num_rows))
        store.write_table(name, table, key=entry.key, facts=entry.facts)
        for file in (root / f"{name}.json", root / f"verdicts/0000{shard}.json"):
            file.write_text(json.dumps(json.loads(file.read_text()) | {"written_by": "me"}))
    run = json.loads((root / "run.json").read_text())
    recipe = {key: value for key, value in run["recipe"].items() if key not in ("publish", "audit", "dedupe", "near_miss")}
    recipe["sampling"] = {"samples_per_prompt": 4, "anchor": True, "temperature": 1.0, "best_of": 3}
    recipe["engine"] = {"kind": "vllm", "swap_space": 4}
    changed = {"pool_version": 1, "recipe": recipe | {"mood": "good"}, "thresher_version": "0.1.0", "host": "here"}
    (root / "run.json").write_text(json.dumps({k: v for k, v in run.items() if k != "base"} | changed))
    return store


def same(found: Any) -> Any:
    """Of an audit what does not hang on the format."""
    parts = ("samples", "anchors", "outcomes", "kinds", "filters", "total", "families", "tokens", "problems", "complete")
    return {name: found[name] for name in parts}


def test_older_format_is_audited_as_far_as_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = audit(small_run(tmp_path / "now")).to_dict()
    older = made_older(small_run(tmp_path / "then"))
    before = {file: file.read_bytes() for file in Path(older.root).rglob("*") if file.is_file()}

    status, out, _, page = seen(older, capsys)

    assert status == 0
    assert page.notes[0].startswith("Written by thresher 0.1.0 in pool format 1; this is thresher ")
    assert page.notes[1:3] == [
        "Columns that are not there: error, seed, source, temperature; they count as null.",
        "Columns that this thresher does not know, and does not show: flavour.",
    ]
    assert page.notes[3].startswith("Not shown, because the run does not say it: pass rates by temperature; samples that could")
    assert len(page.notes) == 4
    assert all(f"NOTE {note}" in out for note in page.notes)
    assert same(audit(older).to_dict()) == same(now)
    assert page.figures["hits"] == str(now["kinds"]["hit"])
    assert page.rows["Funnel"][1][:3] == ["finished", "20", "18"]
    assert {"pass_at_k", "likelihood"} <= page.charts
    assert main(["audit", older.root, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == page.notes
    assert [one["effective_solutions"] for one in found["diversity"]] == [None] * 3
    assert [one["draws"] for one in found["statistics"]["answers"] if one["family"] == one["of"] == "all"] == [20]
    assert main(["sql", older.root, "select count(*) as n, any_value(error) as e from samples", "--csv"]) == 0
    assert capsys.readouterr().out == "n,e\n25,\n"
    assert {file: file.read_bytes() for file in Path(older.root).rglob("*") if file.is_file()} == before


def test_older_format_that_lacks_what_the_report_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = [*SINCE_2, "reference", "completion_ids", "logprobs", "cumulative_logprob", "finish_reason", "metadata", "messages"]

    status, _, _, page = seen(made_older(small_run(tmp_path / "run"), lose=lost), capsys)

    assert status == 0
    assert page.notes[3].startswith(
        "Not shown, because the run does not say it: what was cut short; which prompts have a reference answer; "
        "lengths in tokens; surprisal;"
    )
    assert "likelihood" not in page.charts
    assert page.rows["Length"][1][-2:] == ["characters", ""]


def test_older_format_without_what_counting_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err, page = seen(made_older(small_run(tmp_path / "run"), lose=["prompt_id"]), capsys)

    assert status == 1
    assert "has no column prompt_id, without which nothing can be counted" in err
    assert page.figures["samples"] == "0"


def test_older_runs_are_compared_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older, now = made_older(small_run(tmp_path / "then")), small_run(tmp_path / "now")

    assert main(["audit", now.root, "--against", older.root, "--csv"]) == 0
    rows = [row for row in csv.DictReader(io.StringIO(capsys.readouterr().out)) if row["table"] == "drift"]
    assert len(rows) > 2
    assert all(row["before"] == row["after"] for row in rows)
    assert main(["audit", "--all", str(tmp_path), "--json"]) == 0
    assert [one["error"] for one in json.loads(capsys.readouterr().out)] == [None, None]


def test_everything_that_writes_refuses_older_formats(
    tmp_path: Path, recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    older = made_older(small_run(tmp_path / "run"))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    before = {file: file.read_bytes() for file in Path(older.root).rglob("*") if file.is_file()}
    for command in (
        ["run", str(recipe()), "--out", older.root, "--no-prefect"],
        ["filter", str(recipe()), "--samples", str(tmp_path / "rows.jsonl"), "--out", older.root],
        ["publish", older.root, "--repo", str(tmp_path / "repository")],
    ):
        assert main(command) == 1, command
        said = capsys.readouterr().err
        assert "pool version 1, this thresher reads 2; use the version that wrote it (0.1.0)" in said
    assert {file: file.read_bytes() for file in Path(older.root).rglob("*") if file.is_file()} == before
    assert not (tmp_path / "repository").exists()


def test_newer_format_is_refused_by_the_audit_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_run(tmp_path)
    store.write_model("run.json", store.manifest().model_copy(update={"pool_version": 3}))

    assert main(["audit", store.root]) == 1
    assert "pool version 3, this thresher reads 2; use the version that wrote it" in capsys.readouterr().err
    with pytest.raises(StoreError):
        Store(tmp_path).manifest(older=True)


@pytest.mark.parametrize("name", ["fine", "no name at all!"])
def test_recipe_keeps_what_is_one_today(name: str) -> None:
    given = {
        "name": name,
        "prompts": [{"family": "a", "source": {"kind": "jsonl", "path": "x.jsonl", "colour": 1}}, {"source": 3}, 7],
        "engine": {"kind": "steam"},
        "sampling": {"samples_per_prompt": 3, "temperature": "hot"},
        "filters": [{"name": "finished", "old": True}],
    }

    found = fitted(given)

    if name == "fine":
        assert [one.family for one in found.prompts] == ["a"]
        assert (found.sampling.samples_per_prompt, found.sampling.temperature) == (3, 1.0)
        assert found.engine == Recipe(name="x").engine
        assert [one.name for one in found.filters] == ["finished"]
    else:
        assert found == Recipe(name="run")


def test_footer_is_enough(tmp_path: Path) -> None:
    """The notes cost no reading: what is missing is told of a run whose pages are gone, too."""
    from thresher.audit.older_runs import lacking, opened

    store = made_older(small_run(tmp_path))
    for shard in range(3):
        file = tmp_path / f"samples/0000{shard}.parquet"
        assert pq.read_schema(file).names[-1] == "flavour"
        data = bytearray(file.read_bytes())
        data[4:40] = bytes(36)
        file.write_bytes(data)

    assert "flavour" in " ".join(lacking(store, opened(store), range(3)))
