"""Samples from vLLM in this process, on a GPU or a CPU: one running engine, shared by all shards in flight.

Groups wait in one queue, those of earlier shards first, and enter the engine as it has room, so it stays busy from one shard to
the next and the number of tokens in flight is bounded.

An engine that dies, or that has requests and makes no token for engine.silent_s, is started again, and the groups in flight are
drawn again. A group that was in flight at two deaths is then drawn alone, so that no harmless prompt is blamed for one that kills
the engine.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from filters.reasoning import Marking, Pair, opens_thinking
from schemas.engines import VllmEngine
from schemas.sample import Message
from thresher.errors import EngineError, SourceError
from thresher.estimators.calibration import Quota
from thresher.inputs.models import Model
from thresher.samplers.declared import reasoning_config, template_with_effort
from thresher.samplers.finished import FinishedGroups
from thresher.samplers.sampler import Drawn, EngineFacts, Group
from thresher.samplers.token_watch import StalledError, TokenWatch, requests_of, stalled
from thresher.samplers.vllm_draw import EngineStart, draw_group, refused, seeds_each_sample
from thresher.samplers.vllm_parsers import VllmParsers
from thresher.samplers.vllm_process import Tokeniser, VllmProcess, check_options, in_words

log = logging.getLogger(__name__)

LEAST_TOKENS_IN_FLIGHT = 1 << 22
"""Default bound on the tokens given to the engine: some hundred megabytes of token ids and log-probabilities."""
SUSPECT, POISON = 2, 3
"""Deaths of the engine with a group in flight after which the group is drawn alone, and after which it is given up."""
LATE_S = 5
"""Seconds that a dead engine may take to raise an error in the requests that wait for it."""
GIVE_UP_AFTER = 10
"""Deaths of the engine in a row, without a finished group in between, after which it is not started again."""
GIVE_UP_AFTER_STALLS = 3
"""The same for engines that hang: each costs engine.silent_s. At the third, a suspected group was drawn alone; at the fourth, the
next one hangs as well, so it is not the prompt."""


@dataclass(eq=False)
class Job:
    """A group on its way through the engine."""

    stream: "VllmStream"
    group: Group
    tokens: list[int]
    reserved: int
    """Tokens of the prompt and the completions, if none ends early."""
    opened: bool
    """Whether the prompt ends inside thinking marks that its template opened."""
    deaths: int = 0
    lost: EngineError | None = None
    """Why it was cancelled, if the engine is gone or hangs and raised no error."""


class VllmStream:
    """See thresher.samplers.sampler.Stream."""

    def __init__(self, sampler: "VllmSampler", priority: int) -> None:
        self._sampler, self.priority = sampler, priority
        self.finished, self.closed = FinishedGroups(), False
        self._groups: dict[int, Group] = {}  # in flight, for the parsers of vLLM

    def __enter__(self) -> "VllmStream":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closed = True
        self._sampler.drop(self)

    def submit(self, groups: Iterable[Group]) -> None:
        if self._sampler.parsers is not None:
            groups = list(groups)
            self._groups |= {group.number: group for group in groups}
        self._sampler.enqueue(self, groups)

    def take(self, timeout: float) -> list[Drawn]:
        drawn, parsers = self.finished.take(timeout), self._sampler.parsers
        if parsers is None:
            return drawn
        return [parsers.apart(one, self._groups.pop(one.number), self._sampler.token_bytes) for one in drawn]


class VllmSampler:
    """A context manager that holds the engine; see thresher.samplers.sampler.Sampler.

    `start` returns the number and the seed of a new start of the engine. `budget_marks` are the marks of the thinking, if groups
    have a budget of it. `quota` may be replaced while nothing is in flight.
    """

    facts: EngineFacts
    token_bytes: NDArray[np.int32] | None
    parsers: VllmParsers | None
    """The parsers of vLLM that take completions apart; None if there are none."""

    def __init__(
        self,
        spec: VllmEngine,
        model: Model,
        *,
        prompt_format: str,
        marking: Marking | None = None,
        tool_parser: str | None = None,
        budget_marks: Pair | None = None,
        quota: Quota,
        seeds: str,
        start: Callable[[], tuple[int, int]],
    ) -> None:
        check_options(spec)
        self._spec, self._model, self._format = spec, model, prompt_format
        self.quota, self._seeds, self._number_start = quota, seeds, start
        self._marking, self._tool_parser, self._budget_marks = marking, tool_parser, budget_marks
        self.token_bytes = self.parsers = None
        self._process = VllmProcess(spec, model, thread_name="vllm")
        self._watcher: Future[None] | None = None
        self._start: EngineStart | None = None
        self._streams: set[VllmStream] = set()
        # Used on the loop only.
        self._waiting: list[tuple[int, int, Job]] = []
        self._in_flight: dict[Job, asyncio.Task[None]] = {}
        self._ages = count()
        self._poison: dict[tuple[Message, ...], str] = {}
        self._deaths = 0
        self._restarting = self._suspected = False
        self._why_gone = "the engine was stopped"

    def __enter__(self) -> "VllmSampler":
        self._process.start_loop()
        self._loop = self._process.loop
        self._watcher = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)
        try:
            self._start_engine()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the engine; streams that wait for it raise EngineError."""
        self._start = None
        self._fail(EngineError("the engine was stopped"))
        if self._watcher is not None:
            self._watcher.cancel()
        self._process.close(before_stop=self._cancel_all)

    # -- the engine ----------------------------------------------------------------------------------------------------

    def _start_engine(self) -> None:
        vllm = self._process.load()
        if self.parsers is None and (self._tool_parser or (self._marking is not None and self._marking.parser)):
            self.parsers = VllmParsers(self._model, self._marking, self._tool_parser)
        number, seed = self._number_start()
        marks = self._budget_marks
        budgeted = {} if marks is None else {"reasoning_config": reasoning_config(marks)}
        config = self._process.start(seed=seed, generation_config="vllm", **budgeted)
        self._sequences = config.scheduler_config.max_num_seqs * self._process.ranks
        self._context = config.model_config.max_model_len
        if self.parsers is not None:
            self.parsers.model_config = config.model_config
        self._tokeniser = Tokeniser(self._model, self._format, self._spec)
        self.token_bytes = self._tokeniser.token_bytes()
        each = seeds_each_sample(self._seeds)
        self.facts = EngineFacts("vllm", vllm.__version__, self._sequences, self._tokeniser.format, "raw", self._context)
        adapter = self._process.load_adapter()
        ids = None if marks is None else tuple(np.array(self._tokeniser.completion(mark), np.int32) for mark in marks)
        self._tokens = TokenWatch()
        self._start = EngineStart(self._process.engine, number, seed, each, self._tokeniser, adapter, ids)

    async def _cancel_all(self) -> None:
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fail(self, error: EngineError) -> None:
        """Let every stream raise the error."""
        for stream in list(self._streams):
            stream.finished.put(error)

    def _give_up(self, error: EngineError) -> None:
        """End without an engine."""
        self._why_gone, self._restarting = str(error), False
        self._fail(error)

    # -- the queue -----------------------------------------------------------------------------------------------------

    def stream(self, priority: int = 0) -> VllmStream:
        if self._start is None and not self._restarting:
            raise EngineError(self._why_gone)
        stream = VllmStream(self, priority)
        self._streams.add(stream)
        return stream

    def drop(self, stream: VllmStream) -> None:
        """Cancel what a stream has in flight."""
        self._streams.discard(stream)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._cancel, stream)

    def enqueue(self, stream: VllmStream, groups: Iterable[Group]) -> None:
        """Queue groups of a stream. A prompt that its template or the model's context refuses is finished at once."""
        jobs = []
        for group in groups:
            try:
                jobs.append(self._job(stream, group))
            except SourceError as error:
                log.info("a prompt is undecided: %s", error)
                stream.finished.put(Drawn(group.number, (), error=str(error), refused=True))
        try:
            self._loop.call_soon_threadsafe(self._put, jobs)
        except RuntimeError as error:  # the loop has ended
            raise EngineError(self._why_gone) from error

    def _job(self, stream: VllmStream, group: Group) -> Job:
        template = template_with_effort(group.template, group.parameters)
        try:
            text = self._tokeniser.text(group.messages, to_continue=True, tools=group.tools, template=template)
        except Exception as error:  # a template may raise anything
            raise SourceError(f"the chat template refuses the prompt: {in_words(error)}") from error
        tokens, longest = self._tokeniser.prompt(text), int(group.parameters["max_tokens"])
        if len(tokens) + longest > self._context:
            raise SourceError(
                f"too long: {len(tokens)} tokens and sampling.max_tokens {longest} do not fit the context of {self._context}; "
                "shorten the prompt, lower max_tokens or raise engine.max_model_len"
            )
        opened = self._marking is not None and opens_thinking(text, self._marking)
        return Job(stream, group, tokens, len(tokens) + group.n * longest, opened)

    def _cancel(self, stream: VllmStream) -> None:
        for job, task in self._in_flight.items():
            if job.stream is stream:
                task.cancel()

    def _put(self, jobs: list[Job]) -> None:
        for job in jobs:
            heapq.heappush(self._waiting, (job.stream.priority, next(self._ages), job))
        self._fill()

    def _fill(self) -> None:
        """Give waiting groups to the engine while it has room."""
        while self._waiting and not self._restarting and self._start is not None:
            if self._suspected and self._in_flight:
                return
            suspects = [entry for entry in self._waiting if entry[2].deaths >= SUSPECT] if self._suspected else []
            self._suspected = bool(suspects)
            if not suspects and not self._fits(self._waiting[0][2]):
                return
            entry = min(suspects) if suspects else heapq.heappop(self._waiting)
            if suspects:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            job = entry[2]
            if job.stream.closed:
                continue
            if (reason := self._poison.get(job.group.messages)) is not None:
                job.stream.finished.put(Drawn(job.group.number, (), error=reason, refused=True))
                continue
            task = self._in_flight[job] = self._loop.create_task(self._draw(self._start, job))
            task.add_done_callback(partial(self._landed, job))

    def _landed(self, job: Job, _task: "asyncio.Task[None]") -> None:
        self._in_flight.pop(job, None)  # a task that was cancelled before it started did not do this

    def _fits(self, job: Job) -> bool:
        if not self._in_flight:
            return True
        bound = self._spec.tokens_in_flight or max(
            LEAST_TOKENS_IN_FLIGHT, self._sequences * int(job.group.parameters["max_tokens"])
        )
        return (
            sum(flying.group.n for flying in self._in_flight) + job.group.n <= 2 * self._sequences
            and sum(flying.reserved for flying in self._in_flight) + job.reserved <= bound
        )

    async def _draw(self, start: EngineStart, job: Job) -> None:
        finished = job.stream.finished
        try:
            try:
                drawn = await draw_group(start, self.quota, job.group, job.tokens, opened=job.opened)
            except Exception as error:
                if not self._works(start):
                    raise
                drawn = await refused(start, job.group, error, partial(self._works, start))
        except asyncio.CancelledError:
            self._in_flight.pop(job, None)
            if job.lost is not None and not job.stream.closed:
                lost, job.lost = job.lost, None
                self._died(job, lost)
            elif job.stream.closed:
                self._fill()
            return
        except Exception as error:  # noqa: BLE001 - whatever vLLM raises, the stream gets it
            self._in_flight.pop(job, None)
            if self._works(start):
                finished.put(error if isinstance(error, EngineError) else EngineError(f"vLLM: {in_words(error)}"))
                self._fill()
            elif self._start is not None or self._restarting:
                self._died(job, error)
            return
        self._in_flight.pop(job, None)
        self._deaths = 0
        finished.put(drawn)
        self._fill()

    def _works(self, start: EngineStart) -> bool:
        return start is self._start and not getattr(start.engine, "errored", False)

    # -- deaths of the engine ------------------------------------------------------------------------------------------

    def _died(self, job: Job, error: Exception) -> None:
        """The engine died with this group in flight: draw it again, alone the second time, and not after the third."""
        job.deaths += 1
        if job.deaths >= POISON:
            reason = f"the engine died {job.deaths} times while it sampled this prompt, the last time alone: {in_words(error)}"
            log.warning("a prompt is set aside as undecided: %s: %r", reason, job.group.messages[-1].content[:80])
            self._poison[job.group.messages] = reason
            job.stream.finished.put(Drawn(job.group.number, (), error=reason, refused=True))
        else:
            self._suspected = self._suspected or job.deaths >= SUSPECT
            heapq.heappush(self._waiting, (job.stream.priority, next(self._ages), job))
        if not self._restarting:
            self._restarting = True
            self._deaths += 1
            self._restart_task = self._loop.create_task(self._restart(error))

    async def _watch(self) -> None:
        """AsyncLLM raises an error in all requests when its engine dies, except in one that enters at that moment, which would
        wait forever. It raises none when the engine hangs."""
        late = 0
        step_s = min(1.0, self._spec.silent_s / 10)
        while True:
            await asyncio.sleep(step_s)
            if self._restarting or self._start is None:
                late = 0
                continue
            late = late + 1 if self._in_flight and self._process.is_dead() else 0
            silent_s, requests = self._tokens.look(requests_of(self._start.engine), self._loop.time())
            if late * step_s >= LATE_S:
                self._lose_all(_gone())
            elif silent_s >= self._spec.silent_s and self._in_flight:
                self._lose_all(StalledError(stalled(silent_s, requests)))

    def _lose_all(self, why: EngineError) -> None:
        for job, task in self._in_flight.items():
            job.lost = why
            task.cancel()

    async def _restart(self, error: Exception) -> None:
        late = self._loop.time() + LATE_S
        while self._in_flight:  # each raises an error now, or would wait forever
            await asyncio.sleep(0.01)
            if self._loop.time() > late:
                self._lose_all(_gone())
        dead, self._process.engine, self._start = self._process.engine, None, None
        hangs = isinstance(error, StalledError)
        if self._deaths > (GIVE_UP_AFTER_STALLS if hangs else GIVE_UP_AFTER):
            self._give_up(EngineError(f"the engine died {self._deaths} times in a row, the last time with {in_words(error)}"))
            return
        log.warning("the engine %s (%s); starting it again", "hangs" if hangs else "died", error if hangs else in_words(error))

        def start_again() -> None:
            if dead is not None:
                self._process.end(dead)
            self._start_engine()

        try:
            await self._loop.run_in_executor(None, start_again)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the streams get it
            if not isinstance(failure, EngineError):
                failure = EngineError(f"vLLM could not start again: {in_words(failure)}")
            self._give_up(failure)
            return
        self._restarting = False
        self._fill()


def _gone() -> EngineError:
    return EngineError("the engine's process is gone")
