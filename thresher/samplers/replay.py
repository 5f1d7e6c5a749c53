"""Answers from a table instead of a model: for tests, and to see what filters do without an engine."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from schemas.recipe import JsonlSource, ParquetSource
from thresher.errors import SourceError
from thresher.samplers.base import Completion, Drawn, EngineFacts, Group
from thresher.sources import rows


class ReplaySampler:
    """Deals out the table's completions of a prompt in order, from the first again when there are too few; a greedy group gets
    the last. A prompt the table does not know is a SourceError."""

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

    def sample(self, groups: Sequence[Group]) -> Iterator[Drawn]:
        for group in groups:
            asked = group.messages[-1].content
            answers = self._answers.get(asked)
            if not answers:
                raise SourceError(f"{self.path}: no completion for the prompt {asked[:80]!r}; add a row for it")
            greedy = group.parameters["temperature"] == 0
            start = len(answers) - 1 if greedy else 0
            yield Drawn(group.number, tuple(answers[(start + i) % len(answers)] for i in range(group.n)))
