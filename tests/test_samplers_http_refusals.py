"""What servers refuse, in their words, and the form of requests that follows."""

from dataclasses import replace
from typing import Any

import pytest

from thresher.samplers.http.dialects import OPENAI, OPENAI_LIKE, VLLM, VLLM_PLAIN
from thresher.samplers.http.refusals import (
    Form,
    Refusal,
    adapted,
    form_of,
    is_lasting,
    is_too_long,
    needed_fields,
    needed_words,
    refused_fields,
)
from thresher.samplers.sampler import NEUTRAL

PLAIN = Form(OPENAI_LIKE)


def refusal(message: str, param: str | None = None, *, calibrated: bool = False, **parameters: Any) -> Refusal:
    extensions, api = parameters.pop("extensions", "auto"), parameters.pop("api", "chat")
    return Refusal(message, param, {**NEUTRAL, "max_tokens": 5, "stop": [], **parameters}, api, extensions, calibrated)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8 tokens.",
        "Prompt is too long",
        "the request exceeds the available context size, try increasing it",
        "The input (9 tokens) is longer than the model's context length (8 tokens).",
        "`inputs` tokens + `max_new_tokens` must be <= 8. Given: 9 `inputs` tokens and 3 `max_new_tokens`",
        "Prompt contains 9 tokens, too large for model with 8 maximum context length",
        "Please reduce the length of the messages or completion.",
    ],
)
def test_a_prompt_that_is_too_long_is_known_by_the_words(message: str) -> None:
    assert is_too_long(message)
    assert not is_too_long("no such model")


@pytest.mark.parametrize(
    ("message", "param", "fields"),
    [
        ("Unsupported parameter: 'presence_penalty' is not supported with this model.", "presence_penalty", ["presence_penalty"]),
        (
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1)",
            "temperature",
            ["temperature"],
        ),
        ('Invalid JSON payload received. Unknown name "frequency_penalty": Cannot find field.', None, ["frequency_penalty"]),
        ("Penalty is not enabled for models/gemini-2.5-flash", None, ["presence_penalty", "frequency_penalty"]),
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", None, ["top_p"]),
        ("`top_p` must be > 0.0 and < 1.0", None, ["top_p"]),
        ('[{"type": "extra_forbidden", "loc": ["body", "top_p"], "msg": "Extra inputs are not permitted"}]', None, ["top_p"]),
        ("Unsupported parameter: 'stop' is not supported with this model.", "stop", ["stop"]),
        ("top_logprobs is not supported", None, []),
        ("no such model", None, []),
        ("Unknown argument top_p. Supported parameters: temperature, stop", None, ["top_p"]),
        ("Bad value", "generation_config.top_p", ["top_p"]),
        ("top_p and seed were here", None, []),
    ],
)
def test_refused_fields_are_read_from_the_servers_words(message: str, param: str | None, fields: list[str]) -> None:
    assert refused_fields(message, param) == fields


def test_a_neutral_field_is_left_out_and_one_that_the_recipe_needs_is_not() -> None:
    words = "Unsupported parameter: 'top_p' is not supported with this model."
    change = adapted(PLAIN, refusal(words, "top_p"))

    assert change == (
        replace(PLAIN, left_out=frozenset({"top_p"})),
        "refuses top_p, left out: the recipe wants the neutral value",
    )
    assert change[0].omitted == ("top_p",)
    assert adapted(change[0], refusal(words, "top_p")) is None
    needed = refusal(words, "top_p", top_p=0.9)
    assert (adapted(PLAIN, needed), needed_fields(PLAIN, needed)) == (None, ["top_p"])
    assert needed_words(PLAIN, needed) == (
        "; the recipe needs top_p 0.9: remove sampling.top_p from the recipe, or draw from a server that takes it"
    )


