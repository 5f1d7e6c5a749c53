"""What a run shows while it samples: bars with a rate in a terminal, plain lines elsewhere."""

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from thresher.samplers.base import EngineFacts

if TYPE_CHECKING:
    from thresher.steps import Begun

LINE_EVERY_S = 10.0


class Progress:
    """Counts samples and tokens as they are drawn; may be told from any thread. A context manager."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr)
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self.samples = self.tokens = self.total = 0
        self._first = self._last_line = 0.0
        self._lap = time.perf_counter()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        elif self._first:
            self._line()

    def begin(self, begun: "Begun") -> None:
        """Say what will be sampled, before the engine starts."""
        from thresher.store import Store

        per_prompt = begun.recipe.sampling.samples_per_prompt + begun.recipe.sampling.anchor
        entry = Store(begun.root).entry("prompts")
        prompts = entry.facts["prompts"] if entry else 0
        self.total = round(prompts * per_prompt * len(begun.missing) / max(1, begun.shards))
        self.say(
            f"{prompts} prompts x {per_prompt} in {begun.shards} shards, {len(begun.missing)} to sample; starting the engine"
        )

    def sampling(self, facts: EngineFacts) -> None:
        """Start counting: the engine is warm."""
        self._first = self._last_line = self._lap = time.perf_counter()
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("sampling"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bars.add_task("sampling", total=self.total, rate="")
            self._bars.start()
        else:
            self.say(f"{facts.engine} {facts.version} is warm, sampling")

    def drawn(self, samples: int, tokens: int) -> None:
        with self._lock:
            self.samples += samples
            self.tokens += tokens
            if self._bars is not None:
                self._bars.update(self._bars.task_ids[0], completed=self.samples, rate=self._rate())
            elif time.perf_counter() - self._last_line > LINE_EVERY_S:
                self._line()

    def lap(self) -> float:
        """Seconds since the last call, or since sampling began: of shards that overlap they add up to the wall clock."""
        with self._lock:
            now = time.perf_counter()
            seconds, self._lap = now - self._lap, now
            return seconds

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _rate(self) -> str:
        seconds = max(time.perf_counter() - self._first, 1e-9)
        return f"{self.tokens / seconds:,.0f} tokens/s {self.samples / seconds:,.1f} samples/s"

    def _line(self) -> None:
        self._last_line = time.perf_counter()
        share = 100 * self.samples / max(1, self.total)
        self.say(f"{self.samples:,} of {self.total:,} samples ({share:.0f} %), {self._rate()}")
