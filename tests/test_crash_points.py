"""Crashes and power cuts at every change of the disk that a command makes: the same command then ends with the result of one that
was left alone, or says what is lost, and leaves nothing behind."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.crash_cases import Case, dangling, release_cases, repeated, run_case
from helpers.recorded_disk import RecordedDisk, State
from thresher.durable import sync

RUN_STEP, STEP = 15, 8
"""Every state is looked at. Of a run, of power cuts and of half-written files one of so many is continued, because of the time;
benchmarks/crash_points.py continues all."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each rerun would tell that it takes over."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def wrong(root: Path, case: Case, states: list[tuple[str, State]], step: int) -> list[str]:
    """What does not hold in these states, each with the call before which it was."""
    broken = [f"{case.name}, {before}: names {names}" for before, state in states if (names := list(dangling(state)))]
    continued = [(before, repeated(root, case, state)) for before, state in states[step // 2 :: step]]
    return broken + [f"{case.name}, {before}: {words}" for before, words in continued if words]


@pytest.mark.slow
def test_a_repository_after_a_crash_or_power_cut_at_any_change(tmp_path: Path) -> None:
    """A first publish and another one, revoke, compact and rollback. Readers see the rows, the card, the manifest, the tags and
    the index of an uninterrupted change after the command is repeated."""
    for case in release_cases(tmp_path):
        halves = [state for state in case.disk.crash_states if state[0] == "write"]
        others = [state for state in case.disk.crash_states if state[0] != "write"]
        for states, step in ((others, 1), (halves, STEP), (case.disk.power_cut_states, STEP)):
            assert wrong(tmp_path, case, states, step) == []
        assert {"fsync", "replace", "link"} <= case.disk.calls.keys()


@pytest.mark.slow
def test_a_run_after_a_crash_or_power_cut_at_any_change(tmp_path: Path) -> None:
    """From the first folder to its published mark, with an index of released samples."""
    case = run_case(tmp_path)

    assert wrong(tmp_path, case, case.disk.crash_states, RUN_STEP) == []
    assert wrong(tmp_path, case, case.disk.power_cut_states, RUN_STEP) == []


def test_what_is_not_synced_is_lost_in_a_power_cut(tmp_path: Path) -> None:
    """The replay tells apart a content, a name and a folder that were not synced."""

    def left(name: str, *, content: bool, folder: bool) -> list[bytes | None]:
        """What a file may hold at the end: it is written under another name and renamed, with these syncs."""
        home = tmp_path / name
        home.mkdir()
        (home / "a").write_bytes(b"old")
        disk = RecordedDisk(home)
        with disk.recording():
            (home / "new").write_bytes(b"new")
            if content:
                sync(home / "new")
            (home / "new").rename(home / "a")
            if folder:
                sync(home)
        return [state.get("a") for _, state in disk.power_cut_states[-2:]]

    assert left("both", content=True, folder=True)[-1] == b"new"
    assert b"" in left("content", content=False, folder=True)
    assert b"old" in left("name", content=True, folder=False)
