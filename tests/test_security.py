"""What docs/security.md says, tried as a stranger's recipe, run, dataset, repository and deployment.

The payload is a module beside the stranger's recipe, on Python's path, that writes a marker when it is imported."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import thresher
from filters import trust
from filters.base import FilterError
from filters.similarity.signatures import Signed, signed
from filters.tools import Tools
from flows.judge import winnow
from flows.pipeline import pipeline
from flows.release import release
from helpers.printed import printed_json
from helpers.releases import release_run, sft_ids
from helpers.runs import two_prompts_run
from schemas.prompt_sets import DatasetSource
from thresher.cli import main
from thresher.dedupe.index import Index
from thresher.errors import PublishError, RecipeError, ScheduleError, SourceError, StoreError
from thresher.inputs.sources import rows
from thresher.inputs.tables import open_table
from thresher.judging.build import build_filters
from thresher.judging.check import check_golds
from thresher.pool.run import open_run
from thresher.releases.change import rollback
from thresher.releases.compact import compact
from thresher.releases.repository import releases

pytestmark = pytest.mark.slow

PAYLOAD = """
from pathlib import Path
import pyarrow as pa
from filters.base import Filter, Role, Scope
from schemas.sample import Outcome, Verdict
Path(__file__).with_name("MARKER").write_text("imported")
def build(config):
    keep = Verdict(Outcome.KEEP, "")
    return Filter("own", "1", Scope.SAMPLE, Role.QUALITY, lambda table: [keep] * table.num_rows, ("completion",))
"""
READER = """
from typing import Any
from pathlib import Path
from pydantic import BaseModel
from filters.base import Filter, LocalPath, Role, Scope
from schemas.sample import Outcome, Verdict
class Config(BaseModel):
    path: LocalPath
def build(config):
    words, keep, drop = Path(config.path).read_text(), Verdict(Outcome.KEEP, ""), Verdict(Outcome.DROP, "other")
    judge = lambda table: [keep if text in words else drop for text in table["completion"].to_pylist()]
    return Filter("own_reader", "1", Scope.SAMPLE, Role.QUALITY, judge, ("completion",))
