"""Releases in a directory and on S3 (moto's server): the same guarantees as on the Hub, which has commits."""

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.releases import config_rows, release_run, sft_ids
from helpers.runs import LOOSE, two_prompts_run
from thresher.errors import PublishError
from thresher.releases.change import revoke, rollback
from thresher.releases.compact import compact
from thresher.releases.places.folder import Folder
from thresher.releases.places.place import Change, MovedError
from thresher.releases.repository import releases


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "released")
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(two_prompts_run, tmp_path)


def test_a_folder_is_appended_to_rolled_back_and_compacted(repo: str, run: Callable[..., Path]) -> None:
    one, two = run("one"), run("two")
    first, second = release_run(repo, one), release_run(repo, two)
    both = sft_ids(repo)
    assert release_run(repo, one).commit is None
    assert (first.rows["sft"], len(both)) == (2, 4)
    assert [release.version for release in releases(repo).releases] == [first.version, second.version]

    assert rollback(repo, first.version).commit
    assert sft_ids(repo) == both[:2]
    assert rollback(repo, first.version).commit is None
    assert rollback(repo, second.version).commit
    assert sft_ids(repo) == both

    gone = revoke(repo, [both[1]], "wrong after all")
    assert [row["sample_id"] for row in config_rows(repo, "revoked")] == [both[1]]
    assert (sft_ids(repo), gone.version) == (both, releases(repo).changes[0].split(":")[0])
    merged = compact(repo)
    assert merged.files[1] < merged.files[0]
    assert sft_ids(repo) == [both[0], *both[2:]]
    assert config_rows(repo, "revoked") == []
    assert compact(repo).commit is None
    assert {row["sample_id"] for row in config_rows(repo, "rollouts")} >= set(sft_ids(repo))
    assert release_run(repo, one).commit is None
    with pytest.raises(PublishError, match="was merged into"):
        release_run(repo, one, views=["sft"])
    with pytest.raises(PublishError, match="was merged into"):
        release_run(repo, run("one", dataset={"description": "other words"}))


def test_datasets_reads_a_folder(run: Callable[..., Path], tmp_path: Path) -> None:
    import datasets

    repo = str(tmp_path / "released")
    release_run(repo, run("one"))
    release_run(repo, run("two"))
    rollback(repo, releases(repo).releases[0].version)

    found = datasets.load_dataset(repo, "sft", split="train", cache_dir=str(tmp_path / "cache"))

    assert found["sample_id"][:] == sft_ids(repo)
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
    release_run(repo, run("one"))
    before = sft_ids(repo)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "_write_texts", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            release_run(repo, run("two"))
    assert sft_ids(repo) == before

    assert release_run(repo, run("two")).commit is None
    assert len(sft_ids(repo)) == 4


@pytest.mark.slow
def test_publishers_side_by_side_lose_nothing_in_a_folder(run: Callable[..., Path], tmp_path: Path) -> None:
    runs, repo = [run(f"run{number}") for number in range(4)], str(tmp_path / "released")
    program = (
        "import sys; from schemas.dataset import PublishSpec; from thresher.pool.run import open_run\n"
        "from thresher.releases.publish import publish\n"
        f"spec = PublishSpec.model_validate({{'repo': sys.argv[1], 'gates': {LOOSE!r}}})\n"
        "for run in sys.argv[2:]: publish(open_run(run), spec)"
    )
    going = [subprocess.Popen([sys.executable, "-c", program, repo, *map(str, runs[at:] + runs[:at])]) for at in range(4)]

    assert [process.wait(180) for process in going] == [0, 0, 0, 0]
    found = sft_ids(repo)
    assert len(found) == len(set(found)) == 8
    assert len(list(Path(repo).glob("thresher/log/*.json"))) == 4
    assert not list(Path(repo).rglob("*.part"))
