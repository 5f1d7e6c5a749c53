"""Releases in a directory and on S3 (moto's server): the same promises as on the Hub, without commits to lean on."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from helpers.small_run import small_run
from schemas.dataset import GatesSpec, PublishSpec
from schemas.release import Release, RepositoryManifest
from thresher.audit.count_run import audit
from thresher.dataset.write import write_dataset
from thresher.errors import PublishError
from thresher.pool.store import Store
from thresher.releases.change import compact, revoke, rollback
from thresher.releases.gates import against, figures, gates
from thresher.releases.places import folder as folders
from thresher.releases.places.folder import Folder
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Change, MovedError
from thresher.releases.publish import publish
from thresher.releases.readme import END
from thresher.releases.repository import releases
from thresher.releases.validation import validate

LOOSE = {"undecided": 1.0, "self_check": False}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "released")
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """A finished run, of samples of its own."""

    def made(name: str, **more: Any) -> Path:
        more["first"] = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)
        store = small_run(tmp_path / name, [(name, ["right", "wrong"], "right"), (name, ["right", "wrong"], "right")], **more)
        manifest = store.manifest()
        store.write_model("run.json", manifest.model_copy(update={"sampling_key": f"{name:0>32}"}))
        write_dataset(store, audit=audit(store))
        return tmp_path / name

    return made


def released(repo: str, run: Path, **more: Any) -> Any:
    return publish(run, PublishSpec.model_validate({"repo": repo, "gates": LOOSE} | more))


def read(repo: str, config: str, split: str = "train") -> list[dict[str, Any]]:
    """The rows of a config, as its card has them: every file by its name."""
    fs, base = fsspec.core.url_to_fs(repo, skip_instance_cache=True)
    matter = yaml.safe_load(fs.cat_file(f"{base}/README.md").decode().split("---\n")[1])
    found = {one["config_name"]: {s["split"]: s["path"] for s in one["data_files"]} for one in matter["configs"]}
    if config not in found:
        return []
    tables = [pq.read_table(fs.open(f"{base}/{path}")) for path in found[config].get(split, [])]
    info = next(one for one in matter["dataset_info"] if one["config_name"] == config)
    rows = pa.concat_tables(tables).to_pylist()
    assert len(rows) == next(one["num_examples"] for one in info["splits"] if one["name"] == split)
    return rows


def names(repo: str) -> list[str]:
    return [row["sample_id"] for row in read(repo, "sft")]


def test_a_folder_is_appended_to_rolled_back_and_compacted(repo: str, run: Callable[..., Path]) -> None:
    one, two = run("one"), run("two")
    first, second = released(repo, one), released(repo, two)
    both = names(repo)
    assert released(repo, one).commit is None
    assert (first.rows["sft"], len(both)) == (2, 4)
    assert [release.version for release in releases(repo).releases] == [first.version, second.version]

    assert rollback(repo, first.version).commit
    assert names(repo) == both[:2]
    assert rollback(repo, first.version).commit is None
    assert rollback(repo, second.version).commit
    assert names(repo) == both

    gone = revoke(repo, [both[1]], "wrong after all")
    assert [row["sample_id"] for row in read(repo, "revoked")] == [both[1]]
    assert (names(repo), gone.version) == (both, releases(repo).changes[0].split(":")[0])
    merged = compact(repo)
    assert merged.files[1] < merged.files[0]
    assert names(repo) == [both[0], *both[2:]]
    assert read(repo, "revoked") == []
    assert compact(repo).commit is None
    assert {row["sample_id"] for row in read(repo, "rollouts")} >= set(names(repo))
    assert released(repo, one).commit is None
    with pytest.raises(PublishError, match="was merged into"):
        released(repo, one, views=["sft"])
    with pytest.raises(PublishError, match="was merged into"):
        released(repo, run("one", dataset={"description": "other words"}))


@pytest.mark.slow
def test_a_persons_words_stay_as_they_are_now_whatever_is_done(run: Callable[..., Path], tmp_path: Path) -> None:
    repo, card = str(tmp_path / "released"), tmp_path / "released" / "README.md"
    first = released(repo, run("one"))

    def written(words: str) -> None:
        """As a person edits a repository: a commit of its own."""
        place = Folder(repo)
        text = place.text(place.head(), "README.md") or ""
        text = text.split(END)[0].replace("---\n", "---\nviewer: false\n", 1) + f"{END}\n{words}\n"
        place.commit(Change(adds={"README.md": text.encode()}), "words", parent=place.head(), tag=None)

    released(repo, run("two"))
    written("## Known faults\n\nSome.")
    revoke(repo, [names(repo)[0]], "wrong")
    assert f'load_dataset("{repo}", "revoked", split="train")' in card.read_text()
    for change in (lambda: rollback(repo, first.version), lambda: released(repo, run("three")), lambda: compact(repo)):
        assert change().commit
        text = card.read_text()
        assert text.endswith("## Known faults\n\nSome.\n")
        assert "viewer: false" in text.split("---\n")[1]
        assert text.count(END) == text.count("## Releases") == text.count("## Limits") == 1
        assert '"revoked"' not in text


def test_columns_that_drifted_are_refused_with_a_diff(run: Callable[..., Path], tmp_path: Path) -> None:
    repo = str(tmp_path / "released")
    released(repo, run("one"))

    with pytest.raises(PublishError) as error:
        released(repo, run("two", prompt_format="text"))

    said = str(error.value).splitlines()
    assert "the columns of sft are not those of the releases before" in said[0]
    assert said[1].strip() == "- prompt: list<item: struct<role: string, content: string>>"
    assert [line.strip() for line in said[3:]] == ["+ prompt: string", "+ completion: string"]
    assert len(releases(repo).releases) == 1


def test_each_gate_has_its_reason(run: Callable[..., Path]) -> None:
    found = audit(Store(run("one")))
    loose = GatesSpec.model_validate({**LOOSE})
    assert gates(found, loose) == []
    faulty = replace(found, problems=("counts",), calibration_faults=("not at temperature 1",), alarms=("all unparsed",))
    assert gates(faulty, loose) == ["counts", "not at temperature 1"]
    assert gates(faulty, loose.model_copy(update={"calibration": False})) == ["counts"]
    brought = replace(faulty, origin="brought")
    assert gates(brought, GatesSpec.model_validate({"calibration": False})) == ["counts", "all unparsed"]
    open_ones = replace(found, outcomes={"keep": 1, "drop": 1, "undecided": 2})
    assert "50.0% of the samples are undecided" in gates(open_ones, loose.model_copy(update={"undecided": 0.4}))[0]
    better = figures(found) | {"effective_solutions": 2.0, "pass_rate": 1.0}
    last = Release(
        version="v1", at="", run="r", dataset="d", name="small", thresher_version="0", figures=better, rows={}, views={}
    )
    reasons = against(found, RepositoryManifest(columns={}, releases=(last,)), GatesSpec())
    assert [reason.split(" (")[0] for reason in reasons] == ["pass_rate fell from 1", "effective_solutions fell from 2"]


def test_datasets_reads_a_folder(run: Callable[..., Path], tmp_path: Path) -> None:
    import datasets

    repo = str(tmp_path / "released")
    released(repo, run("one"))
    released(repo, run("two"))
    rollback(repo, releases(repo).releases[0].version)

    found = datasets.load_dataset(repo, "sft", split="train", cache_dir=str(tmp_path / "cache"))

    assert found["sample_id"][:] == names(repo)
    assert len(found) == 2


def test_two_commits_on_one_parent_are_not_both_made(repo: str) -> None:
    place, other = Folder(repo), Folder(repo)
    place.create(private=False, gated=None)
    head = other.head()
    made = place.commit(Change(adds={"README.md": b"mine"}), "mine", parent=head, tag="v1")

    with pytest.raises(MovedError):
        other.commit(Change(adds={"README.md": b"theirs"}), "theirs", parent=head, tag="v2")

    assert place.text(other.head(), "README.md") == "mine"
    assert other.tags() == {"v1": made.revision}


@pytest.mark.slow
def test_a_commit_that_was_cut_off_before_the_card_is_completed(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = str(tmp_path / "released")
    released(repo, run("one"))
    before = names(repo)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "_write_texts", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            released(repo, run("two"))
    assert names(repo) == before

    assert released(repo, run("two")).commit is None
    assert len(names(repo)) == 4


@pytest.mark.slow
def test_publishers_side_by_side_lose_nothing_in_a_folder(run: Callable[..., Path], tmp_path: Path) -> None:
    runs, repo = [run(f"run{number}") for number in range(4)], str(tmp_path / "released")
    program = (
        "import sys; from schemas.dataset import PublishSpec; from thresher.releases.publish import publish\n"
        f"for run in sys.argv[2:]: publish(run, PublishSpec.model_validate({{'repo': sys.argv[1], 'gates': {LOOSE!r}}}))"
    )
    going = [subprocess.Popen([sys.executable, "-c", program, repo, *map(str, runs[at:] + runs[:at])]) for at in range(4)]

    assert [one.wait(180) for one in going] == [0, 0, 0, 0]
    found = names(repo)
    assert len(found) == len(set(found)) == 8
    assert len(list(Path(repo).glob("thresher/log/*.json"))) == 4
    assert not list(Path(repo).rglob("*.part"))


def test_bad_places_are_named(run: Callable[..., Path], tmp_path: Path) -> None:
    one = run("one")
    with pytest.raises(PublishError, match="Protocol not known: nowhere"):
        released("nowhere://a/b", one)
    with pytest.raises(PublishError, match="has no pull requests"):
        released(str(tmp_path / "released"), one, create_pr=True)
    with pytest.raises(PublishError, match="cannot be private"):
        released(str(tmp_path / "released"), one, private=True)
    with pytest.raises(PublishError, match="names no repository; set publish"):
        publish(one)
    with pytest.raises(PublishError, match="has no releases"):
        compact(str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(PublishError, match=r"file: .*nothing has changed"):
        released(str(tmp_path / "file"), one)
    shutil.copytree(one / "dataset", tmp_path / "kept")
    for file in (one / "dataset").glob("sft/train/*"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(PublishError, match="is not what was written"):
        released(str(tmp_path / "released"), one)
    assert open_place("org/name").name == "org/name"
    assert isinstance(open_place("./name"), Folder)
    assert Folder(str(tmp_path / "none")).head() == folders.NOTHING


# -- rows ----------------------------------------------------------------------------------------------------------------


def changed(file: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    made = file.with_name("00000-00000000000000ff.parquet")
    pq.write_table(change(pq.read_table(file)), made)
    return made


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name), values)


@pytest.mark.parametrize(
    ("view", "change", "said"),
    [
        ("sft", lambda t: t.drop_columns(["answer_id"]), r"\n  - answer_id: string"),
        ("sft", lambda t: t.select(t.column_names[::-1]), "the same columns in another order"),
        (
            "prompts",
            lambda t: with_column(t, "passed", pc.cast(pc.negate(t["passed"]), pa.int32())),
            "passed: -[1-9] is less than the minimum",
        ),
        (
            "prompts",
            lambda t: with_column(t, "family", pa.nulls(t.num_rows, pa.string())),
            "column family of prompts has 2 nulls",
        ),
        (
            "rollouts",
            lambda t: with_column(t, "outcome", pa.array(["kept"] * t.num_rows)),
            "outcome: 'kept' is not one of",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(run: Callable[..., Path], view: str, change: Any, said: str) -> None:
    (file,) = (run("one") / "dataset" / view / "train").iterdir()
    validate(file, view, "chat")

    with pytest.raises(PublishError, match=said):
        validate(changed(file, change), view, "chat")


def test_committed_shapes_are_those_of_the_views() -> None:
    shape = json.loads((Path(__file__).parents[1] / "schemas/views/rollouts.schema.json").read_text())
    assert shape["properties"]["kind"]["anyOf"][0]["enum"] == ["hit", "near_miss", "miss", "duplicate"]
    assert shape["properties"]["sample_id"] == {
        "description": "hash that names the sample",
        "type": "string",
        "minLength": 1,
    }
