"""Runs and a release made by an earlier version of the code are opened, resumed, judged and published again, with equal ids, keys
and bytes.

The fixtures, and what is compared, are documented in tests/data/make_before.py. When bytes or keys change on purpose, say so in
CHANGELOG.md and make the fixtures again with the commit that changed them.
"""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from thresher.cli import main

DATA = Path(__file__).with_name("data")
_SPEC = importlib.util.spec_from_file_location("make_before", DATA / "make_before.py")
assert _SPEC is not None
assert _SPEC.loader is not None
before = importlib.util.module_from_spec(_SPEC)
sys.modules["make_before"] = before
_SPEC.loader.exec_module(before)

EXPECTED: dict[str, Any] = json.loads((DATA / "before" / "expected.json").read_text())
FURTHER = [part for number in range(4) for part in ("--set", f"prompts.{number}.limit=10")]
VIEWS = ("sft", "preference", "unpaired", "prompts", "rollouts")
same_writer = pytest.mark.skipif(
    pa.__version__ != EXPECTED["pyarrow"], reason="another version of pyarrow writes other bytes; make the fixtures again with it"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the fixtures, which is the working directory."""
    copy = tmp_path / "before"
    shutil.copytree(DATA / "before", copy)
    for file in copy.glob("*/run.json"):
        file.write_text(file.read_text().replace(before.PLACEHOLDER, str(copy)))
    monkeypatch.chdir(copy)
    return copy


def thresher(*arguments: str) -> None:
    assert main(arguments) == 0


def run(out: str, *changes: str, recipe: str = "recipe.yaml") -> None:
    thresher("run", recipe, *changes, "--out", out, "--no-prefect")


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of the last change and content of every file, but for those that say who writes."""
    every = (file for file in folder.rglob("*") if file.is_file() and file.parent.name != "writer")
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in every}


def web_server(folder: Path) -> list[str]:
    """The arguments that name the server of the run `web`, which need not be there to open it."""
    recipe = json.loads((folder / "web" / "run.json").read_text())["recipe"]
    return ["--set", f"engine.base_urls={json.dumps(recipe['engine']['base_urls'])}"]


def rows(repo: Path, cache: Path) -> dict[str, int]:
    """Rows of each view of a repository, all splits together, as `load_dataset` reads them."""
    from datasets import load_dataset

    return {view: sum(load_dataset(str(repo), view, cache_dir=str(cache)).num_rows.values()) for view in VIEWS}


def test_the_fixtures_are_as_they_were_made(folder: Path) -> None:
    actual = {name: before.described(folder / name) for name in EXPECTED["runs"]}

    assert actual == EXPECTED["runs"]


def as_before(folder: Path, name: str) -> bool:
    """Whether a run is as it was; the dataset of a server's run no longer names the server, so its rollouts differ."""
    actual, expected = before.described(folder / name), dict(EXPECTED["runs"][name])
    if name == "web":
        for told in (actual, expected):
            del told["dataset_key"]
            told["dataset"] = {file: sha for file, sha in told["dataset"].items() if "/rollouts/" not in file}
    return bool(actual == expected)


@pytest.mark.parametrize("name", ["complete", "web"])
def test_a_finished_run_has_nothing_left_to_do(folder: Path, name: str) -> None:
    """None of its files is written again; new files beside them are allowed. The dataset of a server's run is written once
    more, without the server."""
    changes = web_server(folder) if name == "web" else []
    old = files(folder)
    run(name, *changes, recipe="web.yaml" if name == "web" else "recipe.yaml")

    new = files(folder)
    parts = ("web/dataset", "web/audit")
    kept = [path for path in old if name != "web" or not str(Path(path).relative_to(folder)).startswith(parts)]
    assert {path: new[path] for path in kept} == {path: old[path] for path in kept}
    assert as_before(folder, name)


