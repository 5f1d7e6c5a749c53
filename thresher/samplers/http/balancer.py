"""Shares the groups of all streams among the servers of a model.

A group is divided into requests to one server, so that its samples have one source; if the server dies, another one draws the
whole group again. A free server takes the group with the smallest rank. Failed requests are repeated; no part of a failed answer
is kept.
"""

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from operator import attrgetter
from pathlib import Path

from thresher.errors import EngineError, ThresherError
from thresher.estimators.calibration import Quota, Sums
from thresher.samplers.declared import forces_all
from thresher.samplers.finished import FinishedGroups
from thresher.samplers.http.addresses import server_urls
from thresher.samplers.http.answers import Answer
from thresher.samplers.http.claims import GREETING_S, ChangedServerError
from thresher.samplers.http.connection import ApiKey, AttemptError, PromptRefusedError, Waits
from thresher.samplers.http.endpoint import Endpoint
from thresher.samplers.http.lanes import Job, Lane, Request
from thresher.samplers.http.protocol import Service, Tokenised
from thresher.samplers.sampler import Drawn, EngineFacts, Group
from thresher.samplers.token_watch import stalled

log = logging.getLogger(__name__)

CUTS = 3
"""Broken connections in a row after which a server is taken out; also the number of questions a silent server may ignore."""
FAILURES = 3
"""Weighted failures of one request after which it is given up, if the server answers another."""
BUSY_TRIES = 4
"""Failures of a request, of whatever weight, after which it is given up likewise if it fails for half of give_up_after_s."""
WEIGHTS = {"failed": 1.0, "cut": 0.2, "busy": 0.0}


