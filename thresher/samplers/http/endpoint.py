"""One OpenAI-compatible server: what it understands, whether it answers, and how its errors are read.

All methods run on the event loop of the sampler.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace
from math import inf
from urllib.parse import urlsplit

import orjson

from schemas.finish_reasons import CONTENT_FILTER
from schemas.manifest import ServerClaims
from schemas.sample import Message
from thresher.errors import EngineError, SourceError
from thresher.samplers.http import refusals
from thresher.samplers.http.addresses import host_and_port
from thresher.samplers.http.answers import Answer, BlockedError, NoLogprobsError, Response, ServerError, read_answer
from thresher.samplers.http.claims import ChangedServerError, context_of, read_card, read_claims, value_at
from thresher.samplers.http.connection import ApiKey, AttemptError, Connection, PromptRefusedError, RateLimit
from thresher.samplers.http.counters import WorkCounters, read_counters
from thresher.samplers.http.dialects import dialect_of
from thresher.samplers.http.logprobs import token_numbers
from thresher.samplers.http.parts import read_text
from thresher.samplers.http.protocol import (
    SHORTEN,
    SLACK_BYTES,
    Question,
    Service,
    Tokenised,
    asked_of,
    check_lengths,
    longest_answer,
    prompt_body,
    request_body,
    shared_parts,
    short_question,
    told_kind,
    unsupported_fields,
)
from thresher.samplers.http.refusals import Form, Refusal, adapted, form_of, needed_words
from thresher.samplers.sampler import NEUTRAL, Group

log = logging.getLogger(__name__)

INLINE_BYTES = 1 << 20
"""Larger answers are read in a thread; for smaller ones a thread costs more than reading them."""
LOOKS = 4
"""Readings of a server's counters in the time after which it is left."""
RECHECK_S = 60.0
"""A server in use is greeted again after so long: its weights may be changed without a broken connection."""
IDLE_S = 1.0
"""A server that had nothing to do for so long is greeted again: no broken connection would show that it was started again."""
MOST_WITHOUT = 3
"""Answers without log-probabilities after which a server that never gave any counts as one that gives none."""
SHORT_TOKENS = 16
"""max_tokens of a completion that shows whether a server works."""
_UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError)