@pytest.mark.parametrize(
    ("message", "parameters", "advice"),
    [
        ("'temperature' does not support 0 with this model", {"temperature": 0.0}, "sampling.anchor to false"),
        ("'stop' is not supported with this model", {"stop": ["a"]}, "remove sampling.stop"),
        ("'seed' is not supported", {}, "set sampling.seeds to engine"),
    ],
)
def test_what_the_recipe_needs_is_named_with_what_to_do(message: str, parameters: dict[str, Any], advice: str) -> None:
    assert adapted(PLAIN, refusal(message, **parameters)) is None
    assert advice in needed_words(PLAIN, refusal(message, **parameters))


def test_a_server_with_defaults_of_its_own_gets_every_field() -> None:
    """Without top_k its own would apply."""
    words = refusal("top_k must be -1 (disable), or at least 1, got 0.")

    assert adapted(Form(VLLM), words) is None
    assert needed_words(Form(VLLM), words) == ""


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("'n' : number must be at most 1", None),
        ("Only one candidate can be specified in the current model", None),
        ("Only one completion choice is allowed", None),
        ("n must be 1", None),
        ("must be 1", "n"),
    ],
)
def test_a_server_that_gives_one_completion_is_asked_for_one(message: str, param: str | None) -> None:
    change = adapted(PLAIN, refusal(message, param))

    assert change is not None
    assert (change[0].most_choices, change[0].omitted) == (1, ("n",))
    assert adapted(change[0], refusal(message, param)) is None


def test_the_name_of_max_tokens_changes_once_and_only_in_chat() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    change = adapted(PLAIN, refusal(words))

    assert change == (replace(PLAIN, length_field="max_completion_tokens"), None)
    assert adapted(change[0], refusal(words)) is None
    assert adapted(PLAIN, refusal(words, api="completions")) is None
    assert adapted(PLAIN, refusal("max_tokens is too large: 500000. This model supports at most 16384")) is None
    back = adapted(
        form_of(OPENAI), refusal('{"loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted"}')
    )
    assert back is not None
    assert back[0].length_field == "max_tokens"


def test_vllms_fields_are_left_out_unless_the_recipe_demands_them() -> None:
    words = "Unrecognized request argument supplied: top_k"
    change = adapted(Form(VLLM), refusal(words))

    assert change is not None
    assert change[0] == Form(VLLM_PLAIN)
    assert "refuses vLLM's fields" in (change[1] or "")
    assert adapted(Form(VLLM), refusal(words, extensions="vllm")) is None
    assert adapted(Form(VLLM_PLAIN), refusal(words)) is None
    assert adapted(PLAIN, refusal(words)) is None


def test_top_logprobs_shrink_to_five_then_none_before_logprobs_go() -> None:
    """Uncalibrated requests ask for no top log-probabilities, so their refusal is of all log-probabilities."""
    form, warnings, words = PLAIN, [], "logprobs are not supported"
    for _ in range(3):
        change = adapted(form, refusal(words, calibrated=bool(form.top_logprobs)))
        assert change is not None
        form, warning = change
        warnings.append(warning)

    assert form == replace(PLAIN, top_logprobs=0, logprobs=False)
    assert form.omitted == ("logprobs", "top_logprobs")
    assert [warning is None for warning in warnings] == [True, False, False]
    assert adapted(form, refusal(words)) is None
    assert adapted(PLAIN, refusal(words)) == (replace(PLAIN, logprobs=False), warnings[2])


@pytest.mark.parametrize(
    ("status", "message", "lasting"),
    [
        (400, "roles must alternate", True),
        (413, "", True),
        (403, "flagged by our moderation", True),
        (403, "forbidden", False),
        (402, "This request requires more credits", False),
        (404, "not found", False),
        (409, "conflict", False),
        (500, "the prompt is too long: 9000 tokens", True),
    ],
)
def test_only_what_the_prompt_is_lasts(status: int, message: str, lasting: bool) -> None:
    """A limit of money or traffic may let it pass another time."""
    assert is_lasting(status, message) == lasting
