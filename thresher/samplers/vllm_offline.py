"""vLLM in this process, on a GPU or a CPU: one warm engine that every shard in flight shares.

The engine is AsyncLLM on an event loop of its own thread, because the offline `LLM` waits for ever when its engine process
dies, and because finished groups can leave while new ones enter. Groups wait in one queue, those of earlier shards first, and
enter as there is room, so the engine is busy across the borders of shards and what is in flight is bounded.

When the engine dies it is started again and what was in flight is drawn again; a group that was in flight twice is then drawn
alone, so that no innocent one is condemned for a prompt that kills the engine.
"""

import asyncio
import heapq
import logging
import os
import queue
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.engines import VllmEngine
from schemas.sample import Message
from thresher.errors import EngineError, SourceError
from thresher.estimators.calibration import TOP_K, Quota, Sums, from_flat, nothing, sums
from thresher.inputs.models import Model
from thresher.samplers.orphans import Guard
from thresher.samplers.sampler import Completion, Drawn, EngineFacts, Group, plain_text

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput

log = logging.getLogger(__name__)

OURS = (
    "model",
    "tokenizer",
    "seed",
    "generation_config",
    "override_generation_config",
    "logprobs_mode",
    "max_logprobs",
)
"""Engine options that a recipe may not set: they decide what is sampled or recorded."""


LEAST_TOKENS_IN_FLIGHT = 1 << 22
"""Default bound on what is handed to the engine at once: some hundred megabytes of token ids and log-probabilities."""
SUSPECT, POISON = 2, 3
"""A group that was in flight when the engine died so often is drawn alone; one during which it died so often is given up."""
LATE_S = 5
"""Seconds that a dead engine may take to say so to those who wait for it."""
GIVE_UP_AFTER = 10
"""Deaths of the engine in a row, without one finished group between, after which it is not started again."""


@dataclass(eq=False)
class _Job:
    """A group on its way through the engine. Jobs are ordered by the priority of their stream, then by age."""

    stream: "_Stream"
    group: Group
    tokens: list[int]
    reserved: int
    deaths: int = 0
    lost: bool = False
    """The engine is gone, and would not say so."""


class _Stream:
    """See thresher.samplers.sampler.Stream."""

    def __init__(self, sampler: "VllmSampler", priority: int) -> None:
        self._sampler, self.priority = sampler, priority
        self.finished: queue.SimpleQueue[Drawn | BaseException] = queue.SimpleQueue()
        self.closed = False

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closed = True
        self._sampler.drop(self)

    def submit(self, groups: Iterable[Group]) -> None:
        self._sampler.enqueue([self._sampler.job(self, group) for group in groups])

    def take(self, timeout: float) -> list[Drawn]:
        came: list[Drawn] = []
        try:
            item = self.finished.get(timeout=timeout)
            while True:
                if isinstance(item, BaseException):
                    if came:
                        self.finished.put(item)  # first what is there
                        return came
                    raise item
                came.append(item)
                item = self.finished.get_nowait()
        except queue.Empty:
            return came