"""
ROOT = Path(__file__).parent.parent
KEPT = "select filter, count(*) as kept from verdicts where outcome = 'keep' group by 1"
EVIL = {"name": "payload:build"}
Recipe = Callable[..., Path]


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the stranger, in which `recipe` writes too. The user stands in another one, and consents to nothing."""
    mine = tmp_path.parent / f"{tmp_path.name}-mine"
    mine.mkdir()
    (tmp_path / "payload.py").write_text(PAYLOAD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(mine)
    monkeypatch.delenv(trust.VARIABLE)
    monkeypatch.delenv(trust.ROOT)
    monkeypatch.setenv(trust.CONFIG, str(mine / "config.toml"))
    (mine / "secret.jsonl").write_text('{"country": "the secret", "answer": "x"}\n')
    yield tmp_path
    sys.modules.pop("payload", None)


@pytest.fixture
def untouched(stranger: Path) -> Callable[[], bool]:
    """Whether the payload was never imported."""
    return lambda: not (stranger / "MARKER").exists()


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The one error of a command that fails."""
    assert main(command) == 1, command
    return capsys.readouterr().err


# -- recipes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["run", "RECIPE", "--no-prefect"],
        ["run", "RECIPE"],
        ["check", "RECIPE"],
        ["preview", "RECIPE"],
        ["estimate", "RECIPE"],
        ["study", "RECIPE"],
        ["filter", "RECIPE", "--samples", "samples.jsonl", "--out", "out"],
        ["fleet", "RECIPE", "--file", "addresses"],
        ["schedule", "RECIPE", "--interval", "1h"],
    ],
    ids=lambda command: f"{command[0]}{len(command)}",
)
def test_no_command_imports_the_code_of_a_recipe(
    recipe: Recipe, untouched: Callable[[], bool], capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """The error names file and line, the code, and the three ways to allow it."""
    for filter_ in (EVIL, {"name": "python", "parameters": {"build": "payload:build"}}):
        path = recipe(filters=[{"name": "finished"}, filter_])

        said = refused(capsys, *(str(path) if word == "RECIPE" else word for word in command))

        line = 1 + next(number for number, text in enumerate(path.read_text().splitlines()) if "payload" in text)
        assert f"{path}:{line}: filters[1]." in said
        for words in ("payload:build", "--trust-code", "trusted_code = [", trust.GROUP):
            assert words in said
        assert untouched()
        assert not Path("data").exists()


def test_the_schema_of_a_stranger_s_filter_imports_nothing(
    stranger: Path, untouched: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--trust-code" in refused(capsys, "schema", "payload:build")
    assert untouched()


def test_with_the_flag_it_runs_and_the_flag_ends_with_the_command(
    recipe: Recipe, stranger: Path, untouched: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(filters=[{"name": "exact_answer"}, EVIL])

    assert main(["run", str(path), "--no-prefect", "--out", "run", "--trust-code"]) == 0
    assert not untouched()
    assert not trust.trusts_all()


def test_the_user_s_configuration_allows_it_in_filter_processes_too(
    recipe: Recipe, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("config.toml").write_text('trusted_code = ["payload"]\n')
    inner = {"name": "python", "parameters": {"build": "payload:build"}}
    path = recipe(filters=[{"name": "exact_answer"}, inner])

    assert main(["run", str(path), "--no-prefect", "--out", "run"]) == 0
    assert {row["filter"]: row["kept"] for row in printed_json(capsys, "sql", "run", KEPT)}["python"] > 0


@pytest.mark.parametrize(
    ("engine", "key"),
    [
        ({"kind": "vllm", "options": {"trust_remote_code": True}}, "engine.options.trust_remote_code"),
        ({"kind": "vllm", "options": {"worker_cls": "payload.Worker"}}, "engine.options.worker_cls"),
    ],
)
def test_options_of_an_engine_that_load_code(
    recipe: Recipe, stranger: Path, capsys: pytest.CaptureFixture[str], engine: dict[str, Any], key: str
) -> None:
    """Of the recipe's engine, and of the engine that a judge asks."""
    assert key in refused(capsys, "check", str(recipe(engine=engine)))
    judge = {"name": "judge", "parameters": {"engine": engine}}
    assert f"filters[0].parameters.{key}" in refused(capsys, "check", str(recipe(filters=[judge])))


SECRET = "SECRET"
RULE = {"guard": "numbers", "run_characters": 200}


def some_signatures() -> tuple[Signed, list[str]]:
    """A batch of one text for an index."""
    return signed(pa.array(["one two three four five six"]), np.zeros(1, np.uint64)), ["a"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"prompts": [{"family": "a", "source": {"kind": "jsonl", "path": SECRET}}]}, "prompts[0].source.path"),
        ({"prompts": [{"family": "a", "source": {"kind": "parquet", "path": SECRET}}]}, "prompts[0].source.path"),
        ({"prompts": [{"family": "a", "source": {"kind": "dataset", "path": SECRET}}]}, "prompts[0].source.path"),
        ({"prompts": [{"family": "a", "source": {"kind": "jsonl", "path": "x/../../../*.jsonl"}}]}, "prompts[0].source.path"),
        ({"engine": {"kind": "replay", "path": SECRET}}, "engine.path"),
        ({"engine": {"kind": "openai_http", "fleet": SECRET}}, "engine.fleet"),
        ({"model": {"name": SECRET}}, "model.name"),
        ({"model": {"name": "smollm2-135m-instruct", "adapter": SECRET}}, "model.adapter"),
        ({"dedupe": {"released": {"index": SECRET}}}, "dedupe.released.index"),
        ({"run": {"scratch": SECRET}}, "run.scratch"),
        ({"publish": {"repo": SECRET}}, "publish.repo"),
        ({"filters": [{"name": "judge", "parameters": {"rubric": SECRET}}]}, "filters[0]"),
        ({"filters": [{"name": "judge", "parameters": {"canaries": SECRET}}]}, "filters[0]"),
        ({"filters": [{"name": "judge", "parameters": {"model": {"name": SECRET}}}]}, "filters[0]"),
        ({"filters": [{"name": "judge", "parameters": {"engine": {"kind": "replay", "path": SECRET}}}]}, "filters[0]"),
        ({"filters": [{"name": "judge", "parameters": {"engine": {"kind": "openai_http", "fleet": SECRET}}}]}, "filters[0]"),
        ({"filters": [{"name": "judge", "parameters": {"model": {"name": "org/name", "adapter": SECRET}}}]}, "filters[0]"),
        ({"filters": [{"name": "reward", "parameters": {"model": {"name": SECRET}}}]}, "filters[0]"),
        (
            {
                "filters": [
                    {"name": "reward", "parameters": {"model": {"name": "m"}, "engine": {"options": {"tokenizer": SECRET}}}}
                ]
            },
            "filters[0]",
        ),
        ({"filters": [{"name": "decontaminate", "parameters": {"benchmarks": [{"name": "b", "path": SECRET}]}}]}, "filters[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_elsewhere_are_not_used(
    recipe: Recipe, stranger: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], key: str
) -> None:
    """Neither by their path nor by a link that came with the recipe."""
    mine = Path("secret.jsonl").absolute()
    os.chdir(stranger)
    (stranger / "org").mkdir()
    for link in ("link", "org/link"):
        (stranger / link).symlink_to(mine)
    for path in (str(mine), f"../{mine.parent.name}/secret.jsonl", "./link", "link", "org/link"):
        if "publish" in changes and path == "org/link":  # a link to a file: a name of the Hub
            continue
        text = json.loads(json.dumps(changes).replace(SECRET, path))
        said = refused(capsys, "check", str(recipe(**text)))
        assert re.search(rf"recipe\.yaml:\d+: {re.escape(key)}", said), said
        assert "roots = [" in said
        assert "the secret" not in said


