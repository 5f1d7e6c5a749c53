"""Counts how often the Parquet files of some folders are opened, by any process and any library (Linux inotify)."""

import ctypes
import os
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

IN_OPEN = 0x20
EVENT = struct.Struct("iIII")


class Opens:
    """Watches folders from its creation on. Folders must exist."""

    def __init__(self, folders: Iterable[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders = {
            libc.inotify_add_watch(self._descriptor, str(folder).encode(), IN_OPEN): folder.name for folder in folders
        }
        assert self._descriptor >= 0
        assert min(self._folders) >= 0

    def count(self) -> Counter[str]:
        """Opens by FOLDER/FILE since the last call."""
        opens: Counter[str] = Counter()
        while True:
            try:
                data = os.read(self._descriptor, 1 << 20)
            except BlockingIOError:
                return opens
            start = 0
            while start < len(data):
                watch, _, _, length = EVENT.unpack_from(data, start)
                start += EVENT.size
                name = data[start : start + length].rstrip(b"\0").decode()
                start += length
                if name.endswith(".parquet") and not name.startswith("."):
                    opens[f"{self._folders[watch]}/{name}"] += 1
