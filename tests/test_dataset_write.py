import os
import shutil
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from helpers import known
from helpers.runs import dataset_of
from helpers.small_run import METADATA, small_run
from thresher.auditing.count_run import count
from thresher.dataset import views, write
from thresher.dataset.write import dataset_finished, write_dataset
from thresher.errors import StoreError
from thresher.pool.lease import Holder, Leases
from thresher.pool.run import open_run

NO_HITS = [("sums", ["wrong", "cut"], "wrong"), ("sums", ["open", "wrong"], "right")]


def contents(folder: Path) -> Any:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- read with datasets --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_prompts_are_held_out_of_every_view_and_stay_where_they_are(tmp_path: Path, load: Any) -> None:
    """No prompt is on both sides, no row is lost, and a larger share holds out the same prompts and more."""
    plan = [("sums", ["right", "wrong"], "wrong")] * 16
    plain = dataset_of(small_run(tmp_path / "plain", plan))
    whole = {view: {row["sample_id"] for row in load(plain, view)} for view in ("sft", "rollouts")}
    out = {}
    for share in (0.3, 0.6):
        folder = dataset_of(small_run(tmp_path / str(share), plan, dataset={"license": "mit", "test_share": share}))
        sides = {split: {v: list(load(folder, v, split=split)) for v in whole} for split in ("train", "test")}
        for view, ids in whole.items():
            found = [row["sample_id"] for split in sides.values() for row in split[view]]
            assert sorted(found) == sorted(ids)
        prompts = {split: {row["prompt_id"] for rows in held.values() for row in rows} for split, held in sides.items()}
        assert not prompts["train"] & prompts["test"]
        out[share] = prompts["test"]
    assert out[0.3] < out[0.6]


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_every_view_is_a_config_that_datasets_reads(tmp_path: Path, load: Any, streaming: bool) -> None:
    folder = dataset_of(small_run(tmp_path, corpus=True))

    made = [view for view in views.COLUMNS if view not in ("preference", "distill", "tokens", "revoked")]
    rows = {view: list(load(folder, view, streaming=streaming)) for view in made}

    assert {view: len(found) for view, found in rows.items()} == {"sft": 4, "unpaired": 10, "prompts": 5, "rollouts": 25}
    assert not (folder / "preference").exists()
    for view, found in rows.items():
        assert [list(row) for row in found] == [views.schema(view, "chat").names] * len(found)
        assert all(row["metadata"] == METADATA and list(row["metadata"]) == list(METADATA) for row in found)
    dropped = rows["rollouts"][2]
    assert dropped["detail"] == dropped["verdicts"][-1]["detail"] == {"found": "again"}
    assert dropped["sampling"] == {"stop": [], "temperature": 1.0}
    assert rows["rollouts"][0]["detail"] is None
    assert rows["sft"][0]["completion"] == [{"role": "assistant", "content": "right answer 0 to 0"}]


def test_text_format_is_read_as_strings(tmp_path: Path, load: Any) -> None:
    folder = dataset_of(small_run(tmp_path, prompt_format="text"))

    assert load(folder, "sft")[0]["prompt"] == "Be brief.\n\nQuestion 0?"
    assert load(folder, "sft")[0]["completion"] == "right answer 0 to 0"


def test_views_of_imported_samples_are_read(tmp_path: Path, load: Any) -> None:
    plan = [("sums", ["torn", "right", "wrong"], None), ("words", ["torn"], None)]
    folder = dataset_of(small_run(tmp_path, plan, origin="brought"))

    assert [row["outcome"] for row in load(folder, "rollouts")] == ["undecided", "keep", "drop", "undecided"]
    assert load(folder, "sft")[0]["cumulative_logprob"] is None
    assert "they were imported from `mine.jsonl`" in (folder / "README.md").read_text()


def test_integers_beyond_64_bits_are_read_as_text(tmp_path: Path, load: Any) -> None:
    folder = dataset_of(small_run(tmp_path, metadata={"n": 2**64, "m": 2**64 - 1, "k": [-(2**63), 10**30]}))

    assert load(folder, "sft")[0]["metadata"] == {"n": str(2**64), "m": 2**64 - 1, "k": [-(2**63), str(10**30)]}


