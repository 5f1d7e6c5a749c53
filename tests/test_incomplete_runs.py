"""Runs that are unfinished, empty or damaged have a report, which says what is missing; seen through the command line."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from helpers import known
from helpers.small_run import small_run
from schemas.sample import SAMPLES
from thresher.cli import main
from thresher.pool.run import Run

pytestmark = pytest.mark.slow  # what draws charts takes a second to import


class Page(HTMLParser):
    """A page: `notes` (what is missing), `bad` (problems), `figures`, and its tables' rows by heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.bad: list[str] = []
        self.figures: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.charts: set[str] = set()
        self._tag, self._class, self._heading, self._text = "", "", "", ""
        self._figure = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "div" and attributes.get("class") == "chart":
            self.charts.add(str(attributes["id"]))
        if tag in ("p", "h2", "td", "th", "b"):
            self._tag, self._class, self._text = tag, attributes.get("class") or "", ""
        if tag == "tr":
            self.rows.setdefault(self._heading, []).append([])

    def handle_data(self, data: str) -> None:
        if self._tag:
            self._text += data
        elif self._figure and data.strip():
            self.figures[data.strip()] = self._figure
            self._figure = ""

    def handle_endtag(self, tag: str) -> None:
        if not self._tag or tag != self._tag:
            return
        text = " ".join(self._text.split())
        if tag == "p":
            {"missing": self.notes, "bad": self.bad}.get(self._class, []).append(text)
        elif tag == "h2":
            self._heading = text
        elif tag == "b":
            self._figure = text
        else:
            self.rows[self._heading][-1].append(text)
        self._tag = ""


def seen(run: Run, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str, Page]:
    """Status, what the terminal shows in one line, the errors, and the page."""
    place = Path(run.root).parent / "page.html"
    status = main(["audit", run.root, "--html", str(place)])
    printed = capsys.readouterr()
    return status, " ".join(printed.out.split()), printed.err, Page(place.read_text())


def test_run_that_was_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err, page = seen(small_run(tmp_path / "run", stop_after=1), capsys)

    assert status == 1
    assert "3 shards planned, 1 sampled and 1 judged" in err
    unfinished = "The run is unfinished: 1 of 3 shards are sampled and judged, and the figures cover only these."
    assert page.notes == [unfinished]
    assert f"NOTE {unfinished}" in out
    assert len(page.bad) == 1
    assert page.figures["samples"] == "8"
    assert [row[:2] for row in page.rows["Funnel"][1:]] == [["finished", "8"], ["answer", "7"], ["exact_duplicate", "2"]]


@pytest.mark.parametrize("planned", [True, False])
def test_empty_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str], planned: bool) -> None:
    run = small_run(tmp_path / "run", stop_after=0)
    if not planned:
        run.store.remove("prompts.json")

    status, out, _, page = seen(run, capsys)

    assert status == 1
    shards = 3 if planned else 0
    unfinished = f"The run is unfinished: 0 of {shards} shards are sampled and judged, and the figures cover only these."
    assert page.notes == [unfinished, "There are no samples yet."]
    assert "NOTE There are no samples yet." in out
    assert page.figures["samples"] == page.figures["hits"] == "0"
    assert page.figures["pass rate"] == "\u2013"
    assert page.rows["Funnel"][1:] == []
    assert [row[0] for row in page.rows["Families"][1:]] == []


def test_pool_of_unreadable_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, _, page = seen(small_run(tmp_path / "run", [("sums", ["torn", "torn"], None)] * 3, origin="brought"), capsys)

    assert status == 0
    assert "No sample was judged right or wrong, so there are no pass rates." in page.notes
    assert page.rows["Funnel"][1][:3] == ["readable", "6", "0"]
    assert "pass@k" not in page.rows
    assert page.figures["undecided"] == "6"


def test_zero_hits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _, page = seen(small_run(tmp_path / "run", [("sums", ["wrong", "cut"], "wrong")] * 4), capsys)

    assert status == 0
    assert page.notes == ["Nothing was kept: without hits there are no figures on their diversity."]
    assert "Diversity" not in out
    assert (page.figures["hits"], page.figures["pass rate"], page.figures["tokens per hit"]) == ("0", "0 %", "\u2013")
    assert page.rows["Cost"][1][-1] == ""


def test_one_prompt_of_imported_samples_without_log_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, _, page = seen(small_run(tmp_path / "run", [("sums", ["right", "wrong"], None)], origin="brought"), capsys)

    assert status == 0
    assert page.notes == [
        "There are no greedy answers (anchors) to compare with.",
        "The samples have no log-probabilities, so there is no surprisal.",
        "There is only one prompt: an interval over prompts means little.",
    ]
    assert "likelihood" not in page.charts
    assert "pass_at_k" in page.charts
    assert page.rows["Length of the answers"][1][-2] == "characters"


def test_families_without_references_and_some_without_log_probabilities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run(tmp_path / "run", [("sums", ["right"] * 2, "right"), ("words", ["open"] * 2, "open")])
    entry, rows = known(run.store.entry("samples/00000")), run.store.read_table("samples/00000").to_pylist()
    for row in rows:
        if row["family"] == "words":
            row |= {"reference": None, "logprobs": None, "cumulative_logprob": None}
    run.store.write_table("samples/00000", pa.Table.from_pylist(rows, SAMPLES), key=entry.key, facts=entry.facts)

    status, _, _, page = seen(run, capsys)

    assert status == 0
    assert page.notes == [
        "Families without reference answers: words; filters that need a reference cannot judge them.",
        "2 of 4 samples have no log-probabilities; surprisal covers the rest.",
    ]


@pytest.mark.parametrize("name", ["samples/00001", "verdicts/00001"])
def test_file_that_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    run = small_run(tmp_path / "run")
    file = tmp_path / "run" / f"{name}.parquet"
    file.write_bytes(file.read_bytes()[:-20])

    status, _, err, page = seen(run, capsys)

    assert status == 1
    assert f"{name}.parquet: damaged" in err
    assert any("damaged" in line for line in page.bad)
    assert page.figures["samples"] == "12"


@pytest.mark.parametrize("version", [2, 4])
def test_a_pool_of_another_version_is_refused_and_stays_as_it_is(
    tmp_path: Path, recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], version: int
) -> None:
    run = small_run(tmp_path / "run")
    run.store.write_model("run.json", run.manifest.model_copy(update={"pool_version": version, "thresher_version": "0.1.0"}))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    before = files_of(tmp_path / "run")

    for command in (
        ["audit", run.root],
        ["sql", run.root, "select 1"],
        ["run", str(recipe()), "--out", run.root, "--no-prefect"],
        ["filter", str(recipe()), "--samples", str(tmp_path / "rows.jsonl"), "--out", run.root],
        ["publish", run.root, "--repo", str(tmp_path / "repository")],
    ):
        assert main(command) == 1, command
        error = capsys.readouterr().err
        assert f"pool version {version}, wanted 3; use the version of thresher that wrote it (0.1.0)" in error
    assert files_of(tmp_path / "run") == before
    assert not (tmp_path / "repository").exists()


def files_of(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
