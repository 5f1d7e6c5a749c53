"""The queue of one server: the requests it has, those that wait for it, and the groups they belong to."""

import asyncio
import heapq
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from schemas.finish_reasons import CONTENT_FILTER
from thresher.estimators.calibration import Sums, empty_sums
from thresher.samplers.finished import FinishedGroups
from thresher.samplers.http.answers import Answer
from thresher.samplers.http.endpoint import LOOKS, Endpoint
from thresher.samplers.http.protocol import Question
from thresher.samplers.sampler import Completion, Drawn, Group


@dataclass(eq=False)
class Job:
    """A group that is being drawn, all of it by one server, so that its samples have one source."""

    finished: FinishedGroups
    """Where the group goes when it is finished; identifies its stream."""
    group: Group
    rank: tuple[int, int]
    """The priority of the stream, then the order of submission."""
    lane: "Lane | None" = None
    completions: dict[int, Completion] = field(default_factory=dict)
    prompt_ids: NDArray[np.int32] | None = None
    tokens: int = 0
    expected_tokens: int = 0
    """Tokens that the group is expected to add to the calibration; 0 if it is not calibrated."""
    calibrations: list[Sums | None] = field(default_factory=list)
    masked_tokens: int = 0
    masked_whole: bool = False
    """Whether the server may have been made to draw any token, so that none is calibrated."""
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    over: bool = False

    def __lt__(self, other: "Job") -> bool:
        return self.rank < other.rank

    def add(self, answer: Answer, first: int) -> None:
        """Count an answer whose first completion is number `first` of the group."""
        self.completions.update(enumerate(answer.completions, first))
        self.prompt_ids = answer.prompt_ids
        self.calibrations.append(answer.calibration)
        self.tokens += answer.tokens
        self.masked_tokens += answer.masked

    @property
    def complete(self) -> bool:
        return len(self.completions) == self.group.n

    def drawn(self, source: str) -> Drawn:
        """Return the complete group, refused if the provider's policy withholds all completions. It is calibrated if all its
        answers were."""
        if all(completion.finish_reason == CONTENT_FILTER for completion in self.completions.values()):
            words = f"{source}: the provider's policy withholds each completion ({self.completions[0].stop_reason})"
            return Drawn(self.group.number, (), source=source, error=words, refused=True)
        parts = [part for part in self.calibrations if part is not None]
        calibrated = self.expected_tokens and len(parts) == len(self.calibrations)
        completions = tuple(self.completions[index] for index in range(self.group.n))
        sums = np.sum(parts, axis=0) if calibrated else None
        drawn = Drawn(self.group.number, completions, self.prompt_ids, None, source, sums, masked=self.masked_tokens)
        return replace(drawn, calibration=empty_sums(), masked=drawn.tokens) if self.masked_whole else drawn


@dataclass(eq=False)
class Request:
    """A question of a job, and how often it has failed."""

    job: Job
    question: Question
    tries: int = 0
    failures: float = 0.0
    failing_since: float = 0.0
    """When it failed first, by time.monotonic(); 0 if it did not."""
    suspected: bool = False
    """Whether the server answered another prompt after its last failure: then one more decides that it is the prompt."""

    def __lt__(self, other: "Request") -> bool:
        return (self.job.rank, self.question.first) < (other.job.rank, other.question.first)

    @property
    def longest_tokens(self) -> int:
        """Tokens of the answer if no completion ends early."""
        return self.question.n * int(self.question.group.parameters["max_tokens"])


class Lane:
    """The requests of one server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.in_flight: dict[Request, float] = {}
        """When each was sent, by time.monotonic()."""
        self.waiting: list[Request] = []
        self.tokens = 0
        """Tokens in flight, if no completion ends early."""
        self.mean_tokens = 0.0
        """Length of completions, a moving average; 0 while unknown."""
        self.checking = False
        """Whether the server is being asked if it is alive."""
        self.awake_at = 0.0
        """When this process last noticed that it had been stopped: silence before does not count."""

    @property
    def load(self) -> float:
        return self.tokens / self.endpoint.rate.limit

    @property
    def full(self) -> bool:
        return len(self.in_flight) >= int(self.endpoint.rate.limit)

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.in_flight)

    def add(self, job: Job, *, size: int) -> None:
        """Divide a group into requests of at most `size` completions."""
        job.lane = self
        for first in range(0, job.group.n, size):
            self.put(Request(job, Question(job.group, first, min(size, job.group.n - first), bool(job.expected_tokens))))

    def add_missing(self, request: Request, received: int) -> None:
        """Ask for the rest of a request to which the server gave fewer completions, in requests as large as its answer."""
        job, question = request.job, request.question
        end = question.first + question.n
        for first in range(question.first + received, end, received):
            self.put(Request(job, Question(question.group, first, min(received, end - first), question.calibrated)))

    def put(self, request: Request) -> None:
        heapq.heappush(self.waiting, request)

    def send(self, now: float) -> Request | None:
        """Take the next request and count it as in flight; None if its job is over."""
        request = heapq.heappop(self.waiting)
        if request.job.over:
            return None
        self.in_flight[request] = now
        self.tokens += request.longest_tokens
        return request

    def returned(self, request: Request) -> None:
        """Count a request as no longer in flight."""
        del self.in_flight[request]
        self.tokens -= request.longest_tokens

    def drop(self, job: Job) -> None:
        """Forget the waiting requests of a job."""
        self.waiting = [request for request in self.waiting if request.job is not job]
        heapq.heapify(self.waiting)

    def observe(self, answer: Answer) -> None:
        """Update the mean length of completions."""
        if answer.tokens:
            length = answer.tokens / len(answer.completions)
            self.mean_tokens = 0.9 * self.mean_tokens + 0.1 * length if self.mean_tokens else length

    def silent_s(self, now: float) -> float:
        """Return the seconds since the server last showed work or since the oldest request in flight, whichever is less; 0
        without a request."""
        return max(0.0, now - max(self.endpoint.worked_at, self.awake_at, min(self.in_flight.values(), default=now)))

    def due(self, now: float, limit_s: float) -> bool:
        """Return whether the server is to be checked: now and then while it is silent if it has counters, otherwise after
        `limit_s` of silence."""
        counters = self.endpoint.counters
        if self.checking or not self.endpoint.up:
            return False
        if not counters.believed:
            return self.silent_s(now) > limit_s
        return min(self.silent_s(now), now - counters.looked_at) > limit_s / LOOKS