def test_a_view_without_rows_is_no_config(tmp_path: Path, load: Any) -> None:
    """`datasets` 5.2 could not load it."""
    folder = dataset_of(small_run(tmp_path, NO_HITS))

    assert not (folder / "sft").exists()
    assert len(load(folder, "rollouts")) == 6
    assert "### sft" not in (folder / "README.md").read_text()


def test_where_no_view_has_rows_the_first_is_an_empty_config(tmp_path: Path, load: Any) -> None:
    folder = dataset_of(small_run(tmp_path, NO_HITS, dataset={"views": ["sft", "preference"]}))

    streamed = load(folder, "sft", streaming=True)

    assert list(streamed) == []
    assert list(streamed.features) == views.schema("sft", "chat").names
    assert "It is empty" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_trl_reads_the_view_sft_as_it_is(tmp_path: Path, load: Any) -> None:
    trl = pytest.importorskip("trl.data_utils")
    chat, text = (load(dataset_of(small_run(tmp_path / form, prompt_format=form)), "sft")[0] for form in ("chat", "text"))

    assert trl.is_conversational(chat)
    assert not trl.is_conversational(text)


# -- files ---------------------------------------------------------------------------------------------------------------


def test_same_pool_gives_the_same_bytes(tmp_path: Path) -> None:
    first = contents(dataset_of(small_run(tmp_path / "a")))

    assert contents(dataset_of(small_run(tmp_path / "b"))) == first


# -- finished, interrupted, elsewhere ------------------------------------------------------------------------------------


