"""Returns completions from a table instead of a model: for tests, and to try filters without an engine."""

import time
from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from schemas.prompt_sets import JsonlSource, ParquetSource
from thresher.errors import SourceError
from thresher.inputs.sources import rows
from thresher.samplers.sampler import Completion, Drawn, EngineFacts, Group

GROUPS_PER_TAKE = 256


class ReplaySampler:
    """Sample i of a prompt gets the prompt's i-th completion, starting over if the table has too few; a greedy group gets the
    last. A prompt that is missing from the table is a SourceError."""

    def __init__(self, path: Path) -> None:
        kind = JsonlSource(kind="jsonl", path=path.name)
        source = kind if path.suffix in {".jsonl", ".ndjson"} else ParquetSource(kind="parquet", path=path.name)
        self.path = path
        self.token_bytes: NDArray[np.int32] | None = None
        self.facts = EngineFacts("replay", "1", 256, "chat", None)
        self._completions: dict[str, list[Completion]] = defaultdict(list)
        for where, row in rows(source, path.parent):
            if not isinstance(row.get("prompt"), str) or not isinstance(row.get("completion"), str):
                raise SourceError(f"{where}: wanted the texts prompt and completion, found the fields {sorted(row)}")
            self._completions[row["prompt"]].append(Completion(row["completion"], str(row.get("finish_reason") or "stop")))

    def __enter__(self) -> "ReplaySampler":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def close(self) -> None:
        return None

    def stream(self, priority: int = 0) -> "_Stream":  # noqa: ARG002 - nothing is queued
        return _Stream(self)

    def answer(self, group: Group) -> Drawn:
        """Return the table's completions for a group."""
        prompt = group.messages[-1].content
        completions = self._completions.get(prompt)
        if not completions:
            raise SourceError(f"{self.path}: no completion for the prompt {prompt[:80]!r}; add a row for it")
        last = len(completions) - 1
        greedy = group.parameters["temperature"] == 0
        drawn = tuple(completions[last if greedy else index % len(completions)] for index in group.indices)
        return Drawn(group.number, drawn, source="table")


class _Stream:
    def __init__(self, sampler: ReplaySampler) -> None:
        self._sampler = sampler
        self._waiting: deque[Group] = deque()

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def submit(self, groups: Iterable[Group]) -> None:
        self._waiting.extend(groups)

    def take(self, timeout: float) -> list[Drawn]:
        if not self._waiting and timeout:
            time.sleep(timeout)
        return [self._sampler.answer(self._waiting.popleft()) for _ in range(min(GROUPS_PER_TAKE, len(self._waiting)))]