@same_writer
@pytest.mark.parametrize("name", ["complete", "web"])
def test_a_dataset_that_was_deleted_is_written_again_with_equal_bytes(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name / "dataset")
    (folder / name / "dataset.json").unlink()
    run(name, *(web_server(folder) if name == "web" else []), recipe="web.yaml" if name == "web" else "recipe.yaml")

    assert as_before(folder, name)


@same_writer
@pytest.mark.slow
@pytest.mark.parametrize("name", ["complete", "web", "own"])
def test_samples_that_are_judged_again_get_equal_verdicts(folder: Path, name: str) -> None:
    for part in ("verdicts", "corpus", "dataset"):
        shutil.rmtree(folder / name / part, ignore_errors=True)
    (folder / name / "dataset.json").unlink()
    if name == "own":
        thresher("filter", "own.yaml", "--samples", "own.jsonl", "--out", "own")
    else:
        run(name, *(web_server(folder) if name == "web" else []), recipe="web.yaml" if name == "web" else "recipe.yaml")

    assert as_before(folder, name)


@same_writer
@pytest.mark.slow
@pytest.mark.parametrize("out", ["stopped", "from_scratch"])
def test_a_run_that_was_stopped_ends_as_an_uninterrupted_one(folder: Path, out: str) -> None:
    shutil.rmtree(folder / "index")
    (folder / "index_before").rename(folder / "index")
    run(out)

    assert before.described(folder / out) == EXPECTED["runs"]["complete"]
    assert not list((folder / out).glob("journal/*"))
    assert {name: before.sha256(folder / name) for name in EXPECTED["index"]} == EXPECTED["index"]


@same_writer
def test_own_samples_are_read_and_filtered_alike(folder: Path) -> None:
    thresher("filter", "own.yaml", "--samples", "own.jsonl", "--out", "from_scratch")
    old = files(folder / "own")
    thresher("filter", "own.yaml", "--samples", "own.jsonl", "--out", "own")

    assert before.described(folder / "from_scratch") == EXPECTED["runs"]["own"]
    new = files(folder / "own")
    assert {path: new[path] for path in old} == old


@pytest.mark.slow
def test_a_raised_number_of_samples_draws_the_same_further_ones(folder: Path) -> None:
    with before.server() as url:
        run("web", "--set", f"engine.base_urls=[{url}]", "--set", before.MORE, recipe="web.yaml")

    actual = before.described(folder / "web")
    assert {name: actual[name] for name in ("samples", "sample_ids")} | {"rows": before.rows_digest(folder / "web")} == EXPECTED[
        "more"
    ]


def test_a_release_is_found_and_not_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = {path: content for path, (_, content) in files(folder / "released").items()}
    thresher("publish", "complete", "--repo", "released", "--json")

    answer = json.loads(capsys.readouterr().out)
    assert (answer["version"], answer["commit"]) == ("v1.1.0", None)
    assert {path: content for path, (_, content) in files(folder / "released").items()} == old


@pytest.mark.slow
def test_a_further_release_is_appended_and_rolled_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = folder / "released" / "thresher" / "manifest.json"
    old, old_rows = json.loads(manifest.read_text()), rows(folder / "released", folder / "cache")
    run("further", *FURTHER, "--salt", "further")
    capsys.readouterr()
    thresher("publish", "further", "--repo", "released", "--json")

    answer, new = json.loads(capsys.readouterr().out), json.loads(manifest.read_text())
    assert answer["version"] == "v1.2.0"
    assert new["releases"][:2] == old["releases"]
    assert answer["rows"]["sft"] > 0
    assert rows(folder / "released", folder / "cache") == {view: old_rows[view] + answer["rows"][view] for view in VIEWS}
    assert {name: before.sha256(folder / name) for name in EXPECTED["released"]} == EXPECTED["released"]

    thresher("rollback", "released", "--to", "v1.1.0")
    assert json.loads(manifest.read_text())["releases"] == old["releases"]
    assert rows(folder / "released", folder / "cache") == old_rows
    capsys.readouterr()
    thresher("publish", "complete", "--repo", "released", "--json")
    assert json.loads(capsys.readouterr().out)["commit"] is None