class VllmSampler:
    """A context manager that holds the engine; see thresher.samplers.sampler.Sampler."""

    facts: EngineFacts

    def __init__(
        self,
        spec: VllmEngine,
        model: Model,
        *,
        prompt_format: str,
        quota: Quota,
        seeds: str,
        start: Callable[[], tuple[int, int]],
    ) -> None:
        taken = sorted(set(spec.options) & set(OURS))
        if taken:
            raise EngineError(f"engine.options.{taken[0]}: thresher sets this itself; take it out of the recipe")
        self._spec, self._model, self._format = spec, model, prompt_format
        self.quota, self._seeds, self._number_start = quota, seeds, start
        self._requests = count()
        self._engine: Any = None
        self._tokenising = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._guard = Guard()
        self._streams: set[_Stream] = set()
        # Touched by the loop's thread only.
        self._waiting: list[tuple[int, int, _Job]] = []
        self._flying: dict[_Job, asyncio.Task[None]] = {}
        self._ages = count()
        self._poison: dict[tuple[Message, ...], str] = {}
        self._deaths = 0
        self._restarting = self._suspected = False
        self._why_gone = "the engine was stopped"

    def __enter__(self) -> "VllmSampler":
        self._thread.start()
        self._watcher = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- the engine ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        set_environment(self._spec)
        try:
            warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
            import vllm
            from transformers import AutoTokenizer
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise EngineError(f"vLLM cannot be imported ({error}); install thresher[cpu] or, on a GPU, thresher[gpu]") from error
        options = {
            name: value
            for name in ("max_model_len", "max_num_seqs", "gpu_memory_utilization")
            if (value := getattr(self._spec, name)) is not None
        }
        number, self.seed = self._number_start()
        self._source = f"start {number}"
        try:
            arguments = AsyncEngineArgs(
                model=self._model.path,
                seed=self.seed,
                generation_config="vllm",
                dtype=dtype_for(self._spec.dtype),
                tensor_parallel_size=self._spec.tensor_parallel_size,
                enforce_eager=self._spec.enforce_eager,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **options,
                **self._spec.options,
            )
        except TypeError as error:
            raise EngineError(f"engine.options: {error}; see vLLM's engine arguments") from error

        async def build() -> Any:
            return AsyncLLM.from_engine_args(arguments)

        with self._guard.watching():
            try:
                config = arguments.create_engine_config()
                sequences = config.scheduler_config.max_num_seqs
                self._engine = asyncio.run_coroutine_threadsafe(build(), self._loop).result()
            except Exception as error:
                raise EngineError(f"vLLM would not start on {self._model.path}: {type(error).__name__}: {error}") from error
        self._sequences = sequences
        self._context = config.model_config.max_model_len
        self._tokenizer = AutoTokenizer.from_pretrained(self._model.path)
        has_template = getattr(self._tokenizer, "chat_template", None) is not None
        if self._format == "chat" and not has_template:
            raise EngineError(
                f"{self._model.name}: its tokenizer has no chat template, but model.prompt_format is chat; use text or auto"
            )
        self._per_sample = _seeds_per_sample(self._seeds)
        chat = "chat" if has_template and self._format != "text" else "text"
        self.facts = EngineFacts("vllm", vllm.__version__, sequences, chat, "raw")

    def close(self) -> None:
        """End the engine; streams that wait for it raise EngineError."""
        engine, self._engine = self._engine, None
        self._fail(EngineError("the engine was stopped"))
        if engine is not None:
            self._shut_down(engine)
        if self._thread.is_alive():
            self._watcher.cancel()
            self._loop.call_soon_threadsafe(self._end_tasks)
            self._thread.join(timeout=10)
        if not self._loop.is_running():
            self._loop.close()

    def _end_tasks(self) -> None:
        async def end() -> None:
            for task in list(self._flying.values()):
                task.cancel()
            await asyncio.gather(*self._flying.values(), return_exceptions=True)
            self._loop.stop()

        self._ending = self._loop.create_task(end())

    def _fail(self, error: Exception) -> None:
        """Let every stream raise."""
        for stream in list(self._streams):
            stream.finished.put(error)

    def _gone(self, error: EngineError) -> None:
        """There is no engine any more, and will be none."""
        self._why_gone, self._restarting = str(error), False
        self._fail(error)

    def _shut_down(self, engine: Any) -> None:
        """End an engine, dead or alive, and every process of its."""
        if engine.output_handler is not None:  # it would log the end of the engine as an error
            self._loop.call_soon_threadsafe(engine.output_handler.cancel)
        with suppress(Exception):
            engine.shutdown()
        self._guard.end()

    # -- sampling ------------------------------------------------------------------------------------------------------

    def stream(self, priority: int = 0) -> _Stream:
        if self._engine is None and not self._restarting:
            raise EngineError(self._why_gone)
        stream = _Stream(self, priority)
        self._streams.add(stream)
        return stream

    def drop(self, stream: _Stream) -> None:
        """Give up what a stream has in flight."""
        self._streams.discard(stream)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._drop, stream)

    def _drop(self, stream: _Stream) -> None:
        for job, task in self._flying.items():
            if job.stream is stream:
                task.cancel()

    def job(self, stream: _Stream, group: Group) -> _Job:
        tokens = self._tokens(group)
        return _Job(stream, group, tokens, len(tokens) + group.n * int(group.parameters["max_tokens"]))

    def enqueue(self, jobs: list[_Job]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._enqueue, jobs)
        except RuntimeError as error:  # the loop has ended
            raise EngineError(self._why_gone) from error

    def _enqueue(self, jobs: list[_Job]) -> None:
        for job in jobs:
            heapq.heappush(self._waiting, (job.stream.priority, next(self._ages), job))
        self._pump()

    def _pump(self) -> None:
        """Hand waiting groups to the engine while there is room."""
        while self._waiting and not self._restarting and self._engine is not None:
            if self._suspected and self._flying:
                return
            suspects = [item for item in self._waiting if item[2].deaths >= SUSPECT] if self._suspected else []
            self._suspected = bool(suspects)
            if not suspects and not self._fits(self._waiting[0][2]):
                return
            item = min(suspects) if suspects else heapq.heappop(self._waiting)
            if suspects:
                self._waiting.remove(item)
                heapq.heapify(self._waiting)
            job = item[2]
            if job.stream.closed:
                continue
            if (why := self._poison.get(job.group.messages)) is not None:
                job.stream.finished.put(Drawn(job.group.number, (), error=why))
                continue
            task = self._flying[job] = self._loop.create_task(self._run(job))
            task.add_done_callback(partial(self._landed, job))

    def _landed(self, job: _Job, _task: "asyncio.Task[None]") -> None:
        self._flying.pop(job, None)  # of a task that was cancelled before it began

    def _fits(self, job: _Job) -> bool:
        if not self._flying:
            return True
        bound = self._spec.tokens_in_flight or max(
            LEAST_TOKENS_IN_FLIGHT, self._sequences * int(job.group.parameters["max_tokens"])
        )
        return (
            sum(other.group.n for other in self._flying) + job.group.n <= 2 * self._sequences
            and sum(other.reserved for other in self._flying) + job.reserved <= bound
        )

    async def _run(self, job: _Job) -> None:
        engine = self._engine
        try:
            drawn = await self._draw(engine, job)
        except asyncio.CancelledError:
            self._flying.pop(job, None)
            if job.lost and not job.stream.closed:
                job.lost = False
                self._died(job, EngineError("the engine's process is gone"))
            elif job.stream.closed:
                self._pump()
            return
        except Exception as error:  # noqa: BLE001 - whatever vLLM raises, the stream is told
            self._flying.pop(job, None)
            if engine is self._engine and not getattr(engine, "errored", False):
                job.stream.finished.put(
                    error if isinstance(error, EngineError) else EngineError(f"vLLM: {type(error).__name__}: {error}")
                )
                self._pump()
            elif self._engine is not None or self._restarting:
                self._died(job, error)
            return
        self._flying.pop(job, None)
        self._deaths = 0
        job.stream.finished.put(drawn)
        self._pump()

    def _died(self, job: _Job, error: Exception) -> None:
        """The engine died with this group in flight: draw it again, alone the second time, and never after the third."""
        job.deaths += 1
        if job.deaths >= POISON:
            failure = f"{type(error).__name__}: {error}"
            why = f"the engine died {job.deaths} times while it sampled this prompt, the last time alone: {failure}"
            log.warning("a prompt is set aside as undecided: %s: %r", why, job.group.messages[-1].content[:80])
            self._poison[job.group.messages] = why
            job.stream.finished.put(Drawn(job.group.number, (), error=why))
        else:
            self._suspected = self._suspected or job.deaths >= SUSPECT
            heapq.heappush(self._waiting, (job.stream.priority, next(self._ages), job))
        if not self._restarting:
            self._restarting = True
            self._deaths += 1
            self._restart = self._loop.create_task(self._start_again(error))

    async def _watch(self) -> None:
        """AsyncLLM raises at once when its engine dies, but for a request that comes in the same moment: that would wait for
        ever."""
        late = 0
        while True:
            await asyncio.sleep(1)
            gone = self._engine is not None and (self._engine.errored or not self._guard.whole())
            late = late + 1 if gone and self._flying and not self._restarting else 0
            if late >= LATE_S:
                self._lose_flying()

    def _lose_flying(self) -> None:
        for job, task in self._flying.items():
            job.lost = True
            task.cancel()

    async def _start_again(self, error: Exception) -> None:
        late = self._loop.time() + LATE_S
        while self._flying:  # all of them raise now, or would wait for ever
            await asyncio.sleep(0.01)
            if self._loop.time() > late:
                self._lose_flying()
        dead, self._engine = self._engine, None
        if self._deaths > GIVE_UP_AFTER:
            last = f"{type(error).__name__}: {error}"
            self._gone(EngineError(f"the engine died {self._deaths} times in a row, at last with {last}"))
            return
        log.warning("the engine died (%s: %s); starting it again", type(error).__name__, error)

        def again() -> None:
            if dead is not None:
                self._shut_down(dead)
            self._start()

        try:
            await self._loop.run_in_executor(None, again)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the streams are told
            self._gone(failure if isinstance(failure, EngineError) else EngineError(f"vLLM would not start again: {failure}"))
            return
        self._restarting = False
        self._pump()

    async def _draw(self, engine: Any, job: _Job) -> Drawn:
        from vllm import TokensPrompt

        group, tokens = job.group, job.tokens
        if group.labels:
            return await self._choose(engine, job)
        guess = group.n * int(group.parameters["max_tokens"]) // 2
        hot = group.parameters["temperature"] > 0
        calibrated = hot and self.quota.take(self._source, guess)

        async def answer(n: int, seed: int | None) -> Sequence["CompletionOutput"]:
            final = None
            parameters = _parameters(group, n, seed, TOP_K if calibrated else 0)
            async for output in engine.generate(TokensPrompt(prompt_token_ids=tokens), parameters, str(next(self._requests))):
                final = output
            if final is None or len(final.outputs) != n:
                raise EngineError(f"asked for {n} completions, got {0 if final is None else len(final.outputs)}")
            return list(final.outputs)

        found: Sums | None = None
        drawn_tokens = 0
        seeds: list[int | None]
        try:
            if self._per_sample and hot:
                answers = await asyncio.gather(*(answer(1, seed) for seed in group.seeds))
                outputs, seeds = [output for one in answers for output in one], [*group.seeds]
            else:
                outputs = list(await answer(group.n, None))
                seeds = [None] * group.n
            completions = tuple(_completion(output, seed) for output, seed in zip(outputs, seeds, strict=True))
            if calibrated:
                found, drawn_tokens = nothing(), sum(len(output.token_ids) for output in outputs)
                for output in outputs:
                    flat = output.logprobs
                    found += sums(*from_flat((flat.token_ids, flat.logprobs, flat.start_indices), TOP_K))
        finally:
            if calibrated:
                self.quota.back(self._source, guess, drawn_tokens, found)
        return Drawn(group.number, completions, np.asarray(tokens, np.int32), self.seed, self._source, found)

    async def _choose(self, engine: Any, job: _Job) -> Drawn:
        """One of the group's labels: by their log-probabilities where each is one token, else by structured output."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        group, final = job.group, None
        ids = self._label_tokens(group.labels)
        wanted: dict[str, Any] = {"logprob_token_ids": [token for tokens in ids for token in tokens], "max_tokens": 1}
        if not all(ids):
            longest = max(len(self._tokenizer.encode(label, add_special_tokens=False)) for label in group.labels)
            choice = StructuredOutputsParams(choice=list(group.labels))
            wanted = {"structured_outputs": choice, "max_tokens": longest + 1}
        parameters = SamplingParams(**{**group.parameters, **wanted}, output_kind=RequestOutputKind.FINAL_ONLY)
        async for output in engine.generate(TokensPrompt(prompt_token_ids=job.tokens), parameters, str(next(self._requests))):
            final = output
        if final is None or not final.outputs:
            raise EngineError("asked for a label, got nothing")
        [answer] = final.outputs
        logprobs = None
        if all(ids):
            [given] = answer.logprobs
            each = [[given[token].logprob for token in tokens] for tokens in ids]
            logprobs = tuple(float(np.logaddexp.reduce(np.asarray(one, np.float64))) for one in each)
        completion = Completion(answer.text, answer.finish_reason, label_logprobs=logprobs)
        return Drawn(group.number, (completion,), np.asarray(job.tokens, np.int32), self.seed, self._source)

    def _label_tokens(self, labels: tuple[str, ...]) -> list[list[int]]:
        """For each label the tokens that are it, with and without a space before; none where it takes several tokens."""
        with self._tokenising:
            found = []
            for label in labels:
                each = [self._tokenizer.encode(text, add_special_tokens=False) for text in (label, f" {label}")]
                found.append(sorted({tokens[0] for tokens in each if len(tokens) == 1}))
            return found

    def _tokens(self, group: Group) -> list[int]:
        with self._tokenising:
            if self.facts.prompt_format == "chat":
                turns = [{"role": message.role, "content": message.content} for message in group.messages]
                text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
                tokens = self._tokenizer.encode(text, add_special_tokens=False)
            else:
                tokens = self._tokenizer.encode(plain_text(group.messages))
        if len(tokens) + group.parameters["max_tokens"] > self._context:
            raise SourceError(
                f"prompt {group.messages[-1].content[:60]!r}: {len(tokens)} tokens and sampling.max_tokens "
                f"{group.parameters['max_tokens']} do not fit the context of {self._context}; "
                "shorten the prompt, lower max_tokens or raise engine.max_model_len"
            )
        return list(tokens)


def _parameters(group: Group, n: int, seed: int | None, logprobs: int) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=n,
        seed=seed,
        logprobs=logprobs,  # 0 is the sampled token's own; enough for rewards and ratios
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **group.parameters,
    )


def _completion(output: "CompletionOutput", seed: int | None) -> Completion:
    token_ids = np.asarray(output.token_ids, np.int32)
    flat = output.logprobs  # FlatLogprobs, as asked for: of each position the sampled token comes first
    logprobs = np.asarray(flat.logprobs, np.float32)[np.asarray(flat.start_indices, np.int64)]
    if len(logprobs) != len(token_ids):
        raise EngineError(f"vLLM gave {len(logprobs)} log-probabilities for {len(token_ids)} tokens")
    stop = None if output.stop_reason is None else str(output.stop_reason)
    return Completion(output.text, output.finish_reason, stop, token_ids, logprobs, float(logprobs.sum(dtype=np.float64)), seed)


def _seeds_per_sample(wanted: str) -> bool:
    """Whether each completion gets a seed of its own. vLLM's CPU engine dies of one as soon as a seeded prompt is prefilled in
    pieces (it rewinds the generator, which CPU generators cannot), so it is seeded as a whole."""
    from vllm.platforms import current_platform

    if wanted == "sample" and current_platform.is_cpu():
        raise EngineError("sampling.seeds: vLLM's CPU engine dies of seeded requests under load; use auto or engine")
    return wanted == "sample" or (wanted == "auto" and not current_platform.is_cpu())


def dtype_for(wanted: str) -> str:
    """`auto` is the model's own precision, but float32 on a CPU without AVX-512: bfloat16 is emulated there, 8 times slower."""
    from vllm.platforms import current_platform

    if wanted == "auto" and current_platform.is_cpu():
        flags = Path("/proc/cpuinfo")
        if flags.exists() and "avx2" in (text := flags.read_text()) and "avx512f" not in text:
            return "float32"
    return wanted


def set_environment(spec: VllmEngine) -> None:
    """What vLLM reads from the environment, where the user has not set it already; it is read at vLLM's import."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # Read by the engine's processes, which would write to the terminal.
    noise = "ignore:resource_tracker:UserWarning,ignore::FutureWarning:vllm.triton_utils.dispatcher"
    os.environ.setdefault("PYTHONWARNINGS", noise)
    os.environ.setdefault("TORCH_LOGS", "-all")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # the front end needs no core of its own on a small machine
    if spec.enforce_eager:  # vLLM still compiles one small function, which wants a C++ compiler and 20 s at the first sample
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    if spec.kv_cache_gib is not None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(spec.kv_cache_gib))))
