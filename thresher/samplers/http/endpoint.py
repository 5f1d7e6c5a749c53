"""One OpenAI-compatible server: what it understands, whether it answers, how many requests it gets, and how its errors are read.

All methods run on the event loop of the sampler.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any
from urllib.parse import urlsplit

import orjson

from schemas.manifest import ServerClaims
from schemas.sample import Message
from schemas.suggest import did_you_mean
from thresher.errors import EngineError, SourceError
from thresher.samplers.declared import free_tokens
from thresher.samplers.http import dialects
from thresher.samplers.http.addresses import host_and_port
from thresher.samplers.http.claims import ChangedServerError, read_claims
from thresher.samplers.http.connection import ApiKey, AttemptError, Connection
from thresher.samplers.http.counters import WorkCounters, read_counters
from thresher.samplers.http.dialects import OPENAI, Form, adapted, dialect_of, refusals
from thresher.samplers.http.protocol import (
    Answer,
    Question,
    Response,
    Service,
    Tokenised,
    label_logprobs,
    likeliest_asked,
    prompt_body,
    read_answer,
    request_body,
    seed_of,
    unsupported_fields,
)
from thresher.samplers.sampler import Group

log = logging.getLogger(__name__)

FIRST_LIMIT = 8.0
"""Concurrent requests that a new server gets."""
INLINE_BYTES = 1 << 20
"""Larger answers are read in a thread; for smaller ones a thread costs more than reading them."""
GREETING_S = 60.0
LOOKS = 4
"""Readings of a server's counters in the time after which it is left."""
RECHECK_S = 60.0
"""A server in use is greeted again after so long: its weights may be changed without a broken connection."""
IDLE_S = 1.0
"""A server that had nothing to do for so long is greeted again: no broken connection would show that it was started again."""


class RateLimit:
    """How many concurrent requests a server gets.

    The limit doubles with each round of answers until the server first refuses work; after that it rises by 1 per round. Each
    refusal halves it, once for all requests that were in flight at that time. Times are those of time.monotonic().
    """

    def __init__(self, most: float) -> None:
        self.most, self.limit = most, min(FIRST_LIMIT, most)
        self.paused_until = 0.0
        self._shrunk_at = -1.0

    def grow(self) -> None:
        """Count a correct answer."""
        step = 1.0 if self._shrunk_at < 0 else 1 / self.limit
        self.limit = min(self.most, self.limit + step)

    def shrink(self, sent_at: float, now: float) -> None:
        """Count a refusal of a request sent at `sent_at`."""
        if sent_at > self._shrunk_at:
            self.limit, self._shrunk_at = max(1.0, self.limit / 2), now

    def pause(self, until: float) -> None:
        """Send nothing until then."""
        self.paused_until = max(self.paused_until, until)


