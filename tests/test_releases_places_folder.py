"""Releases in a directory and on S3 (moto's server): the same promises as on the Hub, without commits to lean on."""

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from helpers.runs import LOOSE, two_prompts_run
from schemas.dataset import PublishSpec
from thresher.errors import PublishError
from thresher.pool.run import open_run
from thresher.releases.change import compact, revoke, rollback
from thresher.releases.places import folder as folders
from thresher.releases.places.folder import Folder
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Change, MovedError
from thresher.releases.publish import Published, publish
from thresher.releases.readme import END
from thresher.releases.repository import releases


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "released")
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(two_prompts_run, tmp_path)


def released(repo: str, run: Path, **spec: Any) -> Published:
    return publish(open_run(run), PublishSpec.model_validate({"repo": repo, "gates": LOOSE} | spec))


def read(repo: str, config: str, split: str = "train") -> list[dict[str, Any]]:
    """The rows of a config, as its card has them: every file by its name."""
    fs, base = fsspec.core.url_to_fs(repo, skip_instance_cache=True)
    matter = yaml.safe_load(fs.cat_file(f"{base}/README.md").decode().split("---\n")[1])
    found = {one["config_name"]: {s["split"]: s["path"] for s in one["data_files"]} for one in matter["configs"]}
    if config not in found:
        return []
    tables = [pq.read_table(fs.open(f"{base}/{path}")) for path in found[config].get(split, [])]
    info = next(one for one in matter["dataset_info"] if one["config_name"] == config)
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
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
        publish(open_run(one))
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
