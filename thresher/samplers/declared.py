"""What a recipe lets the engine force: the fields that ask for it, and the tokens that are therefore no draws.

A structure (`sampling.structured`) may decide any token, so none of such a sample is calibrated. A budget of thinking
(`sampling.thinking_tokens`) decides only the mark that ends the thinking, at a place that follows from the tokens before it.
Whether a position is left out of the calibration must never depend on its own token: otherwise what is left would be biased.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.sampling import Sampling
from thresher.samplers.sampler import NEUTRAL

if TYPE_CHECKING:
    from vllm.config.reasoning import ReasoningConfig

PROMPT_SLACK = 8
"""Tokens of thinking that a prompt may hold: a template that opens the thinking writes the mark and a line break."""


LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 2.0
"""vLLM raises a temperature below the first to it, and refuses one above the second (vllm.sampling_params, 0.24 to 0.33)."""


def temperature_fault(temperatures: Iterable[float]) -> str | None:
    """Why vLLM would not draw at the temperatures of a recipe, None if it would."""
    for temperature in temperatures:
        if temperature < LEAST_TEMPERATURE:
            return (
                f"sampling.temperature: vLLM raises temperatures below {LEAST_TEMPERATURE} to it, found {temperature:g}; use "
                f"{LEAST_TEMPERATURE} or more, or sampling.anchor for the greedy completion"
            )
        if temperature > MOST_TEMPERATURE:
            return f"sampling.temperature: vLLM refuses temperatures above {MOST_TEMPERATURE:g}, found {temperature:g}; use less"
    return None


def forces_all(parameters: Mapping[str, Any]) -> bool:
    """Return whether the engine may force any token of a completion."""
    return parameters.get("structured") is not None


def changes_distribution(sampling: Sampling) -> bool:
    """Whether a recipe draws from another distribution than the model's own: by a temperature, a truncation or a penalty."""
    return any(temperature != 1 for temperature in sampling.temperatures) or any(
        getattr(sampling, name) != value for name, value in NEUTRAL.items() if name != "temperature"
    )


def declared_words(parameters: Mapping[str, Any]) -> list[str]:
    """Name what forces tokens or changes the prompt, in words."""
    words = [f"{name} {parameters[name]}" for name in ("thinking_tokens", "reasoning_effort") if name in parameters]
    return [*words, *(f"structured output ({name})" for name in parameters.get("structured", {}))]


def logprobs_kind(kind: str | None, parameters: Mapping[str, Any]) -> str | None:
    """Return which distribution the log-probabilities of a draw are of; `kind` is that of the engine. Under a structure vLLM
    masks the logits before it computes them, so that they are those of the tokens that the structure allows."""
    return "structured" if kind is not None and forces_all(parameters) else kind


# -- the request ---------------------------------------------------------------------------------------------------------


def template_with_effort(template: str | None, parameters: Mapping[str, Any]) -> str | None:
    """Return the arguments of a chat template (JSON text) with the reasoning effort of a draw, as vLLM's server adds it: a
    prompt's own enable_thinking stays."""
    effort = parameters.get("reasoning_effort")
    if effort is None:
        return template
    own = {} if template is None else json.loads(template)
    return json.dumps({"enable_thinking": effort != "none", **own, "reasoning_effort": effort})


def vllm_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a draw by the names of vLLM's SamplingParams."""
    from vllm.sampling_params import StructuredOutputsParams

    own = {name: value for name, value in parameters.items() if name not in ("thinking_tokens", "reasoning_effort", "structured")}
    if "thinking_tokens" in parameters:
        own["thinking_token_budget"] = parameters["thinking_tokens"]
    if forces_all(parameters):
        own["structured_outputs"] = StructuredOutputsParams(**vllm_structure(parameters["structured"]))
    return own


def vllm_structure(structured: Mapping[str, Any]) -> dict[str, Any]:
    """Return a structure by the names of vLLM."""
    return {"json" if name == "json_schema" else name: value for name, value in structured.items()}


