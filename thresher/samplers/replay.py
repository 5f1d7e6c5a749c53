"""Answers from a table instead of a model: for tests, and to see what filters do without an engine."""

import time
from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from schemas.prompt_sets import JsonlSource, ParquetSource
from thresher.errors import SourceError
from thresher.inputs.sources import rows
from thresher.samplers.sampler import Completion, Drawn, EngineFacts, Group

AT_ONCE = 256
"""Groups answered at once, at most."""


class ReplaySampler:
    """Deals out the table's completions of a prompt: sample i gets the i-th, from the first again when there are too few; a
    greedy group gets the last. A prompt the table does not know is a SourceError."""

    def __init__(self, path: Path) -> None:
        kind = JsonlSource(kind="jsonl", path=path.name)
        source = kind if path.suffix in {".jsonl", ".ndjson"} else ParquetSource(kind="parquet", path=path.name)
        self.path = path
        self.facts = EngineFacts("replay", "1", 256, "chat", None)
        self._answers: dict[str, list[Completion]] = defaultdict(list)
        for where, row in rows(source, path.parent):
            if not isinstance(row.get("prompt"), str) or not isinstance(row.get("completion"), str):
                raise SourceError(f"{where}: wanted the texts prompt and completion, found the fields {sorted(row)}")
            self._answers[row["prompt"]].append(Completion(row["completion"], str(row.get("finish_reason") or "stop")))

    def __enter__(self) -> "ReplaySampler":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def close(self) -> None:
        return None

    def stream(self, priority: int = 0) -> "_Stream":  # noqa: ARG002 - there is no queue to be first in
        return _Stream(self)

    def answer(self, group: Group) -> Drawn:
        asked = group.messages[-1].content
        answers = self._answers.get(asked)
        if not answers:
            raise SourceError(f"{self.path}: no completion for the prompt {asked[:80]!r}; add a row for it")
        last = len(answers) - 1
        greedy = group.parameters["temperature"] == 0
        completions = tuple(answers[last if greedy else index % len(answers)] for index in group.indices)
        return Drawn(group.number, completions, source="table")


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
        return [self._sampler.answer(self._waiting.popleft()) for _ in range(min(AT_ONCE, len(self._waiting)))]