class Endpoint:
    """A server and the connections to it."""

    def __init__(self, url: str, service: Service, key: ApiKey) -> None:
        self.url, self.source = url, host_and_port(url)
        self.rate = RateLimit(service.spec.requests_in_flight)
        self.form = Form(OPENAI)
        self.version, self.context = "", 0
        self.up, self.changed, self.trouble, self.cuts = False, False, "", 0
        self.counters = WorkCounters()
        self._stalled: tuple[Group, str] | None = None
        self.patience_s = service.spec.silent_s
        """Seconds without a token after which the server is left. Doubles each time, because its steps may be slow, as on a CPU
        that reads long prompts."""
        self._service, self._key = service, key
        self._greeted_at, self._greeting, self._in_flight = -inf, asyncio.Lock(), 0
        self._connection = Connection(url, service.spec, key)
        self._warned = set[str]()

    @property
    def heard_at(self) -> float:
        """When the server last answered anything, by time.monotonic()."""
        return self._connection.heard_at

    @property
    def worked_at(self) -> float:
        """When the server last showed work: when it made or read tokens or sent part of a completion, if it has counters;
        otherwise when it answered anything."""
        return max(self.counters.moved_at, self._connection.received_at) if self.counters.believed else self.heard_at

    async def close(self) -> None:
        await self._connection.close()

    # -- whether it answers --------------------------------------------------------------------------------------------

    async def greet(self) -> None:
        """Read what the server serves and which dialect it has. A server that was left because it made no token must make one.
        Raises EngineError if it is unusable, AttemptError if it may become usable."""
        response = await self._connection.get(f"{self.url}/models", GREETING_S)
        if response.status in dialects.KEY_REFUSED:
            raise self._key.refused(self.url, response.status)
        if response.status == 429 or response.status >= 500:
            raise AttemptError("busy", f"status {response.status}")
        try:
            cards = {card["id"]: card for card in response.json()["data"]}
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"{self.url}/models: wanted a list of models, found status {response.status} and "
                f"{self._key.hide(response.text)[:80]!r}; engine.base_urls are the roots of the API, which mostly end in /v1"
            ) from error
        model = self._service.model
        if model not in cards:
            hint = did_you_mean(model, cards, cutoff=0.0)
            raise EngineError(f"{self.url} does not serve {model}, only {', '.join(sorted(cards)) or 'nothing'}{hint}")
        card = cards[model]
        dialect = dialect_of(card.get("owned_by"), self._service.spec.extensions)
        self.context = card.get("max_model_len") or 0
        if self.form.dialect not in (dialect, dialect.fallback):  # what the server has refused stays refused
            self.form = replace(self.form, dialect=dialect)
        version = await self._from_root(dialect.version_path, "version")
        self.version = dialect.version if version is None else f"{dialect.version} {version}"
        claims = read_claims(card, self.version, await self._from_root(dialect.weights_path, "weight_version"))
        await self._compare(claims)
        self._greeted_at = time.monotonic()
        self.counters = WorkCounters()
        await self.look()
        if self._stalled is not None:
            await self._make_a_token(*self._stalled)
        self.up, self.changed, self.cuts, self._stalled = True, False, 0, None

    def stall(self, group: Group, trouble: str) -> None:
        """Note that the server made no token while it had a group: it is up again once it makes one."""
        self._stalled, self.trouble = (group, trouble), trouble
        spec = self._service.spec
        self.patience_s = max(self.patience_s, min(2 * self.patience_s, spec.give_up_after_s))

    async def _make_a_token(self, group: Group, trouble: str) -> None:
        with suppress(TimeoutError):  # a question that waits is answered as soon as the engine works
            if await asyncio.wait_for(self.works(group), self._service.spec.give_up_after_s):
                return
        raise AttemptError("failed", trouble)

    async def look(self) -> bool:
        """Read the counters of the server, and return whether they tell if it works."""
        if names := self.form.dialect.work_counters:
            address, received = f"{self.url.removesuffix('/v1')}/metrics", self.counters.received
            try:
                response = await self._connection.get(address, self._service.spec.silent_s / LOOKS)
            except AttemptError:
                return False
            values = read_counters(response.content, names) if response.status == 200 else None
            self.counters.look(values, received, time.monotonic())
        return self.counters.believed

    async def _from_root(self, path: str | None, name: str) -> Any:
        """A value of the JSON object at a path from the server's root; None if there is none."""
        if path is None:
            return None
        parts = urlsplit(self.url)
        with suppress(AttemptError, ValueError, AttributeError):
            response = await self._connection.get(f"{parts.scheme}://{parts.netloc}{path}", GREETING_S)
            return response.json().get(name) if response.status == 200 else None
        return None

    async def _compare(self, claims: ServerClaims) -> None:
        """Raise ChangedServerError if the server has another model now, EngineError for an adapter of another base model."""
        base = self._service.base_model
        if base is not None and claims.parent not in (None, base):
            raise EngineError(
                f"{self.url}: {claims.model} is an adapter of {claims.parent}, not of {base}; set model.name to "
                f"{claims.parent}, or model.adapter to an adapter of it"
            )
        if differing := await asyncio.to_thread(self._service.note, self.source, claims):
            raise ChangedServerError(
                f"{self.source} serves another model as {claims.model} than the one that samples of this run were drawn from: "
                f"{'; '.join(differing)}; start it with the earlier model, or start another run with --out"
            )

    async def _make_sure(self) -> None:
        """Greet the server again if it may have another model since it was greeted."""
        now = time.monotonic()
        idle = not self._in_flight and now - self.heard_at > IDLE_S
        if not idle and now - self._greeted_at <= RECHECK_S:
            return
        async with self._greeting:
            if self._greeted_at < now:
                cuts = self.cuts
                await self.greet()
                self.cuts = cuts  # only a completion shows that it works

    async def answers(self, attempts: int, pause_s: float) -> bool:
        """Ask a silent server whether it is alive, several times. Any answer counts, also one to a request in flight; so does a
        server that is already out."""
        since = self.heard_at
        for attempt in range(attempts):
            await asyncio.sleep(pause_s if attempt else 0)
            if not self.up:
                return True
            try:
                await self._connection.get(f"{self.url}/models", self._service.spec.silent_s)
            except AttemptError as error:
                silence_s = time.monotonic() - since
                self.trouble = f"no answer for {silence_s:.0f} s, nor to GET /models: {error}"
            if self.heard_at > since or not self.up:
                return True
        return False

    # -- requests ------------------------------------------------------------------------------------------------------

    async def ask(self, question: Question) -> Answer:
        """Return the server's answer. Raises AttemptError, or EngineError or SourceError if repeating the request is useless."""
        while True:
            form = self.form
            response = await self._post(question)
            if response.status == 200:
                break
            if self.form == form:  # otherwise another request has changed the form meanwhile
                self._adapt(question, response)
        answer = await self._read(question, response, form)
        self.counters.received += answer.tokens
        self.rate.grow()
        self.cuts = 0
        return answer

    async def tokenise(self, group: Group) -> Tokenised | None:
        """Return the prompt of a group as the server reads it; None if the server does not tell. Raises AttemptError, and
        SourceError with the server's words for a prompt that it refuses."""
        if not self.form.dialect.tells_tokens:
            return None
        body = prompt_body(group, self._service, self.form)
        root = "{0.scheme}://{0.netloc}".format(urlsplit(self.url))
        response = await self._connection.post(f"{root}/tokenize", orjson.dumps(body))
        if response.status in dialects.REQUEST_REFUSED:
            raise SourceError(self._key.hide(response.message))
        try:
            answer = response.json()
            ids, context = answer["tokens"], int(answer["max_model_len"])
        except (ValueError, KeyError, TypeError):
            return None
        body = {"model": self._service.model, "tokens": ids}
        response = await self._connection.post(f"{root}/detokenize", orjson.dumps(body))
        text = None
        with suppress(ValueError, KeyError, TypeError):
            text = str(response.json()["prompt"])
        return Tokenised(len(ids), text, context)

    async def works(self, group: Group) -> bool:
        """Return whether the server answers a short request with the parameters of a group on which it fails."""
        parameters = {**group.parameters, "max_tokens": 1}
        short = replace(group, messages=(Message("user", "Hello"),), n=1, parameters=parameters)
        try:
            response = await self._post(Question(short, 0, 1))
        except (AttemptError, ChangedServerError):
            return False
        return response.status == 200

    def count_failure(self, failure: AttemptError, sent_at: float, now: float) -> None:
        """Adjust the rate after a failed request."""
        self.trouble = str(failure)
        if failure.kind != "failed":
            self.rate.shrink(sent_at, now)
        self.cuts = self.cuts + 1 if failure.kind == "cut" else 0
        if failure.kind == "cut":  # it may have been started again, with another model
            self._greeted_at = -inf

    async def _post(self, question: Question) -> Response:
        if unsupported := unsupported_fields(question.group, self.form):
            name = unsupported[0]
            raise EngineError(
                f"sampling.{name}: {self.url} has no such field, so {question.group.parameters[name]} cannot be sent; remove it "
                "from the recipe, or set engine.extensions to vllm if the server supports it"
            )
        await self._make_sure()
        body = orjson.dumps(request_body(question, self._service, self.form))
        self._in_flight += 1
        try:
            return await self._connection.post(self.url + self._service.path, body)
        finally:
            self._in_flight -= 1

    async def _read(self, question: Question, response: Response, form: Form) -> Answer:
        group = question.group
        asked = likeliest_asked(question, self._service.spec, form) if question.calibrated and form.top_logprobs else 0
        kept, free = group.keep_top, free_tokens(group.parameters)
        seed = seed_of(question, self._service, form)
        read = partial(read_answer, n=question.n, top_logprobs=asked, seed=seed, keep=kept, free=free)
        try:
            if len(response.content) < INLINE_BYTES:
                answer = read(response.content)
            else:
                answer = await asyncio.to_thread(read, response.content)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise AttemptError("failed", f"an answer that cannot be read: {type(error).__name__}: {error}"[:300]) from error
        if group.labels:
            labelled = replace(answer.completions[0], label_logprobs=label_logprobs(response.content, group.labels))
            return replace(answer, completions=(labelled,), calibration=None)
        if self.form.logprobs and answer.completions[0].logprobs is None:
            self._warn("gives no log-probabilities; its samples have none and are not calibrated")
        if kept and any(completion.top_ids is None for completion in answer.completions):
            raise EngineError(
                f"{self.url} does not list the {kept} likeliest tokens of each position by their ids; lower "
                "sampling.keep_top_logprobs, start the server with a larger --max-logprobs, or remove it from the recipe"
            )
        self._check_lengths(group, answer)
        if question.calibrated and answer.calibration is None and self.form.top_logprobs:
            self.form = replace(self.form, top_logprobs=0)
            self._warn("gives too few top log-probabilities, so its samples are not calibrated")
        return answer

    def _check_lengths(self, group: Group, answer: Answer) -> None:
        """Raise an error if the server cut completions below max_tokens."""
        longest = group.parameters["max_tokens"]
        if self.context and answer.prompt_ids is not None and len(answer.prompt_ids) + longest > self.context:
            raise _too_long(group, f"{len(answer.prompt_ids)} tokens", f"the context of {self.context}")
        if not self.form.dialect.cuts_max_tokens:
            return
        for completion in answer.completions:
            ids = completion.token_ids
            if completion.finish_reason == "length" and ids is not None and len(ids) < longest:
                raise EngineError(
                    f"{self.url} cut a completion at {len(ids)} tokens instead of sampling.max_tokens {longest}; start it "
                    "without max_new_tokens in its generation config, or lower sampling.max_tokens"
                )

    def _adapt(self, question: Question, response: Response) -> None:
        """Change the form of requests after a refusal. Raises the error of a response for which there is no other form."""
        status, message = response.status, self._key.hide(response.message)
        if status in dialects.BUSY:
            raise AttemptError("busy", f"status {status}: {message}", response.wait_s)
        if status >= 500:
            raise AttemptError("failed", f"status {status}: {message}", response.wait_s)
        if status in dialects.KEY_REFUSED:
            raise self._key.refused(self.url, status)
        spec = self._service.spec
        for refused in refusals(message) if status in dialects.REQUEST_REFUSED else ():
            if refused == "length":
                raise _too_long(question.group, "its tokens", f"the server ({message})")
            change = adapted(self.form, refused, api=spec.api, extensions=spec.extensions, calibrated=question.calibrated)
            if change is not None:
                self.form, warning = change
                if warning is not None:
                    self._warn(f"{warning} ({message})")
                return
        hint = "; it no longer serves the model" if status == dialects.MODEL_MISSING else ""
        raise EngineError(f"{self.url}{self._service.path}: status {status}: {message}{hint}")

    def _warn(self, message: str) -> None:
        """Log a message once, whatever the server's words in parentheses."""
        if (topic := message.partition(" (")[0]) not in self._warned:
            self._warned.add(topic)
            log.warning("%s %s", self.url, message)


def _too_long(group: Group, tokens: str, context: str) -> SourceError:
    return SourceError(
        f"prompt {group.messages[-1].content[:60]!r}: {tokens} and sampling.max_tokens {group.parameters['max_tokens']} do not "
        f"fit {context}; shorten the prompt, lower max_tokens or start the server with a longer context"
    )