class Balancer:
    """The queue of a sampler. `open`, `leave` and `end` may be called from any thread, all other methods on the event loop."""

    facts: EngineFacts

    def __init__(self, service: Service, key: ApiKey, *, base: Path, quota: Quota, waits: Waits) -> None:
        self._service, self._spec, self._key, self._base = service, service.spec, key, base
        self._quota, self._waits = quota, waits
        self._urls = server_urls(self._spec, base)
        self._lanes: list[Lane] = []
        self._streams = set[FinishedGroups]()
        self._jobs = set[Job]()
        self._waiting: list[Job] = []
        self._order, self._hopeless_s = count(), 0.0
        self.ended: EngineError | None = None

    # -- streams -------------------------------------------------------------------------------------------------------

    def open(self, stream: FinishedGroups) -> None:
        """Accept groups of a stream."""
        if self.ended is not None:
            raise EngineError(str(self.ended))
        self._streams.add(stream)

    def leave(self, stream: FinishedGroups) -> None:
        """Accept no more groups of a stream."""
        self._streams.discard(stream)

    def end(self, error: EngineError) -> None:
        """Accept no more groups; all streams raise the error."""
        self.ended = self.ended or error
        for stream in list(self._streams):
            stream.put(self.ended)

    def submit(self, stream: FinishedGroups, priority: int, groups: list[Group]) -> None:
        """Queue groups."""
        if stream in self._streams:
            for group in groups:
                self._queue(Job(stream, group, (priority, next(self._order))))
            self._fill()

    def cancel(self, stream: FinishedGroups) -> None:
        """Give up all groups of a stream."""
        for job in [job for job in self._jobs if job.finished is stream]:
            self._finish(job)
        self._waiting = [job for job in self._waiting if not job.over]
        heapq.heapify(self._waiting)

    def _fail(self, stream: FinishedGroups, error: ThresherError) -> None:
        self.cancel(stream)
        stream.put(error)

    # -- the servers ---------------------------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled; `ready` is called once a server can be used. Raises EngineError if there is none."""
        async with AsyncExitStack() as self._connections:
            for url in self._urls:
                self._add(url)
            await self._greet_all()
            async with asyncio.TaskGroup() as self._tasks:
                for lane in self._lanes:
                    if not lane.endpoint.up:
                        self._tasks.create_task(self._probe(lane))
                self._tasks.create_task(self._watch())
                if self._spec.fleet is not None or self._spec.every_address:
                    self._tasks.create_task(self._follow_list())
                ready()

    def _add(self, url: str) -> Lane:
        lane = Lane(Endpoint(url, self._service, self._key))
        self._connections.push_async_callback(lane.endpoint.close)
        self._lanes.append(lane)
        return lane

    async def _greet_all(self) -> None:
        """Greet all servers. Continues with those that answer, if there is one."""
        failures: dict[str, str] = {}
        greetings = (asyncio.wait_for(lane.endpoint.greet(), 2 * GREETING_S) for lane in self._lanes)
        results = await asyncio.gather(*greetings, return_exceptions=True)
        for lane, result in zip(self._lanes, results, strict=True):
            if isinstance(result, AttemptError | TimeoutError):
                failures[lane.endpoint.url] = str(result) or f"no answer for {2 * GREETING_S:g} s"
            elif isinstance(result, BaseException):
                raise result
        if len(failures) == len(self._lanes):
            asked, path = ("GET", "/models") if self._spec.check == "models" else ("POST", self._service.path)
            tried = "; ".join(f"{asked} {url}{path}: {reason}" for url, reason in failures.items())
            where = "engine.base_urls" if self._spec.fleet is None else self._base / self._spec.fleet
            raise EngineError(f"no server can be reached ({tried}); start it, or correct {where}")
        for url, reason in failures.items():
            log.warning("%s cannot be reached (%s); continuing without it, and trying again", url, reason)
        up = [lane.endpoint for lane in self._lanes if lane.endpoint.up]
        kinds = {endpoint.logprobs_kind for endpoint in up}
        self.facts = EngineFacts(
            "openai_http",
            ", ".join(sorted({endpoint.version for endpoint in up})),
            self._spec.requests_in_flight * self._spec.completions_per_request * len(self._lanes),
            "chat" if self._spec.api == "chat" else "text",
            kinds.pop() if len(kinds) == 1 else "unknown",
            min((endpoint.context for endpoint in up if endpoint.context), default=0),
        )

    async def _follow_list(self) -> None:
        """Read the list of servers again and again, and add new ones. A server that is no longer listed is used as long as it
        answers."""
        while True:
            await asyncio.sleep(self._waits.list_s)
            try:
                self._urls = await asyncio.to_thread(server_urls, self._spec, self._base)
            except EngineError as error:  # a name server or a disk may fail for a while
                log.info("%s", error)
                continue
            known = {lane.endpoint.url for lane in self._lanes}
            for url in self._urls:
                if url not in known:
                    self._tasks.create_task(self._probe(self._add(url)))

    async def _probe(self, lane: Lane) -> None:
        """Greet a server until it answers or is no longer listed."""
        endpoint = lane.endpoint
        while not endpoint.up:
            await asyncio.sleep(random.uniform(self._waits.probe_s / 2, self._waits.probe_s))
            if endpoint.url not in self._urls and lane.idle:
                log.info("%s is no longer listed and does not answer; it is not tried again", endpoint.url)
                self._lanes.remove(lane)
                await endpoint.close()
                return
            try:
                await endpoint.greet()
            except (AttemptError, EngineError) as error:
                self._note_trouble(endpoint, error)
        log.warning("%s answers%s", endpoint.url, " again" if endpoint.trouble else "")
        self._fill()

    def _note_trouble(self, endpoint: Endpoint, error: AttemptError | EngineError) -> None:
        """Note why a server cannot be used. If all have another model now, nothing can be drawn until somebody acts."""
        if isinstance(error, ChangedServerError) and endpoint.trouble != str(error):
            log.warning("%s", error)
        endpoint.trouble, endpoint.changed = str(error), isinstance(error, ChangedServerError)
        if isinstance(error, ChangedServerError) and all(lane.endpoint.changed for lane in self._lanes):
            self.end(error)

    async def _check(self, lane: Lane) -> None:
        """Check whether a silent server works. If it does not, other servers draw its groups: a stopped process, or a machine
        behind a broken switch, closes no connection, and an engine that hangs leaves its server answering."""
        endpoint = lane.endpoint
        counted = await endpoint.look()
        silent_s = lane.silent_s(time.monotonic())
        if endpoint.up and silent_s > (endpoint.patience_s if counted else self._spec.silent_s):
            if counted:
                endpoint.stall(next(iter(lane.in_flight)).job.group, stalled(silent_s, len(lane.in_flight)))
                self._leave(lane, "answers, but makes no token")
            elif not await endpoint.answers(CUTS, self._waits.probe_s):
                self._leave(lane, "does not answer")
        lane.checking = False

    def _leave(self, lane: Lane, what: str) -> None:
        """Take a server out, and draw its groups elsewhere."""
        self._take_out(lane, what, lane.endpoint.trouble)
        for job in {request.job for request in lane.in_flight if not request.job.over}:
            self._draw_elsewhere(job)

    def _take_out(self, lane: Lane, what: str, reason: str) -> None:
        """Send a server nothing until it answers again."""
        lane.endpoint.up = False
        seeded = self._service.seeded and lane.endpoint.form.dialect.seeds_each_choice
        hint = "; seeded requests kill vLLM's CPU engine: set sampling.seeds to engine" if seeded else ""
        log.warning("%s %s (%s); it is tried again%s", lane.endpoint.url, what, reason, hint)
        self._tasks.create_task(self._probe(lane))

    async def _watch(self) -> None:
        """Check servers that are silent for long, and give up when none has answered for long. Time in which a server works on a
        request does not count."""
        patience_s = self._spec.give_up_after_s / 10
        step_s = min(1.0, patience_s, self._spec.silent_s / 10)
        now = time.monotonic()
        while True:
            await asyncio.sleep(step_s)
            before, now = now, time.monotonic()
            for lane in self._lanes:
                if now - before > step_s + self._spec.silent_s / 2:  # this process was stopped, and heard nothing meanwhile
                    lane.awake_at = now
                if lane.due(now, self._spec.silent_s):
                    lane.checking = True
                    self._tasks.create_task(self._check(lane))
            sent = [sent_at for lane in self._lanes for sent_at in lane.in_flight.values()]
            working = bool(sent) and min(sent) < time.monotonic() - patience_s
            self._hopeless_s = 0.0 if not self._jobs else self._hopeless_s + (0.0 if working else step_s)
            if self._hopeless_s >= self._spec.give_up_after_s:
                self._hopeless_s = 0.0
                self._give_up()

    def _give_up(self) -> None:
        """Let all streams that wait for a server raise an error."""
        endpoints = [lane.endpoint for lane in self._lanes]
        troubles = "; ".join(f"{endpoint.url}: {endpoint.trouble}" for endpoint in endpoints if endpoint.trouble)
        error = EngineError(
            f"no server has answered for {self._spec.give_up_after_s:g} s ({troubles}); finished samples are kept, run again to "
            "continue"
        )
        for stream in {job.finished for job in self._jobs}:
            self._fail(stream, error)

    async def tokenise(self, group: Group) -> Tokenised | None:
        """Return the prompt of a group as the first server that answers reads it. See Endpoint.tokenise."""
        endpoint = next(lane.endpoint for lane in self._lanes if lane.endpoint.up)
        return await endpoint.tokenise(group)

    # -- from the queue to a server ------------------------------------------------------------------------------------

    def _queue(self, job: Job) -> None:
        self._jobs.add(job)
        heapq.heappush(self._waiting, job)

    def _fill(self) -> None:
        """Send what there is room for: the smallest rank first, to the server with the smallest load."""
        if self.ended is not None:
            return
        now = time.monotonic()
        up = [lane for lane in self._lanes if lane.endpoint.up]
        if 0 < len(up) < len(self._lanes):
            for job in self._stranded():
                self._draw_elsewhere(job)
        ready = [lane for lane in up if lane.endpoint.rate.paused_until <= now]
        while ready:
            lane = min(ready, key=attrgetter("load"))
            if lane.full or not (lane.waiting or self._waiting):
                ready.remove(lane)
            elif lane.waiting and not (self._waiting and self._waiting[0].rank < lane.waiting[0].job.rank):
                if (request := lane.send(now)) is not None:
                    task = self._tasks.create_task(self._ask(lane, request))
                    request.job.tasks.add(task)
                    task.add_done_callback(request.job.tasks.discard)
            else:
                job = heapq.heappop(self._waiting)
                if not job.over:
                    self._place(lane, job)

    def _stranded(self) -> set[Job]:
        """Return the jobs with requests that wait for a server that is out."""
        return {request.job for lane in self._lanes if not lane.endpoint.up for request in lane.waiting}

    def _place(self, lane: Lane, job: Job) -> None:
        """Give a group to a server, and decide whether it is calibrated."""
        form, parameters = lane.endpoint.form, job.group.parameters
        greedy = parameters["temperature"] == 0
        job.masked_whole = not greedy and forces_all(parameters) and not self._quota.off
        if not greedy and not forces_all(parameters) and form.top_logprobs and form.logprobs:
            expected = max(1, round(job.group.n * (lane.mean_tokens or parameters["max_tokens"])))
            job.expected_tokens = expected if self._quota.take(lane.endpoint.source, expected) else 0
        # vLLM refuses n > 1 in a greedy request.
        single = greedy or (self._service.seeded and not form.dialect.seeds_each_choice)
        most = self._spec.completions_per_request
        lane.add(job, size=1 if single else min(most, form.most_choices or most))

    def _finish(self, job: Job, sums: Sums | None = None) -> None:
        """Forget a job; `sums` is its calibration if it is complete."""
        job.over = True
        self._jobs.discard(job)
        for task in job.tasks - {asyncio.current_task()}:
            task.cancel()
        if job.lane is not None:
            if job.expected_tokens:
                self._quota.settle(job.lane.endpoint.source, job.expected_tokens, job.tokens - job.masked_tokens, sums)
            job.lane.drop(job)

    def _draw_elsewhere(self, job: Job) -> None:
        """Draw a whole group again, on any server."""
        self._finish(job)
        self._queue(Job(job.finished, job.group, job.rank))

    # -- one request ---------------------------------------------------------------------------------------------------

    async def _ask(self, lane: Lane, request: Request) -> None:
        try:
            answer = await lane.endpoint.ask(request.question)
        except AttemptError as failure:
            await self._retry(lane, request, failure)
        except PromptRefusedError as error:
            self._give_back(request.job, Drawn(request.job.group.number, (), error=str(error), refused=error.lasting))
        except ChangedServerError as error:
            self._draw_elsewhere(request.job)
            self._leave_changed(lane, error)
        except ThresherError as error:
            self._fail(request.job.finished, error)
        else:
            self._keep(lane, request, answer)
        finally:
            lane.returned(request)
            self._fill()

    def _leave_changed(self, lane: Lane, error: ChangedServerError) -> None:
        """Ask a server that has another model now for nothing more."""
        endpoint = lane.endpoint
        for job in {request.job for request in lane.in_flight if not request.job.over}:
            self._draw_elsewhere(job)
        if endpoint.up:
            endpoint.up = False
            self._note_trouble(endpoint, error)
            self._tasks.create_task(self._probe(lane))

    def _keep(self, lane: Lane, request: Request, answer: Answer) -> None:
        job, received = request.job, len(answer.completions)
        self._hopeless_s = 0.0
        lane.observe(answer)
        job.add(answer, request.question.first)
        lane.add_missing(request, received)
        if job.complete:
            drawn = job.drawn(lane.endpoint.source)
            self._finish(job, drawn.calibration)
            job.finished.put(drawn)

    def _give_back(self, job: Job, failed: Drawn) -> None:
        """Finish a group that cannot be drawn."""
        source = "" if job.lane is None else job.lane.endpoint.source
        self._hopeless_s = 0.0
        self._finish(job)
        job.finished.put(replace(failed, source=source))

    async def _retry(self, lane: Lane, request: Request, failure: AttemptError) -> None:
        """Repeat a request after the time that the server asks for, or after a random time that doubles (full jitter)."""
        now, endpoint, job = time.monotonic(), lane.endpoint, request.job
        endpoint.count_failure(failure, lane.in_flight[request], now)
        if endpoint.cuts >= CUTS and endpoint.up:
            self._take_out(lane, "does not answer", str(failure))
        request.failures += WEIGHTS[failure.kind]
        request.failing_since = request.failing_since or now
        request.tries += 1
        # Whoever is busy may be busy for one prompt only.
        for_long = request.tries >= BUSY_TRIES and now - request.failing_since > self._spec.give_up_after_s / 2
        if request.failures >= FAILURES or for_long:
            works = await endpoint.works(job.group)
            if works and request.suspected:  # otherwise it may have begun to work just now
                error = f"{endpoint.source} fails on this prompt each time, and not on others: {failure}"
                self._give_back(job, Drawn(job.group.number, (), error=error))
                return
            request.suspected = works
        most_s = min(self._waits.longest_retry_s, self._spec.give_up_after_s / 10)
        longest_s = min(most_s, self._waits.first_retry_s * 2 ** min(request.tries, 10))
        wait_s = min(failure.wait_s, self._spec.give_up_after_s)  # a server may ask for a year
        delay_s = max(wait_s, random.uniform(0, longest_s))
        if wait_s:
            endpoint.rate.pause(now + wait_s)
        asyncio.get_running_loop().call_later(delay_s, self._send_again, lane, request)

    def _send_again(self, lane: Lane, request: Request) -> None:
        if not request.job.over:
            lane.put(request)
        self._fill()