class Endpoint:
    """A server and the connections to it."""

    def __init__(self, url: str, service: Service, key: ApiKey) -> None:
        self.url, self.source = url, host_and_port(url)
        self.rate = RateLimit(service.spec.requests_in_flight)
        self.form = form_of(dialect_of({}, urlsplit(url).hostname or "", service.spec.extensions))
        self.version, self.context = "", 0
        self.up, self.changed, self.trouble, self.cuts = False, False, "", 0
        self.counters = WorkCounters()
        self._stalled: tuple[Group, str] | None = None
        self.patience_s = service.spec.silent_s
        """Seconds without a token after which the server is left. Doubles each time, because its steps may be slow, as on a CPU
        that reads long prompts."""
        self.logprobs_kind = self.form.dialect.logprobs_kind
        self._service, self._key = service, key
        self._claims = ServerClaims(model=service.model)
        self._greeted_at, self._greeting, self._in_flight = -inf, asyncio.Lock(), 0
        self._adapting, self._accepted = asyncio.Lock(), dict[bytes, Form]()
        self._without_logprobs = 0.0
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
        """Read what the server serves and which dialect it has, as far as engine.check wants. A server that was left because it
        made no token must make one. Raises EngineError if it is unusable, AttemptError if it may become usable."""
        check = self._service.spec.check
        if check == "models":
            await self._read_models()
        elif check == "completion":
            await self._greet_with_completion()
        self._greeted_at = time.monotonic()
        if not self.up:
            self.logprobs_kind = self.form.dialect.logprobs_kind
            if self._service.tells_kind and self.logprobs_kind == "raw":
                self.logprobs_kind = await told_kind(self._answer) or "unknown"
        self.counters = WorkCounters()
        await self.look()
        if self._stalled is not None:
            await self._make_a_token(*self._stalled)
        self.up, self.changed, self.cuts, self._stalled = True, False, 0, None

    async def _read_models(self) -> None:
        connection, model = self._connection, self._service.model
        card = await read_card(connection, self.url, model, self._key, again=bool(self.version))
        dialect = dialect_of(card, urlsplit(self.url).hostname or "", self._service.spec.extensions)
        self.context = context_of(card)
        if self.form.dialect not in (dialect, dialect.fallback):  # what the server has refused stays refused
            self.form = form_of(dialect)
        version, weights = [await value_at(connection, self.url, place) for place in (dialect.version_at, dialect.weights_at)]
        self.version = dialect.version if version is None else f"{dialect.version} {version}"
        await self._compare(read_claims({**card, "id": model}, self.version, weights))

    async def _greet_with_completion(self) -> None:
        """Ask for a short completion, with room for reasoning."""
        self.version = self.form.dialect.version
        short = Group(0, (Message("user", "Hello"),), 1, {**NEUTRAL, "max_tokens": 256, "stop": []})
        try:
            await self._answer(Question(short, 0, 1))
        except PromptRefusedError as error:  # of a completion there is no shorter one
            raise EngineError(str(error)) from error
        await self._compare(self._claims)

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

    async def _compare(self, claims: ServerClaims) -> None:
        """Raise ChangedServerError if the server has another model now, EngineError for an adapter of another base model."""
        base = self._service.base_model
        if base is not None and claims.parent not in (None, base):
            raise EngineError(
                f"{self.url}: {claims.model} is an adapter of {claims.parent}, not of {base}; set model.name to "
                f"{claims.parent}, or model.adapter to an adapter of it"
            )
        self._claims = claims.model_copy(update={"left_out": self.form.omitted})
        if differing := await asyncio.to_thread(self._service.note, self.source, self._claims):
            raise ChangedServerError(
                f"{self.source} serves another model as {claims.model} than the one that samples of this run were drawn from: "
                f"{'; '.join(differing)}; start it with the earlier model, or start another run with --out"
            )

    async def _make_sure(self) -> None:
        """Greet the server again if it may have another model since it was greeted; only a list of models would tell."""
        now = time.monotonic()
        idle = not self._in_flight and now - self.heard_at > IDLE_S
        if self._service.spec.check != "models" or (not idle and now - self._greeted_at <= RECHECK_S):
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
        """Return the server's answer. Raises AttemptError, PromptRefusedError, or EngineError if repeating is useless."""
        answer = await self._answer(question)
        self.counters.received += answer.tokens
        self.rate.grow()
        self.cuts = 0
        return answer

    async def _answer(self, question: Question) -> Answer:
        """Ask until the form of the request is one that the server takes. A refusal counts as one of the prompt if the server
        answers a short prompt after it, and then refuses this one again."""
        others_pass: Form | None = None
        while True:
            response, form = await self._post(question)
            if response.status == 200:
                answer = await self._read(question, response, form)
                self._accepted[shared_parts(question)] = form
                return answer
            self._fail_if_passing(question, response, form)
            if others_pass == form:
                raise self._prompt_refused(response)
            known = self._accepted.get(shared_parts(question)) == form
            if known and await self._refusal_of_short(replace(question, n=1), SHORT_TOKENS) is None:
                others_pass = form
                continue
            async with self._adapting:
                if self.form == form and await self._short_passes(question, form, known=known):  # else it has changed meanwhile
                    others_pass = form

    async def tokenise(self, group: Group) -> Tokenised | None:
        """Return the prompt of a group as the server reads it; None if the server does not tell. Raises AttemptError, and
        SourceError with the server's words for a prompt that it refuses."""
        if not self.form.dialect.tells_tokens:
            return None
        asked = orjson.dumps(prompt_body(group, self._service, self.form))
        root, longest = "{0.scheme}://{0.netloc}".format(urlsplit(self.url)), SLACK_BYTES + 16 * len(asked)
        response = await self._connection.post(f"{root}/tokenize", asked, longest)
        if response.status in (400, 413, 422):
            raise SourceError(self._key.hide(response.message))
        try:
            told = response.json()
            ids, context = token_numbers(told["tokens"], "tokens").tolist(), int(told["max_model_len"])
        except _UNREADABLE:
            return None
        body = {"model": self._service.model, "tokens": ids}
        response = await self._connection.post(f"{root}/detokenize", orjson.dumps(body), longest)
        with suppress(*_UNREADABLE):
            return Tokenised(len(ids), read_text(response.json()["prompt"]), context)
        return Tokenised(len(ids), None, context)

    async def works(self, group: Group) -> bool:
        """Return whether the server gives a whole answer to a short request with the parameters of a group on which it fails."""
        for most in (1, None):  # some refuse a request for one token
            try:
                if await self._refusal_of_short(Question(group, 0, 1), most) is None:
                    return True
            except (AttemptError, EngineError, PromptRefusedError):
                return False
        return False

    def count_failure(self, failure: AttemptError, sent_at: float, now: float) -> None:
        """Adjust the rate after a failed request."""
        self.trouble = str(failure)
        if failure.kind != "failed":
            self.rate.shrink(sent_at, now)
        self.cuts = self.cuts + 1 if failure.kind == "cut" else 0
        if failure.kind == "cut":  # it may have been started again, with another model
            self._greeted_at = -inf

    async def _post(self, question: Question) -> tuple[Response, Form]:
        """Send a request, and return the form that it had."""
        await self._make_sure()
        form, group = self.form, question.group
        for name in unsupported_fields(group, form):
            raise EngineError(
                f"sampling.{name}: {self.url} does not take it, so {group.parameters[name]} cannot be sent; "
                "remove it from the recipe, or set engine.extensions to vllm if the server supports it"
            )
        if self._service.seeded and not form.dialect.takes_seeds:
            raise EngineError(f"sampling.seeds: {self.url} takes no seeds; {refusals.ADVICE['seed']}")
        longest = longest_answer(question, self._service, form, body := orjson.dumps(request_body(question, self._service, form)))
        self._in_flight += 1
        try:
            response = await self._connection.post(self.url + self._service.path, body, longest)
        finally:
            self._in_flight -= 1
        if self._greeted_at == -inf:  # a connection broke meanwhile, so the answer may be that of another model
            await self._make_sure()
        return response, form

    async def _read(self, question: Question, response: Response, form: Form) -> Answer:
        """Read a whole answer. Raises AttemptError for anything else."""
        group, content = question.group, response.content
        asked = asked_of(question, self._service, form, sure=self._without_logprobs < MOST_WITHOUT)
        try:
            short = len(content) < INLINE_BYTES
            answer = read_answer(content, asked) if short else await asyncio.to_thread(read_answer, content, asked)
        except ServerError as error:
            raise AttemptError("busy", f"status 200: {self._key.hide(str(error))}", response.wait_s) from error
        except BlockedError as error:
            raise PromptRefusedError(f"{self.source} refuses this prompt: {self._key.hide(str(error))}") from error
        except _UNREADABLE as error:
            self._without_logprobs += isinstance(error, NoLogprobsError)
            words = f"an answer that cannot be read: {type(error).__name__}: {error}"[:300]
            raise AttemptError("failed", self._key.hide(f"{words}; it begins {response.text[:80]!r}"), response.wait_s) from error
        if group.labels:
            return replace(answer, calibration=None)
        drawn = [completion for completion in answer.completions if completion.finish_reason != CONTENT_FILTER]
        if form.logprobs and drawn and all(completion.logprobs is not None for completion in drawn):
            self._without_logprobs = -inf
        elif form.logprobs and drawn:
            self._warn("gives no log-probabilities; its samples have none and are not calibrated")
        if group.keep_top and any(completion.top_ids is None for completion in drawn):
            raise EngineError(
                f"{self.url} does not list the {group.keep_top} likeliest tokens of each position by their ids; lower "
                "sampling.keep_top_logprobs, start the server with a larger --max-logprobs, or remove it from the recipe"
            )
        check_lengths(group, answer, self.url, self.context, cuts=form.dialect.cuts_max_tokens)
        if question.calibrated and drawn and answer.calibration is None and self.form.top_logprobs:
            self.form = replace(self.form, top_logprobs=0)
            self._warn("gives too few top log-probabilities, so its samples are not calibrated")
        return answer

    # -- refusals ------------------------------------------------------------------------------------------------------

    def _fail_if_passing(self, question: Question, response: Response, form: Form) -> None:
        """Raise AttemptError for a response after which the same request may succeed, EngineError for a refused key."""
        status, message = response.status, f"status {response.status}: {self._key.hide(response.message)}"
        if status in refusals.BUSY:
            raise AttemptError("busy", message, response.wait_s)
        if 200 <= status < 300:
            raise AttemptError("failed", f"status {status}, and no answer")
        change = adapted(form, self._refusal(question, response)) if status >= 500 else None
        if status >= 500 and (change is None or change[0].most_choices == form.most_choices):  # llama.cpp refuses n with 500
            raise AttemptError("failed", message, response.wait_s)
        if status == 401:
            raise self._key.refused(self.url, status)

    def _refusal(self, question: Question, response: Response) -> Refusal:
        spec, message = self._service.spec, self._key.hide(response.message)
        return Refusal(message, response.param, question.group.parameters, spec.api, spec.extensions, question.calibrated)

    async def _short_passes(self, question: Question, form: Form, *, known: bool) -> bool:
        """Return whether the server answers a short prompt in the place of one that it refuses. If not, change the form of
        requests. Raises EngineError for a refusal for which there is no other form."""
        if not known and self._accepted.get(shared_parts(question)) == form:  # another request was answered meanwhile
            question = replace(question, n=1)
        refused = await self._refusal_of_short(question, None)
        if refused is None:
            self._accepted[shared_parts(question)] = form
            return True
        refusal = self._refusal(question, refused)
        change = adapted(form, refusal)
        if change is None:
            if refused.status in refusals.KEY_REFUSED:
                raise EngineError(f"{self._key.refused(self.url, refused.status)} ({refusal.message})")
            missing = refused.status == refusals.MODEL_MISSING
            advice = "; it no longer serves the model" if missing else needed_words(form, refusal)
            raise EngineError(f"{self.url}{self._service.path}: status {refused.status}: {refusal.message}{advice}")
        self.form, warning = change
        if warning is not None:
            self._warn(f"{warning} ({refusal.message})")
        await self._compare(self._claims)
        return False

    async def _refusal_of_short(self, question: Question, most_tokens: int | None) -> Response | None:
        """Ask with a short prompt in the place of a question's. Returns None for a whole answer, otherwise the refusal. Raises
        what `_fail_if_passing` and `_read` raise."""
        short = short_question(question, most_tokens)
        response, form = await self._post(short)
        if response.status == 200:
            await self._read(short, response, form)
            return None
        self._fail_if_passing(short, response, form)
        return response

    def _prompt_refused(self, response: Response) -> PromptRefusedError:
        status, message = response.status, self._key.hide(response.message)
        words = f"{self.source} refuses this prompt: status {status}: {message}{f'; {SHORTEN}' * refusals.is_too_long(message)}"
        return PromptRefusedError(words, lasting=refusals.is_lasting(status, message))

    def _warn(self, message: str) -> None:
        """Log a message once, whatever the server's words in parentheses."""
        if (topic := message.partition(" (")[0]) not in self._warned:
            self._warned.add(topic)
            log.warning("%s %s", self.url, message)