def response_format(structured: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON Schema as OpenAI's response_format."""
    schema = {"name": "completion", "strict": True, "schema": structured["json_schema"]}
    return {"type": "json_schema", "json_schema": schema}


def http_fields(parameters: Mapping[str, Any], *, vllm: bool) -> dict[str, Any]:
    """Return the fields of an HTTP request that force tokens, or tell the template how much the model is to think. `vllm`:
    whether the server knows vLLM's own fields."""
    fields: dict[str, Any] = {}
    if "thinking_tokens" in parameters:
        fields["thinking_token_budget"] = parameters["thinking_tokens"]
    if "reasoning_effort" in parameters:
        fields["reasoning_effort"] = parameters["reasoning_effort"]
    if not forces_all(parameters):
        return fields
    structured = parameters["structured"]
    return fields | (
        {"structured_outputs": vllm_structure(structured)} if vllm else {"response_format": response_format(structured)}
    )


def only_vllm_forces(parameters: Mapping[str, Any]) -> list[str]:
    """Return what a draw forces that no server but vLLM's can be asked for: all but a JSON Schema."""
    budget = ["thinking_tokens"] if "thinking_tokens" in parameters else []
    other_form = forces_all(parameters) and "json_schema" not in parameters["structured"]
    return [*budget, *(["structured"] if other_form else [])]


def reasoning_config(marks: tuple[str, str]) -> "ReasoningConfig":
    """Return vLLM's engine option without which it refuses a budget of thinking."""
    from vllm.config.reasoning import ReasoningConfig

    return ReasoningConfig(reasoning_start_str=marks[0], reasoning_end_str=marks[1])


# -- what is left out of the calibration ---------------------------------------------------------------------------------


def forced_positions(
    drawn: NDArray[np.integer[Any]],
    prompt: NDArray[np.integer[Any]],
    marks: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]],
    budget: int,
) -> NDArray[np.bool_]:
    """Return which of the drawn tokens (T,) vLLM may have forced, given the tokens of the prompt and of the two marks.

    The first section of thinking is followed exactly: after `budget` tokens vLLM writes the end mark. What it does about an end
    mark before any start mark, and about a second section, depends on details of its bookkeeping; from there on all positions
    count as forced. Each answer follows from the tokens before the position.
    """
    start, end = marks
    forced = np.zeros(len(drawn), bool)
    opened, closed = last_place(prompt, start), last_place(prompt, end)
    if opened > closed:
        thought = len(prompt) - opened - len(start)
        # vLLM counts the tokens of a longer start mark as if it were one token (thinking_budget_state, start_thinking).
        first = -thought if thought >= budget else len(start) - 1 - thought
    else:
        starts, stray = places(drawn, start), places(drawn, end)
        first = int(starts[0]) + len(start) if len(starts) else len(drawn)
        if len(stray) and int(stray[0]) + len(end) <= first:
            forced[int(stray[0]) + len(end) :] = True
            return forced
    at = max(0, first + budget)
    ends = places(drawn, end)
    natural = ends[(ends >= (0 if opened > closed else first)) & (ends + len(end) <= at)]
    if len(natural):
        rest = int(natural[0]) + len(end)
    else:
        forced[at : at + len(end)] = True
        rest = at + len(end)
    again = places(drawn[rest:], start)
    if len(again):
        forced[rest + int(again[0]) + len(start) :] = True
    return forced


def free_tokens(parameters: Mapping[str, Any]) -> int | None:
    """Return how many of the first tokens of a completion no budget of thinking can have forced, where the tokens of the marks
    are unknown; None if there is no budget."""
    budget = parameters.get("thinking_tokens")
    return None if budget is None else max(0, budget - PROMPT_SLACK)


def places(tokens: NDArray[np.integer[Any]], wanted: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return where a sequence of tokens begins in another, in order."""
    if not len(wanted) or len(tokens) < len(wanted):
        return np.zeros(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, len(wanted))
    return np.flatnonzero((windows == wanted).all(axis=1))


def last_place(tokens: NDArray[np.integer[Any]], wanted: NDArray[np.integer[Any]]) -> int:
    """Return where a sequence of tokens begins last in another, -1 if it does not."""
    found = places(tokens, wanted)
    return int(found[-1]) if len(found) else -1
