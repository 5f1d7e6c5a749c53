"""Releases in a directory and on S3 (moto's server): the same guarantees as on the Hub, which has commits."""

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from helpers.cards import RUN_CARD, manifest
from helpers.releases import config_rows, release_run, sft_ids
from helpers.runs import LOOSE, two_prompts_run
from thresher.durable import machine_id
from thresher.errors import PublishError
from thresher.releases.change import Changed, revoke, rollback
from thresher.releases.compact import compact
from thresher.releases.places.folder import Folder
from thresher.releases.places.place import Change, MovedError
from thresher.releases.publish import Published
from thresher.releases.readme import cards_of
from thresher.releases.repository import releases


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "released")
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(two_prompts_run, tmp_path)


@pytest.mark.slow
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
    both = sft_ids(repo)
    assert len(both) == 4
    changes: list[tuple[Callable[[], Changed], list[str]]] = [
        (lambda: rollback(repo, releases(repo).releases[0].version), before),
        (lambda: rollback(repo, sorted(Folder(repo).tags())[1]), both),
        (lambda: revoke(repo, both[:1], "wrong"), both),
        (lambda: compact(repo), both[1:]),
    ]
    for change, rows in changes:
        seen = sft_ids(repo)
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "_write_texts", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                change()
        assert sft_ids(repo) == seen
        assert change().commit is None
        assert sft_ids(repo) == rows


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


def test_a_card_that_a_person_edits_meanwhile_is_merged_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has a new entry, the card is still the old one, and somebody edits it: both changes are in the card that is mended.
    An edit alone is left alone."""
    place, card = Folder(str(tmp_path)), tmp_path / "README.md"
    place.create(private=False, gated=None)
    other = RUN_CARD.replace("license: mit", "license: apache-2.0")
    card.write_bytes(b"\xef\xbb\xbf---\r\nviewer: false\r\n---\r\nMine.")
    for number, text in enumerate((RUN_CARD, other), 1):
        head = place.head()
        changes = cards_of(place, head, head, manifest(number), text)
        with monkeypatch.context() as patch:
            if number == 2:
                patch.setattr(Folder, "_write_texts", lambda self: None)
            place.commit(Change(adds=dict(changes)), "a release", parent=head, tag=None)
        edited = (
            card.read_text()
            .replace("# Sums", f"# Sums\n\nNote {number}.")
            .replace("- thresher\n", f"- thresher\n- tag{number}\n")
        )
        card.write_text(edited)
        place.mend()
        assert (card.read_text() == edited) == (number == 1)

    text = card.read_text()
    assert all(
        text.count(words) == 1 for words in ("| v1.1.0 |", "Note 1.", "Note 2.", "Mine.", "- tag1\n", "- tag2\n", "viewer")
    )
    assert ("apache-2.0" in text, "license: mit" in text) == (True, False)
    card.unlink()
    Folder(str(tmp_path)).mend()
    assert "Mine." in card.read_text()


def test_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    """Of processes of this machine that have ended, and of others after a day."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = machine_id()
    names = {
        f"sft/train/a.parquet.{here}.{dead.pid}.0123abcd.part": True,
        f"sft/train/a.parquet.{here}.{os.getpid()}.0123abcd.part": False,
        f"thresher/log/000002.json.{socket.gethostname()}.{dead.pid}.0123abcd.part": False,
        "thresher/log/000002.json.elsewhere.7.0123abcd.part": False,
        "old/a.parquet.elsewhere.7.0123abcd.part": True,
        "old/a.parquet.7.part": True,
        "old/mine.part": False,
        "old/mine.7.part": False,
    }
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        if "old" in name:
            os.utime(tmp_path / name, (0, 0))

    Folder(str(tmp_path)).mend()

    assert {name: not (tmp_path / name).exists() for name in names} == names