@pytest.mark.parametrize("repo", ["file:///etc/x", "local:///etc/x", "~/pub", "org/link"])
def test_a_repository_elsewhere_under_another_name(
    recipe: Recipe, stranger: Path, capsys: pytest.CaptureFixture[str], repo: str
) -> None:
    """As fsspec reads it, or as a link of the working directory."""
    (stranger / "org").mkdir()
    (stranger / "org" / "link").symlink_to(Path.cwd())
    os.chdir(stranger)
    assert "publish.repo: " in refused(capsys, "check", str(recipe(publish={"repo": repo})))


def test_a_filter_in_processes_of_its_own_reads_no_files_elsewhere(
    recipe: Recipe, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its code is trusted, but not the recipe that gives it a path; a path beside the recipe is meant from there."""
    mine = Path.cwd()
    (stranger / "own_reader.py").write_text(READER)
    (mine / "config.toml").write_text('trusted_code = ["own_reader"]\n')
    (stranger / "words.txt").write_text("Paris")
    for path, allowed in (("/etc/passwd", False), ("words.txt", True)):
        named: dict[str, Any] = {"name": "own_reader:build", "parameters": {"path": path}}
        inside = {"name": "python", "parameters": {"build": named["name"], "parameters": named["parameters"]}}
        for filter_ in (named, inside):
            place = str(recipe(filters=[filter_]))
            if allowed:
                out = "run-inside" if filter_ is inside else "run-named"
                assert main(["run", place, "--no-prefect", "--out", out]) == 0
                capsys.readouterr()
                assert printed_json(capsys, "sql", out, KEPT)[0]["kept"] > 0
            else:
                assert "/etc/passwd lies outside" in refused(capsys, "check", place)


def test_the_shipped_recipes_load_from_anywhere(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any consent: the files that they name lie in their project. So do they in a copy of the whole folder."""
    recipes = sorted((ROOT / "data" / "recipes").glob("*.yaml"))
    assert len(recipes) > 3
    for folder in (Path.cwd(), Path("/"), ROOT):
        monkeypatch.chdir(folder)
        for path in recipes:
            loaded = thresher.load_recipe(path)
            build_filters(loaded.recipe, Tools(loaded.base, loaded.home), imported=False, where=loaded.where)
    monkeypatch.chdir(stranger)
    assert trust.refused_path(ROOT / "data" / "prompts", stranger)
    shutil.copytree(ROOT / "data", stranger / "copy" / "data", ignore=shutil.ignore_patterns("runs", "released"))
    (stranger / "copy" / ".git").mkdir()
    for path in recipes:
        assert thresher.load_recipe(stranger / "copy" / "data" / "recipes" / path.name)


def test_a_link_in_a_folder_of_prompts_is_not_followed(
    recipe: Recipe, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = Path("secret.jsonl").absolute()
    os.chdir(stranger)
    (stranger / "prompts").mkdir()
    (stranger / "prompts" / "a.jsonl").symlink_to(secret)
    source = {"kind": "jsonl", "path": "prompts"}
    said = refused(capsys, "check", str(recipe(prompts=[{"family": "a", "source": source, "template": "{{ country }}"}])))

    assert "lies outside" in said


def test_the_user_s_own_folders_are_allowed(recipe: Recipe, stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe's folder, the working directory, and the roots of the configuration."""
    secret = Path("secret.jsonl").absolute()
    prompts = [{"family": "a", "source": {"kind": "jsonl", "path": str(secret)}, "template": "{{ country }}"}]
    path = str(recipe(prompts=prompts))
    assert thresher.load_recipe(path)
    (secret.parent / "config.toml").write_text(f'roots = ["{secret.parent}"]\n')
    os.chdir(stranger)
    assert thresher.load_recipe(path)


# -- runs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def foreign(recipe: Recipe, stranger: Path) -> Path:
    """A finished run of the stranger."""
    out = stranger / "run"
    assert main(["run", str(recipe()), "--no-prefect", "--out", str(out)]) == 0
    return out


def edited(file: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(file.read_text())
    content.pop("digest", None)  # whoever changes a file can also leave it out, as earlier versions did
    change(content)
    file.write_text(json.dumps(content))


def test_a_foreign_run_is_audited_without_its_code_and_published_only_with_the_flag(
    recipe: Recipe, stranger: Path, untouched: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    """The stranger has run the payload, so the run is sound."""
    foreign, path = str(stranger / "run"), recipe(filters=[{"name": "exact_answer"}, EVIL])
    assert main(["run", str(path), "--no-prefect", "--out", foreign, "--trust-code"]) == 0
    (stranger / "MARKER").unlink()
    del sys.modules["payload"]

    assert main(["audit", foreign]) == 0
    assert main(["sql", foreign, "select count(*) from samples"]) == 0
    publish = ["publish", foreign, "--repo", "./released", "--force", "try"]
    capsys.readouterr()
    said = refused(capsys, *publish)
    assert "run.json: recipe.filters[1].name: payload:build" in said
    assert "--trust-code" in said
    assert untouched()
    assert not Path("released").exists() or not list(Path("released").rglob("*.parquet"))
    assert main([*publish, "--trust-code"]) == 0
    assert not untouched()


def test_a_foreign_run_does_not_choose_the_folder_to_publish_to(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor can it turn this off with the gates that it brings."""
    mine = Path("elsewhere").absolute()
    os.chdir(foreign)
    gates = {"self_check": False, "calibration": False}
    edited(foreign / "run.json", lambda run: run["recipe"]["publish"].update(repo=str(mine), gates=gates))

    assert "recipe.publish.repo" in refused(capsys, "publish", str(foreign))
    assert not mine.exists()
    assert main(["publish", str(foreign), "--repo", str(mine.with_name("mine"))]) == 0  # what the user names is the user's choice


def test_the_folder_that_a_foreign_run_says_it_is_of_is_not_read(foreign: Path) -> None:
    """run.json names the folder of its recipe: here one of the user's, with a file that the recipe then names."""
    mine = Path.cwd()
    os.chdir(foreign)
    rubric = {"name": "judge", "parameters": {"rubric": "secret.jsonl"}}
    edited(foreign / "run.json", lambda run: run.update(base=str(mine)))
    edited(foreign / "run.json", lambda run: run["recipe"].update(filters=[rubric]))

    with pytest.raises(RecipeError, match=r"run\.json: recipe\.filters\[0\].*secret\.jsonl lies outside"):
        check_golds(open_run(foreign))


@pytest.mark.parametrize("path", ["../../secret.parquet", "/etc/passwd", "s3://bucket/x"])
def test_an_entry_of_a_foreign_run_that_leads_elsewhere(foreign: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    """Reading it, and healing it, which would rename the file that it names."""
    edited(foreign / "samples" / "00000.json", lambda entry: entry.update(path=path))

    for command in (["audit", str(foreign), "--recount"], ["sql", str(foreign), "select * from samples"]):
        assert "leads out of" in refused(capsys, *command)
    assert "leads out of" in refused(capsys, "run", str(foreign.parent / "recipe.yaml"), "--out", str(foreign), "--no-prefect")


def test_links_in_a_foreign_run_are_not_followed(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = Path("samples").absolute()
    (foreign / "samples").rename(mine)
    (foreign / "samples").symlink_to(mine)
    before = {path: path.stat().st_mtime_ns for path in mine.iterdir()}

    assert "lies outside" in refused(capsys, "audit", str(foreign), "--recount")
    assert "lies outside" in refused(capsys, "run", str(foreign.parent / "recipe.yaml"), "--out", str(foreign), "--no-prefect")
    assert {path: path.stat().st_mtime_ns for path in mine.iterdir()} == before


def test_marks_of_patterns_in_a_folder_s_name_mean_themselves(
    recipe: Recipe, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run[1]` beside `run1`: DuckDB and fsspec would take the one for a pattern of the other."""
    few, more = (str(recipe(sampling={"samples_per_prompt": number, "max_tokens": 16})) for number in (2, 2))
    assert main(["run", few, "--no-prefect", "--out", "run[1]"]) == 0
    assert main(["run", more, "--no-prefect", "--out", "run1", "--salt", "x", "--set", "sampling.samples_per_prompt=4"]) == 0
    assert main(["run", few, "--no-prefect", "--out", "run*"]) == 0
    capsys.readouterr()

    for name in ("run[1]", "run*"):
        [row] = printed_json(capsys, "sql", name, "select count(*) as samples from samples")
        assert row["samples"] == 4 * 3
        assert printed_json(capsys, "audit", name, "--recount")["samples"] == 4 * 2


def test_nothing_is_unpickled() -> None:
    """No module reads objects of Python that could bring code, as pickles, archives of torch and some YAML do."""
    forbidden = re.compile(
        r"\b(pickle|cloudpickle|marshal|dill|joblib|shelve)\.loads?\b|allow_pickle=True|torch\.load\(|(Unsafe|Full)Loader"
    )
    root = Path(thresher.__file__).parent.parent
    files = [file for package in ("thresher", "filters", "flows", "schemas") for file in (root / package).rglob("*.py")]

    assert len(files) > 200
    assert [str(file) for file in files if forbidden.search(file.read_text())] == []


# -- datasets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../secret.parquet", "ABSOLUTE", "https://127.0.0.1:1/x.parquet", "zip://x::../a.zip"])
@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
def test_the_card_of_a_dataset_names_only_its_own_files(stranger: Path, path: str, card: str) -> None:
    secret = stranger / "secret.parquet"
    pq.write_table(pa.table({"question": ["the secret"]}), secret)
    (stranger / "data").mkdir()
    path = str(secret) if path == "ABSOLUTE" else path
    matter = f"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: ['{path}']\n"
    (stranger / "data" / card).write_text(f"---\n{matter}---\n" if card == "README.md" else matter)
    pq.write_table(pa.table({"question": ["its own"]}), stranger / "data" / "own.parquet")
    source = DatasetSource(kind="dataset", path="data")
    with pytest.raises(SourceError, match="lies outside the dataset"):
        list(rows(source, stranger))
    if card == "README.md":  # without it the folder is one of Parquet files
        with pytest.raises(SourceError, match="lies outside the dataset"):
            open_table(str(stranger / "data"), None, None)


def test_the_script_of_a_dataset_is_not_run(stranger: Path, untouched: Callable[[], bool]) -> None:
    (stranger / "data").mkdir()
    (stranger / "data" / "data.py").write_text((stranger / "payload.py").read_text())

    with pytest.raises(SourceError, match="scripts are no longer supported"):
        list(rows(DatasetSource(kind="dataset", path="data"), stranger))
    with pytest.raises(SourceError, match="scripts are no longer supported"):
        open_table(str(stranger / "data"), None, None)
    assert untouched()
    assert not (stranger / "data" / "MARKER").exists()


def test_a_saved_dataset_names_only_its_own_files(stranger: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = stranger / "saved"
    datasets.Dataset.from_dict({"question": ["its own"]}).save_to_disk(str(saved))
    edited(saved / "state.json", lambda state: state["_data_files"][0].update(filename="../elsewhere.arrow"))

    with pytest.raises(SourceError, match="leads out of"):
        open_table(str(saved), None, None)


# -- repositories and indexes --------------------------------------------------------------------------------------------


@pytest.fixture
def repository(stranger: Path) -> Path:
    """A folder repository of the stranger, with two releases."""
    folder = stranger / "released"
    for name in ("one", "two"):
        release_run(str(folder), two_prompts_run(stranger, name))
    return folder


def test_the_log_of_a_repository_cannot_write_elsewhere(repository: Path, stranger: Path) -> None:
    newest = max((repository / "thresher" / "log").glob("*.json"))
    target = stranger / "written.txt"
    name, first = str(repository), releases(str(repository)).releases[0].version
    edited(newest, lambda entry: entry["texts"].update({"../written.txt": "by the stranger"}))

    with pytest.raises(PublishError, match="leads out of"):
        compact(name)
    with pytest.raises(PublishError, match="leads out of"):
        rollback(name, first)
    assert not target.exists()


def test_the_manifest_of_a_repository_cannot_read_elsewhere(repository: Path) -> None:
    newest = max((repository / "thresher" / "log").glob("*.json"))

    def change(entry: Any) -> None:
        manifest = json.loads(entry["texts"]["thresher/manifest.json"])
        manifest["releases"][0]["views"]["sft"][0]["path"] = "../../secret.parquet"
        entry["texts"]["thresher/manifest.json"] = json.dumps(manifest)

    edited(newest, change)

    with pytest.raises(PublishError, match="leads out of its folder"):
        compact(str(repository))


def test_an_index_cannot_name_files_elsewhere(stranger: Path) -> None:
    index = stranger / "index"
    index.mkdir()
    run = {"name": "../../elsewhere", "rows": 1, "files": ["a.parquet"]}
    (index / "index.json").write_text(json.dumps({"rule": {}, "scheme": "x", "releases": [], "runs": [run]}))

    with pytest.raises(Exception, match="leads out of its folder"):
        Index(index, {})


@pytest.mark.parametrize("link", ["runs", ".lock", "index.json", "runs/RUN", "runs/RUN/bloom.npy", "runs/left", "new/.lock"])
def test_links_in_an_index_are_not_followed(stranger: Path, monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    """Neither read, nor written, nor emptied, by `add` and by `ask`. A new index may have them too; a lock that is a link is
    refused whatever is trusted."""
    folder = stranger / ("new" if link.startswith("new/") else "index")
    folder.mkdir()
    if folder.name == "index":
        Index(folder, RULE).add("one", [some_signatures()])
    name = link.removeprefix("new/").replace("RUN", next((run.name for run in (folder / "runs").glob("*")), ""))
    here, mine = folder / name, Path("mine").absolute()
    if here.exists():
        here.rename(mine)
    else:
        mine.mkdir() if name == "runs/left" else mine.write_text("mine")
    if mine.is_dir():
        (mine / "a folder").mkdir()
        (mine / "a folder" / "a file").write_text("mine")
    before = {path: path.read_bytes() for path in (mine, *mine.rglob("*")) if path.is_file()}
    here.symlink_to(mine)

    with pytest.raises(FilterError, match=r"lies outside .*--trust-code"):
        Index(folder, RULE).add("two", [some_signatures()])
    if name == ".lock":
        monkeypatch.setenv(trust.VARIABLE, "1")
        with pytest.raises(FilterError, match="cannot be locked"):
            Index(folder, RULE).add("two", [some_signatures()])
    assert {path: path.read_bytes() for path in (mine, *mine.rglob("*")) if path.is_file()} == before


def test_a_repository_whose_name_has_marks_of_patterns(stranger: Path) -> None:
    one, two = two_prompts_run(stranger, "one"), two_prompts_run(stranger, "two")
    release_run("repo1", one)
    before = sft_ids("repo1")
    release_run("repo[1]", two)
    compact("repo[1]")

    assert sft_ids("repo1") == before
    assert [release.name for release in releases("repo[1]").releases] != []


# -- deployments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({"recipe": "RECIPE"}, "recipe.yaml"),
        ({"recipe": "recipe.yaml", "out": "/elsewhere"}, "/elsewhere"),
        ({"recipe": "recipe.yaml", "out": "s3://bucket/runs"}, "s3://bucket/runs"),
        ({"recipe": "recipe.yaml", "out": "file:/elsewhere"}, "file:/elsewhere"),
        ({"recipe": "recipe.yaml", "out": "local:/elsewhere"}, "local:/elsewhere"),
        ({"recipe": "recipe.yaml", "out": "simplecache::/elsewhere"}, "simplecache::/elsewhere"),
    ],
)
def test_a_deployment_stays_in_the_roots(
    recipe: Recipe, stranger: Path, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, str], place: str
) -> None:
    """Nothing is read before: a recipe elsewhere need not even exist."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "of-others")
    monkeypatch.setenv(trust.VARIABLE, "1")
    given: dict[str, Any] = {key: value.replace("RECIPE", str(stranger / "recipe.yaml")) for key, value in parameters.items()}

    with pytest.raises(ScheduleError, match=re.escape(place)):
        pipeline.fn(**given)


@pytest.mark.parametrize("repo", ["/elsewhere", "file:///elsewhere", "local:///elsewhere", "~/pub", "zip://x::/x", "org/out"])
def test_a_deployment_publishes_into_its_roots(
    recipe: Recipe, stranger: Path, monkeypatch: pytest.MonkeyPatch, foreign: Path, repo: str
) -> None:
    """Whatever code is trusted: of a recipe, and of a run whose run.json names the folder."""
    (foreign / "org").mkdir()
    (foreign / "org" / "out").symlink_to("/etc")
    monkeypatch.chdir(foreign)
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "of-others")
    monkeypatch.setenv(trust.VARIABLE, "1")
    monkeypatch.setenv(trust.ROOT, str(stranger))
    edited(foreign / "run.json", lambda run: run["recipe"]["publish"].update(repo=repo))

    with pytest.raises(ScheduleError, match=re.escape(repo)):
        release.fn(str(foreign))
    with pytest.raises(ScheduleError, match=re.escape(repo)):
        pipeline.fn(recipe=str(recipe(publish={"repo": repo})), out=str(stranger / "runs"))


@pytest.mark.parametrize(
    "part", [{"dedupe": {"released": {"index": "/elsewhere/index", "threshold": 0.7}}}, {"run": {"scratch": "/elsewhere/index"}}]
)
def test_a_deployment_keeps_indexes_and_scratch_folders_in_its_roots(
    recipe: Recipe, stranger: Path, monkeypatch: pytest.MonkeyPatch, foreign: Path, part: dict[str, Any]
) -> None:
    """Whatever code is trusted: of a recipe, and of a run whose run.json names the folder."""
    monkeypatch.chdir(foreign)
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "of-others")
    monkeypatch.setenv(trust.VARIABLE, "1")
    monkeypatch.setenv(trust.ROOT, str(stranger))
    [(key, value)] = part.items()
    edited(foreign / "run.json", lambda run: run["recipe"][key].update(value))

    for flow in (release, winnow):
        with pytest.raises(ScheduleError, match="/elsewhere/index"):
            flow.fn(str(foreign))
    with pytest.raises(ScheduleError, match="/elsewhere/index"):
        pipeline.fn(recipe=str(recipe(**part)), out=str(stranger / "runs"))


def test_a_worker_decides_by_its_own_environment(
    recipe: Recipe, stranger: Path, untouched: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the parameters of the flow say."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "of-others")
    monkeypatch.setenv(trust.ROOT, str(stranger))
    path = recipe()
    monkeypatch.chdir(stranger)

    with pytest.raises(RecipeError, match="payload:build is code"):
        pipeline.fn(recipe=str(path), out=str(stranger / "runs"), overrides=["filters.0.name=payload:build"])
    assert untouched()


def test_the_index_that_a_foreign_directory_names_is_not_written(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A schedule notes one in run.json, which later runs there keep."""
    edited(foreign / "run.json", lambda run: run["recipe"]["dedupe"].update(released={"index": "/elsewhere", "threshold": 0.7}))

    said = refused(capsys, "run", str(foreign.parent / "recipe.yaml"), "--no-prefect", "--out", str(foreign))
    assert "run.json: recipe.dedupe.released.index: /elsewhere lies outside" in said


def test_open_run_of_a_stranger_reads_only_what_it_holds(foreign: Path) -> None:
    edited(foreign / "run.json", lambda run: run["recipe"]["dedupe"].update(released={"index": "/elsewhere", "threshold": 0.7}))

    with pytest.raises(StoreError, match=r"dedupe\.released\.index"):
        _ = open_run(foreign).base
