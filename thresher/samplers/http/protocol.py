"""What is sent to an OpenAI-compatible server, by the chat API or the completions API, and what a whole answer to it has."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Any

import orjson

from schemas.engines import HttpEngine
from schemas.sample import Message
from thresher.errors import EngineError
from thresher.samplers.declared import free_tokens, http_fields, only_vllm_forces
from thresher.samplers.http.answers import TOKEN_BYTES, Answer, Asked
from thresher.samplers.http.chat_turns import chat_turns
from thresher.samplers.http.claims import Note, Remembered
from thresher.samplers.http.connection import PromptRefusedError
from thresher.samplers.http.dialects import VLLM_FIXED
from thresher.samplers.http.refusals import Form
from thresher.samplers.sampler import NEUTRAL, Group, plain_text

RESERVED_FIELDS = {*NEUTRAL, *VLLM_FIXED} | {
    "model", "messages", "prompt", "n", "seed", "stop", "stream", "logprobs", "top_logprobs", "max_tokens",
    "max_completion_tokens", "best_of", "use_beam_search", "echo", "suffix", "logit_bias", "bad_words", "allowed_token_ids",
    "stop_token_ids", "include_stop_str_in_output", "logprob_token_ids", "response_format", "structured_outputs",
    "truncate_prompt_tokens", "thinking_token_budget", "reasoning_effort", "random_seed", "repeat_penalty",
}  # fmt: skip
"""Fields that engine.extra_body may not set: they decide what is sampled or recorded."""

PROMPT_FIELDS = (
    "model", "messages", "prompt", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt",
    "continue_final_message", "add_special_tokens",
)  # fmt: skip
"""Fields that decide which tokens a prompt has."""

MOST_BYTES = 1 << 30
"""Bytes of one answer beyond which none is read, whatever was asked for: half a million tokens with 20 log-probabilities each."""
SLACK_BYTES = 4 << 20
"""Bytes of an answer besides its tokens."""
SHORT_TOOLS = '[{"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}}]'
SHORTEN = "shorten the prompt, lower sampling.max_tokens or give the server a longer context"
LABEL_LOGPROBS = 20
"""Likeliest first tokens asked for when a label is wanted; OpenAI and vLLM give no more by default."""
LABEL_TOKENS = 64
"""max_tokens of a label when the server reports no log-probabilities: room for JSON around it."""


# -- requests ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Service:
    """What all servers of a sampler share: the recipe's engine, the name by which they serve the model, whether completions are
    seeded, where it is noted what they say of the model, and for an adapter its base model."""

    spec: HttpEngine
    model: str
    seeded: bool
    note: Note = field(default_factory=Remembered)
    base_model: str | None = None
    tells_kind: bool = False
    """Whether a server is asked which distribution its log-probabilities are of: it matters where a recipe changes it."""

    @property
    def path(self) -> str:
        return "/chat/completions" if self.spec.api == "chat" else "/completions"


@dataclass(frozen=True, slots=True)
class Question:
    """Completions `first` to `first + n - 1` of a group, asked for in one request."""

    group: Group
    first: int
    n: int
    calibrated: bool = False


@dataclass(frozen=True)
class Tokenised:
    """A prompt as a server reads it. `text` is None if the server does not tell, `context` is 0 if it does not."""

    tokens: int
    text: str | None
    context: int


def seed_of(question: Question, service: Service, form: Form) -> int | None:
    """Return the seed of a request, None if it has none."""
    group = question.group
    if not service.seeded or not form.dialect.takes_seeds or not group.seeds or group.parameters["temperature"] == 0:
        return None
    return group.seeds[question.first] % (1 << form.dialect.seed_bits)


def unsupported_fields(group: Group, form: Form) -> list[str]:
    """Return the sampling fields that a group needs and the server does not understand."""
    lacking = [
        name for name in NEUTRAL if name in form.dialect.missing_fields or name in form.left_out - {*form.dialect.left_out}
    ]
    missing = [name for name in lacking if group.parameters[name] != NEUTRAL[name]]
    most = form.dialect.most_temperature
    hot = group.parameters["temperature"]
    missing += ["temperature"] if (most is not None and hot > most) or 0 < hot < form.dialect.least_temperature else []
    return missing + ([] if form.dialect.restricts_to == "structured_outputs" else only_vllm_forces(group.parameters))


def request_body(question: Question, service: Service, form: Form) -> dict[str, Any]:
    """Return the JSON object of a request. All sampling fields are in it, because a server takes a missing one from the model's
    generation_config."""
    group, values, spec = question.group, question.group.parameters, service.spec
    body: dict[str, Any] = {**spec.extra_body, "model": service.model, "n": choices_asked(question, form), "stream": False}
    body |= _sampling_fields(values, form)
    body[form.length_field] = values["max_tokens"]
    if values["stop"]:
        body["stop"] = values["stop"]
    body |= form.dialect.fixed_fields
    if (seed := seed_of(question, service, form)) is not None:
        body[form.dialect.spellings.get("seed", "seed")] = seed
    if form.logprobs:
        body |= _logprob_fields(spec, form, likeliest_asked(question, spec, form))
    body |= http_fields(values, vllm=form.dialect.restricts_to == "structured_outputs")
    if group.labels:
        body |= _label_fields(group.labels, spec, form)
    if spec.api == "chat":
        body["messages"] = chat_turns(group.messages)
        if group.tools is not None:
            body["tools"] = orjson.loads(group.tools)
        if group.template is not None:
            body["chat_template_kwargs"] = orjson.loads(group.template)
    else:
        body["prompt"] = plain_text(group.messages)
    return body


def choices_asked(question: Question, form: Form) -> int:
    """Return how many completions a request asks for: those of the question, unless the server gives fewer at a time."""
    return question.n if form.most_choices is None else min(question.n, form.most_choices)


def _sampling_fields(values: dict[str, Any], form: Form) -> dict[str, Any]:
    """The sampling fields of a request, by the server's own names. A neutral value that the server refuses is left out."""
    dialect = form.dialect
    sent = {name: values[name] for name in NEUTRAL if name not in dialect.missing_fields}
    sent = {name: value for name, value in sent.items() if name not in form.left_out or value != NEUTRAL[name]}
    if "top_k" in sent:
        sent["top_k"] = sent["top_k"] or dialect.top_k_off
    return {dialect.spellings.get(name, name): value for name, value in sent.items()}


