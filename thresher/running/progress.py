"""What a run shows while it samples: a bar in a terminal, plain lines elsewhere; rate, hits so far and the time left."""

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TextIO

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from schemas.sampling import Sampling
from thresher.running.unmarked import Unmarked
from thresher.samplers.sampler import EngineFacts
from thresher.terminal import open_console

LINE_EVERY_S = 10.0
REPORT_EVERY_S = 10.0


class Progress:
    """Counts samples and tokens as they are drawn, and hits as they are found. Thread-safe; a context manager.

    `report` is called with the share done (0 to 1) and a line of text every ten seconds, and at the end. A copy that is pickled
    for another process starts from zero there and shows nothing.
    """

    def __init__(self, stream: TextIO | None = None, report: Callable[[float, str], None] | None = None) -> None:
        self._report, self._reported = report, 0.0
        self._console = open_console(stream or sys.stderr)
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self.samples = self.tokens = self.total = self.hits = self.failed = 0
        self._hits_of: dict[int, int] = {}
        self._target: int | None = None
        self._adaptive = False
        self._prompts = self._closed = 0
        self._first = self._last_line = 0.0
        self.times: dict[str, float] = {}
        """Times (seconds since 1970) at which the engine was started (`begun`), was ready (`warm`), and returned its `first`
        samples; on a cluster its first shard."""
        self._lap = time.perf_counter()
        self.unmarked = Unmarked()
        """Looks for the marks of thinking in the first samples."""

    def __reduce__(self) -> tuple[type["Progress"], tuple[()]]:
        return Progress, ()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        elif self._first and (kind is None or issubclass(kind, Exception)):  # an interrupt has a line of its own
            self._line()
        if self._first and self._report is not None:
            self._report(self.done if error is not None else 1.0, self.line())

    def begin(
        self,
        sampling: Sampling,
        *,
        prompts: int,
        shards: int,
        missing: int,
        hits: Mapping[int, int],
        shares: Sequence[float] = (),
    ) -> None:
        """Show what will be sampled, before the engine starts. `prompts` and `shards` are those of the whole plan, `missing` the
        shards that lack samples, `hits` those of the judged shards. Of several models `shares` has for each how much of the plan
        it is to draw, 0 to 1."""
        part = sum(shares) if shares else missing / max(1, shards)
        self.times.setdefault("begun", time.time())
        per_prompt = sampling.samples_per_prompt * len(sampling.temperatures) + sampling.anchor
        self.total += round(prompts * per_prompt * part)
        self.known(hits)
        self._target = sampling.target_rows
        self._adaptive = sampling.target_hits is not None
        self._prompts = round(prompts * part)
        each = f"{per_prompt}" if not self._adaptive else f"{per_prompt} to {sampling.most + sampling.anchor}"
        models = f" by {len(shares)} models, one after the other" if shares else ""
        self.say(f"{prompts} prompts x {each} in {shards} shards, {missing} to sample{models}; starting the engine")

    def sampling(self, facts: EngineFacts) -> None:
        """Start counting: the engine is ready. Of several models it is called for each."""
        self.unmarked = Unmarked()
        self._first = self._last_line = self._lap = time.perf_counter()
        self.times.setdefault("warm", time.time())
        if self._bars is not None:
            self._bars.stop()
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("sampling"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                console=self._console,
            )
            self._bars.add_task("sampling", total=1.0, text="")
            self._bars.start()
        else:
            self.say(f"{facts.engine} {facts.version} is ready, sampling")

    def drawn(self, samples: int, tokens: int, *, failed: int = 0) -> None:
        """Count samples, `failed` of which could not be drawn, and the tokens of their completions."""
        with self._lock:
            self.times.setdefault("first", time.time())
            self.samples += samples
            self.failed += failed
            self.tokens += tokens
            self._show()

    def closed(self, prompts: int) -> None:
        """Count prompts that get no further wave."""
        with self._lock:
            self._closed += prompts

    def known(self, hits: Mapping[int, int]) -> None:
        """Take the hits of the judged shards as they are."""
        with self._lock:
            self._hits_of, self.hits = dict(hits), sum(hits.values())

    def judged(self, shard: int, hits: int) -> None:
        """Count the hits of a judged shard; judged again, it replaces its earlier count."""
        with self._lock:
            self.hits += hits - self._hits_of.get(shard, 0)
            self._hits_of[shard] = hits
            self._show()

    def _show(self) -> None:
        now = time.perf_counter()
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=self.done, text=self.line())
        elif self._first and now - self._last_line > LINE_EVERY_S:
            self._line()
        if self._report is not None and self._first and now - self._reported > REPORT_EVERY_S:
            self._reported = now
            self._report(self.done, self.line())

    @property
    def done(self) -> float:
        """Share of the run that is done, 0 to 1: of its samples, with target_hits of the prompts that get no further samples, or
        of target_rows if that is nearer."""
        drawn = self._closed / max(1, self._prompts) if self._adaptive else self.samples / max(1, self.total)
        rows = self.hits / self._target if self._target else 0.0
        return min(1.0, max(drawn, rows))

    def line(self) -> str:
        """One line with samples, rates, hits, the time passed and the time left."""
        seconds = max(time.perf_counter() - self._first, 1e-9)
        goal = f"at least {self.total:,}" if self._adaptive else f"{self.total:,}"
        hits = f"{self.hits:,} of {self._target:,} hits" if self._target else f"{self.hits:,} hits"
        hits += f", {self.failed:,} could not be drawn" if self.failed else ""
        left = "" if not 0 < self.done < 1 else f", {_clock(seconds * (1 / self.done - 1))} left"
        rate = f"{self.samples / seconds:,.1f} samples/s, {self.tokens / seconds:,.0f} tokens/s"
        return f"{self.samples:,} of {goal} samples ({100 * self.done:.0f} %), {rate}, {hits}, {_clock(seconds)} passed{left}"

    def lap(self) -> float:
        """Seconds since the last call, or since sampling started: over shards that overlap they add up to the wall clock."""
        with self._lock:
            now = time.perf_counter()
            seconds, self._lap = now - self._lap, now
            return seconds

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def _line(self) -> None:
        self._last_line = time.perf_counter()
        self.say(self.line())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