def test_finished_dataset_is_left_alone(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    assert not dataset_finished(run)
    folder = dataset_of(run)
    with (folder / "README.md").open("a") as card:
        card.write("edited by hand")

    assert dataset_finished(run)
    dataset_of(run)

    assert (folder / "README.md").read_text().endswith("edited by hand")


def test_files_that_readers_would_take_for_part_of_the_dataset_are_removed(tmp_path: Path, load: Any) -> None:
    """What another writer left there, say."""
    run = small_run(tmp_path)
    folder = dataset_of(run)
    [file] = folder.glob("sft/train/*.parquet")
    shutil.copy(file, file.with_name("00007-abc.parquet"))
    assert not dataset_finished(run)

    dataset_of(run)

    assert [path.name for path in folder.glob("sft/train/*")] == [file.name]


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_writer_that_lost_its_lease_leaves_the_dataset_alone(tmp_path: Path, where: str) -> None:
    run = small_run(tmp_path / "run" if where == "disk" else f"memory://{tmp_path.name}/run")
    store = run.store
    write_dataset(run, audit=count(run))
    before = {name: store.fs.cat_file(name) for name in store.fs.find(store.path("dataset"))}
    with store.writing("thresher run"):
        Leases(store.fs, store.base, store.root).create(2, Holder("t", "", "", "", 1, "", ""))
        store.fs.rm_file(store.path("dataset.json"))
        with pytest.raises(StoreError, match="taken over"):
            write_dataset(run, audit=count(run))

    assert {name: store.fs.cat_file(name) for name in store.fs.find(store.path("dataset"))} == before


@pytest.mark.parametrize("damage", ["flipped", "cut card", "card without front matter"])
def test_damage_of_equal_size_and_a_cut_card_are_mended(tmp_path: Path, damage: str) -> None:
    run = small_run(tmp_path)
    folder = dataset_of(run)
    before = contents(folder)
    file = folder / "README.md"
    if damage == "flipped":
        file = next(folder.glob("sft/train/*.parquet"))
        data = bytearray(file.read_bytes())
        data[200] ^= 1
        file.write_bytes(data)
    else:
        text = file.read_text()
        file.write_text(text[:300] if damage == "cut card" else "# Mine")

    assert not dataset_finished(run)
    dataset_of(run)

    assert contents(folder) == before


@pytest.mark.parametrize("what", ["verdicts", "recipe", "file", "card", "shard"])
def test_dataset_made_from_something_else_is_not_finished(tmp_path: Path, what: str) -> None:
    run = small_run(tmp_path)
    folder = dataset_of(run)
    if what == "verdicts":
        entry = known(run.store.entry("verdicts/00001"))
        run.store.write_table("verdicts/00001", run.store.read_table("verdicts/00001").slice(1), key=entry.key, facts=entry.facts)
    elif what == "recipe":
        changed = run.recipe.dataset.model_copy(update={"description": "New."})
        recipe = run.recipe.model_copy(update={"dataset": changed})
        run.store.write_model("run.json", run.manifest.model_copy(update={"recipe": recipe}))
    elif what == "file":
        next(folder.glob("sft/train/*")).unlink()
    elif what == "card":
        (folder / "README.md").unlink()
    else:
        run.store.remove("samples/00002.json")

    assert not dataset_finished(open_run(tmp_path))


def test_a_new_dataset_replaces_the_old_one(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    folder = dataset_of(run)
    run = small_run(tmp_path, dataset={"views": ["sft"]})

    dataset_of(run)

    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "sft"]
    assert sorted(path.name for path in tmp_path.iterdir() if "dataset" in path.name) == ["dataset", "dataset.json"]


def rename_fails_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let renames of directories fail from this one on, as if the process were killed."""
    real = Path.rename
    calls: list[Path] = []

    def rename(self: Path, target: Path) -> Path:
        if "dataset" in self.name:
            calls.append(self)
            if len(calls) >= number:
                raise OSError(5, "killed")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_crash_while_renaming_is_mended_at_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    run = small_run(tmp_path / "run")
    folder = dataset_of(run)
    run = small_run(tmp_path / "run", dataset={"views": ["sft"]})
    with monkeypatch.context() as patch:
        rename_fails_at(patch, number)
        with pytest.raises(StoreError, match="cannot write the dataset: killed; the pool is not affected"):
            dataset_of(run)
    assert folder.exists() == (number == 1)

    dataset_of(run)

    fresh = dataset_of(small_run(tmp_path / "fresh", dataset={"views": ["sft"]}))
    assert contents(folder) == contents(fresh)
    assert dataset_finished(run)
    assert not (tmp_path / "run" / "dataset.old").exists()


def test_crash_while_writing_leaves_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path)
    before = contents(dataset_of(run))
    run = small_run(tmp_path, dataset={"views": ["sft"]})

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write, "card", killed)
        with pytest.raises(KeyboardInterrupt):
            dataset_of(run)

    assert contents(tmp_path / "dataset") == before
    assert not dataset_finished(run)


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() == 0, reason="root may write anywhere")
def test_unwritable_directory_is_a_store_error(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="cannot write the dataset: Permission denied"):
            dataset_of(run)
    finally:
        tmp_path.chmod(0o700)


def test_run_that_is_not_on_a_local_disk_gets_its_dataset_too(tmp_path: Path) -> None:
    root = "memory://runs/small"
    memory = fsspec.filesystem("memory")
    run = small_run(root)
    try:
        assert write_dataset(run, audit=count(run)) == f"{root}/dataset"
        run = small_run(root, dataset={"views": ["prompts", "sft"]})
        assert not dataset_finished(run)
        write_dataset(run, audit=count(run))

        assert dataset_finished(run)
        names = [name.removeprefix("/runs/small/dataset/") for name in memory.find("/runs/small/dataset")]
        local = contents(dataset_of(small_run(tmp_path, dataset={"views": ["prompts", "sft"]})))
        assert {name: memory.cat_file(f"/runs/small/dataset/{name}") for name in names} == local
    finally:
        memory.rm("/runs", recursive=True)


def test_a_process_that_was_taken_over_does_not_mend_the_dataset(tmp_path: Path) -> None:
    """What looks like a crash between two renames may be the work of the process that took over."""
    run = small_run(tmp_path / "run")
    old = tmp_path / "run/dataset.old"
    with run.store.writing("test"):
        old.mkdir()
        newer = tmp_path / "run/writer/000099.json"
        newer.write_text("{}")
        with pytest.raises(StoreError, match="taken over"):
            write._recover_from_crash(run.store)
        newer.unlink()

    assert old.is_dir()
    assert not (tmp_path / "run/dataset").exists()