def asked_of(question: Question, service: Service, form: Form, *, sure: bool = True) -> Asked:
    """Return what a whole answer to a request has; unless it is `sure`, log-probabilities may lack."""
    group = question.group
    return Asked(
        choices_asked(question, form),
        top_logprobs=likeliest_asked(question, service.spec, form) if question.calibrated and form.top_logprobs else 0,
        seed=seed_of(question, service, form),
        keep=group.keep_top,
        free=free_tokens(group.parameters),
        max_tokens=max(LABEL_TOKENS, group.parameters["max_tokens"]) if group.labels else group.parameters["max_tokens"],
        sure=sure and form.logprobs and form.dialect.sure_logprobs,
        labels=group.labels,
    )


def longest_answer(question: Question, service: Service, form: Form, body: bytes) -> int:
    """Return the bytes that the answer to a request (with this body, which the answer may repeat) does not exceed."""
    per_token = TOKEN_BYTES * (1 + likeliest_asked(question, service.spec, form))
    tokens = question.n * max(LABEL_TOKENS, int(question.group.parameters["max_tokens"]))
    return SLACK_BYTES + 16 * len(body) + min(tokens * per_token, MOST_BYTES)


def check_lengths(group: Group, answer: Answer, url: str, context: int, *, cuts: bool) -> None:
    """Raise an error if a server cut completions below max_tokens, which it `cuts` without an error: PromptRefusedError if the
    prompt is too long for its context (0 if unknown), EngineError if every prompt would be."""
    longest = group.parameters["max_tokens"]
    prompt = 0 if answer.prompt_ids is None else len(answer.prompt_ids)
    if context and answer.prompt_ids is not None and prompt + longest > context:
        words = f"{prompt} tokens and sampling.max_tokens {longest} do not fit the context of {context} of {url}; {SHORTEN}"
        raise EngineError(words) if longest >= context else PromptRefusedError(words)
    for completion in answer.completions if cuts else ():
        ids = completion.token_ids
        if completion.finish_reason == "length" and ids is not None and len(ids) < longest:
            raise EngineError(
                f"{url} cut a completion at {len(ids)} tokens instead of sampling.max_tokens {longest}; start it without "
                "max_new_tokens in its generation config, or lower sampling.max_tokens"
            )


