"""What a folder holds at each moment of a call: after a crash there, and after a power cut there.

A crash (kill -9) at a moment leaves what the folder holds. A power cut leaves less: what was not synced may be lost. All changes
of names, all files opened for writing and all syncs of the call are intercepted, and before each the folder is read. A sync
does not reach the disk; what it would have made durable is noted instead, by inode. Files that Arrow writes natively are seen
with the next change."""

import builtins
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

State = dict[str, bytes | None]
"""The content of each file, None for each folder, by path."""
CHANGES = ("rename", "replace", "link", "symlink", "unlink", "remove", "mkdir", "rmdir", "truncate")
Names = dict[str, int]
Noted = dict[tuple[tuple[str, bytes | None], ...], tuple[str, State]]


class RecordedDisk:
    """The states of a folder, of which all that it holds at first is durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._crashes: Noted = {}
        self._power_cuts: Noted = {}
        self.calls: dict[str, int] = {}
        """Number of calls of each kind."""
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, Names] = {}
        self._folders: set[int] = set()
        self._held: dict[int, int] = {}
        self._read: dict[tuple[int, int, int], bytes] = {}
        self._lock = threading.RLock()
        for folder, _, files in os.walk(root):
            self._sync_folder(folder)
            for name in files:
                self._sync_file(os.path.join(folder, name))

    @contextmanager
    def recording(self) -> Iterator["RecordedDisk"]:
        """Note the states while the block runs."""
        with pytest.MonkeyPatch.context() as patch:
            for name in CHANGES:
                patch.setattr(os, name, self._change(name, getattr(os, name)))
            patch.setattr(os, "open", self._os_open(os.open))
            patch.setattr(os, "fsync", self._sync)
            opened = self._open(io.open)
            patch.setattr(io, "open", opened)
            patch.setattr(builtins, "open", opened)
            yield self
        self._look("end")
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held = {}

    @property
    def crash_states(self) -> list[tuple[str, State]]:
        """What kill -9 leaves, each state once, and the change before which it does."""
        return list(self._crashes.values())

    @property
    def power_cut_states(self) -> list[tuple[str, State]]:
        """What a power cut leaves: only what was synced; that without the names that were removed since; or all names, with the
        content that was synced."""
        return list(self._power_cuts.values())

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _change(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **more: Any) -> Any:
            if self._concerns(arguments[0]):
                self._look(name)
            return call(*arguments, **more)

        return changed

    def _open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
            if set(mode).isdisjoint("wxa+") or isinstance(file, int) or not self._concerns(file):
                return call(file, mode, *arguments, **more)
            self._look("open")
            made = call(file, mode, *arguments, **more)
            self._look("write", count=False)
            return made

        return opened

    def _os_open(self, call: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_TRUNC) and self._concerns(path):
                self._look("open")
            return call(path, flags, *arguments, **more)

        return opened

    def _sync(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not self._concerns(path):
            return
        with self._lock:
            self._look("fsync")
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                self._sync_folder(path)
            else:
                state = self._state()
                name = os.path.relpath(path, self.root)
                half = state.get(name) or b""
                self._note(self._crashes, "write", state | {name: half[: len(half) // 2]})
                self._sync_file(path)

    def _concerns(self, path: Any) -> bool:
        path = os.fsdecode(path) if not isinstance(path, int) else ""
        return not os.path.isabs(path) or Path(path).is_relative_to(self.root)

    # -- states --------------------------------------------------------------------------------------------------------

    def _look(self, before: str, *, count: bool = True) -> None:
        with self._lock:
            if count:
                self.calls[before] = self.calls.get(before, 0) + 1
            state, inodes = self._state(), self._inodes
            self._note(self._crashes, before, state)
            durable = self.synced()
            self._note(self._power_cuts, f"{before}: nothing else", durable)
            self._note(self._power_cuts, f"{before}: and removals", self.synced(set(inodes.values())))
            contents = {name: None if data is None else self._contents.get(inodes[name], b"") for name, data in state.items()}
            self._note(self._power_cuts, f"{before}: and names", contents)

    def _note(self, states: Noted, before: str, state: State) -> None:
        states.setdefault(tuple(sorted(state.items())), (before, dict(state)))

    def _state(self) -> State:
        state: State = {}
        self._inodes: Names = {}
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                key = os.path.relpath(path, self.root)
                try:
                    facts = os.stat(path)
                    state[key] = self._content(path, facts) if stat.S_ISREG(facts.st_mode) else None
                except FileNotFoundError:  # by another thread
                    continue
                self._inodes[key] = facts.st_ino
        return state

    def _content(self, path: str, facts: os.stat_result) -> bytes:
        known = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if known not in self._read:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                self._read[known] = os.pread(descriptor, facts.st_size, 0)
            finally:
                os.close(descriptor)
        return self._read[known]

    def synced(self, alive: set[int] | None = None) -> State:
        """What was synced. Of the names that were removed since, those of inodes that are not `alive` are left out if given."""
        state: State = {}

        def add(inode: int, base: str) -> None:
            for name, other in self._names.get(inode, {}).items():
                path = f"{base}{name}"
                if alive is not None and other not in alive and not os.path.lexists(self.root / path):
                    continue
                if other in self._folders:
                    state[path] = None
                    add(other, f"{path}/")
                else:
                    state[path] = self._contents.get(other, b"")

        add(os.stat(self.root).st_ino, "")
        return state

    def _sync_file(self, path: str) -> None:
        facts = os.stat(path)
        self._hold(path, facts.st_ino)
        self._contents[facts.st_ino] = self._content(path, facts)

    def _sync_folder(self, path: str) -> None:
        inode = os.stat(path).st_ino
        self._hold(path, inode)
        self._folders.add(inode)
        names: Names = {}
        for name in os.listdir(path):
            facts = os.stat(os.path.join(path, name))
            self._hold(os.path.join(path, name), facts.st_ino)
            names[name] = facts.st_ino
            if stat.S_ISDIR(facts.st_mode):
                self._folders.add(facts.st_ino)
        self._names[inode] = names

    def _hold(self, path: str, inode: int) -> None:
        """Keep an inode, so that its number is not given to another file."""
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_PATH)


def put(root: Path, state: Mapping[str, bytes | None]) -> None:
    """Let a folder hold exactly a state."""
    for path in sorted(root.rglob("*"), reverse=True):
        if not path.is_dir():
            if state.get(str(path.relative_to(root))) is None:
                path.unlink()
        elif str(path.relative_to(root)) not in state:
            path.rmdir()
    for name, content in sorted(state.items()):
        path = root / name
        if content is None:
            path.mkdir(exist_ok=True)
        elif not path.exists() or path.read_bytes() != content:
            path.unlink(missing_ok=True)  # it may be linked to another name
            path.write_bytes(content)