@pytest.mark.slow
def test_a_card_of_a_person_and_their_config_survive_in_a_folder(run: Callable[..., Path], tmp_path: Path) -> None:
    """It is there before the first release, is edited between releases, and after each change `datasets` loads their config by
    default, and those of thresher."""
    from datasets import load_dataset

    folder = tmp_path / "released"
    repo, card = str(folder), folder / "README.md"
    folder.mkdir()
    pq.write_table(pa.table({"a": [7]}), folder / "mine.parquet")
    card.write_bytes(
        b"---\r\nlicense: gpl # ours\r\nconfigs:\r\n- config_name: mine\r\n  default: true\r\n"
        b"  data_files: [{split: train, path: [mine.parquet]}]\r\n---"
    )
    one, two = run("one", dataset={"license": "mit"}), run("two", dataset={"license": "mit"})

    def stays(*words: str) -> None:
        text = card.read_text()
        assert not [word for word in ("license: gpl # ours\n", *words) if text.count(word) != 1]
        cache = str(tmp_path / "cache")
        assert load_dataset(repo, split="train", cache_dir=cache)["a"][:] == [7]
        assert load_dataset(repo, "sft", split="train", cache_dir=cache)["sample_id"][:] == sft_ids(repo)

    first = release_run(repo, one)
    stays()
    card.write_text(
        card.read_text().replace("<!--", "Above.\n<!--", 1).replace("## Limits", "Between.\n\n## Limits") + "Below.\n"
    )
    release_run(repo, two)
    stays("Above.\n", "Between.\n", "Below.\n")
    changes: list[Callable[[], Published | Changed]] = [
        lambda: revoke(repo, sft_ids(repo)[:1], "wrong"),
        lambda: compact(repo),
        lambda: rollback(repo, first.version),
    ]
    for change in changes:
        card.write_text(card.read_text() + "More.\n")
        assert change().commit
        stays("Above.\n", "Between.\n")
    assert card.read_text().endswith("Below.\n" + 3 * "More.\n")
    card.write_text("---\nlicense: [mit\n---\nMine.\n")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    changes += [lambda: release_run(repo, two)]
    for change in changes[1:]:
        with pytest.raises(PublishError, match=r"README\.md: line 3: its front matter is not valid YAML"):
            change()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.slow
def test_damaged_shards_are_named_and_sent_again(run: Callable[..., Path], tmp_path: Path) -> None:
    """A shard is missing, one is cut short, and one has other content of the same size: the run that released them sends them
    again; other runs cannot, and say so. What only reads sizes tells at least the first two."""
    repo = str(tmp_path / "released")
    fs, base = url_to_fs(repo, skip_instance_cache=True)
    one, two = run("one"), run("two")
    first = release_run(repo, one)
    release_run(repo, two)
    rows = {view: config_rows(repo, view) for view in ("sft", "unpaired", "rollouts")}
    shards = [releases(repo).releases[0].views[view][0].path for view in ("sft", "unpaired", "rollouts")]
    whole = [fs.cat_file(f"{base}/{path}") for path in shards]

    fs.rm_file(f"{base}/{shards[0]}")
    fs.pipe_file(f"{base}/{shards[1]}", whole[1][:-9])
    fs.pipe_file(f"{base}/{shards[2]}", whole[2][:-9] + b"123456789")
    for change in (lambda: release_run(repo, two), lambda: release_run(repo, run("three")), lambda: compact(repo)):
        with pytest.raises(PublishError) as refused:
            change()
        lines = [line.strip() for line in str(refused.value).splitlines()]
        assert "2 shards of its releases are damaged; publish the runs that they are of again" in lines[0]
        assert lines[1:] == [
            f"{shards[0]} ({first.version}, small) is missing",
            f"{shards[1]} ({first.version}, small) has {len(whole[1]) - 9} bytes, not the {len(whole[1])} that were released",
        ]
    mended = release_run(repo, one)
    assert mended.words.startswith(f"{repo}: sent 3 damaged files of {first.version} again: {', '.join(sorted(shards))}; commit")
    assert {view: config_rows(repo, view) for view in rows} == rows
    assert release_run(repo, one).words.endswith("nothing to do")
    card = fs.cat_file(f"{base}/README.md").decode()
    fs.pipe_file(f"{base}/README.md", card.replace(shards[0], "sft/train/none.parquet").encode())
    assert release_run(repo, one).mended == ("README.md",)
    assert fs.cat_file(f"{base}/README.md").decode() == card

    fs.pipe_file(f"{base}/{shards[0]}", whole[0][:-9] + b"123456789")
    with pytest.raises(PublishError, match=rf"{shards[0]} has another content than was released \(SHA-256 [0-9a-f]{{16}}\)"):
        compact(repo)
    fs.rm_file(f"{base}/{shards[1]}")
    with pytest.raises(PublishError, match=rf"restore them from a backup:\n  {shards[1]} .* is missing"):
        rollback(repo, first.version)
    other = run("one", dataset={"description": "other words", "views": ["sft", "unpaired"]})
    assert release_run(repo, other, views=["sft", "unpaired"]).version != first.version
    assert compact(repo).commit
    assert {view: len(config_rows(repo, view)) for view in rows} == {"sft": 4, "unpaired": 8, "rollouts": 6}


class NoCondition(MemoryFileSystem):  # type: ignore[misc]
    """A server that takes the condition and ignores it."""

    protocol = "nocondition"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, **kwargs)


def test_a_server_that_overwrites_what_exists_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is published there."""
    fsspec.register_implementation("nocondition", NoCondition, clobber=True)
    monkeypatch.setattr(NoCondition, "__module__", "s3fs.core")

    with pytest.raises(PublishError, match="cannot be a shared repository: its server overwrites a file"):
        Folder("nocondition://bucket/sums").create(private=False, gated=None)