def short_question(question: Question, most_tokens: int | None) -> Question:
    """Return a question with a short prompt and the same parameters, for at most `most_tokens` tokens. Tools and arguments of the
    template belong to a prompt: in their place are short ones."""
    group = question.group
    longest = group.parameters["max_tokens"]
    short = replace(
        group,
        messages=(Message("user", "Hello"),),
        n=question.n,
        parameters={**group.parameters, "max_tokens": min(longest, most_tokens or longest)},
        tools=None if group.tools is None else SHORT_TOOLS,
        template=None if group.template is None else "{}",
    )
    return replace(question, group=short, first=0)


def shared_parts(question: Question) -> bytes:
    """Return what questions have in common that differ only in their prompts and seeds."""
    group = question.group
    further = [group.labels, group.keep_top, question.calibrated, group.tools is None, group.template is None]
    return orjson.dumps([group.parameters, *further])


def prompt_body(group: Group, service: Service, form: Form) -> dict[str, Any]:
    """Return the fields of a request that decide how its prompt is rendered, as vLLM's /tokenize takes them: it has no field
    reasoning_effort, which a chat request hands to the template, with enable_thinking unless that is given."""
    body = request_body(Question(group, 0, 1), service, form)
    fields = {name: body[name] for name in PROMPT_FIELDS if name in body}
    if "reasoning_effort" in body:
        effort, arguments = body["reasoning_effort"], body.get("chat_template_kwargs") or {}
        fields["chat_template_kwargs"] = {"enable_thinking": effort != "none", **arguments, "reasoning_effort": effort}
    return fields


def likeliest_asked(question: Question, spec: HttpEngine, form: Form) -> int:
    """Return how many likeliest tokens a request asks for. A chat answer of vLLM lists the drawn token in the place of the last
    one, so one more is asked for than is kept."""
    kept = question.group.keep_top
    least = form.dialect.least_logprobs
    return max(form.top_logprobs if question.calibrated else 0, kept + (spec.api == "chat") if kept else 0, least)


def _logprob_fields(spec: HttpEngine, form: Form, likeliest: int) -> dict[str, Any]:
    if spec.api == "chat" and not form.dialect.logprobs_count:
        return {"logprobs": True, "top_logprobs": likeliest}
    return {"logprobs": max(1, likeliest) if form.dialect.logprobs_count else likeliest}


def _label_fields(labels: tuple[str, ...], spec: HttpEngine, form: Form) -> dict[str, Any]:
    """Fields that ask for one of the labels: by the log-probabilities of the first token, or by structured output."""
    fields = dict(form.dialect.label_fields)
    if form.dialect.restricts_to == "structured_outputs":
        fields["structured_outputs"] = {"choice": list(labels)}
    if form.logprobs:
        return fields | _logprob_fields(spec, form, LABEL_LOGPROBS)
    fields[form.length_field] = LABEL_TOKENS
    if form.dialect.restricts_to == "response_format":
        schema: dict[str, Any] = {"type": "object", "properties": {"verdict": {"type": "string", "enum": list(labels)}}}
        schema |= {"required": ["verdict"], "additionalProperties": False}
        fields["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "strict": True, "schema": schema},
        }
    return fields


KIND_LISTED = 5
"""Likeliest tokens that are compared at two temperatures."""
KIND_AT = (1.0, 0.5)


async def told_kind(ask: Callable[[Question], Awaitable[Answer]]) -> str | None:
    """Which distribution the log-probabilities of a server are of: `raw`, the model's own, or `processed`, after temperature and
    truncation. One prompt is asked at two temperatures: processed gaps between the likeliest tokens double at half of it. None if
    the server lists too few tokens by their ids."""
    lists = []
    for temperature in KIND_AT:
        parameters = {**NEUTRAL, "temperature": temperature, "max_tokens": 1, "stop": []}
        group = Group(0, (Message("user", "Name a colour."),), 1, parameters, keep_top=KIND_LISTED)
        try:
            [completion] = (await ask(Question(group, 0, 1))).completions
        except (EngineError, PromptRefusedError):
            return None
        if completion.top_ids is None or completion.top_logprobs is None or not len(completion.top_ids):
            return None
        lists.append(dict(zip(completion.top_ids[0].tolist(), completion.top_logprobs[0].tolist(), strict=True)))
    first, *others = [token for token in lists[0] if all(isfinite(listed.get(token, inf)) for listed in lists)] or [0]
    gaps = [sum(abs(listed[token] - listed[first]) for token in others) for listed in lists]
    if not gaps[0]:
        return None
    ratio = gaps[1] / gaps[0]
    return "raw" if ratio < 1.25 else "processed" if ratio > 1.6 else None
