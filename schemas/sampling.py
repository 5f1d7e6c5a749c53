"""How completions are drawn, and the test that they are draws from the model's own distribution."""

import re
from typing import Annotated, Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import Field, model_validator

from schemas.part import Part

Temperature = Annotated[float, Field(gt=0, le=10)]


class CalibrationSpec(Part):
    """The test, on every run, that the samples are draws from the model's own distribution; see docs/calibration.md."""

    standard_error: Annotated[float, Field(ge=0, lt=0.5)] = 0.002
    """Standard error of the observed shares. The test takes as many tokens as reach it; 0 turns the test off."""
    expect: Literal["ancestral", "declared"] = "ancestral"
    """`ancestral`: the audit fails if the samples are not draws at temperature 1 without truncation, or if none of their tokens
    can be tested because all may be forced (structured output). `declared`: what the recipe itself changes (a list of
    temperatures, a top_p, a form) is expected, and only other differences are faults."""


class StructuredSpec(Part):
    """What a completion must look like. The engine forces it token by token, so the samples are not draws from the model's own
    distribution. Give one of the three."""

    json_schema: dict[str, Any] | None = None
    """The completion is a JSON value that this JSON Schema accepts."""
    regex: Annotated[str, Field(min_length=1)] | None = None
    """The whole completion matches this regular expression."""
    choice: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = None
    """The completion is one of these texts."""

    @model_validator(mode="after")
    def _one_that_can_be_forced(self) -> "StructuredSpec":
        if len(self.form) != 1:
            raise ValueError(f"wanted one of json_schema, regex, choice; found {' and '.join(self.form) or 'none of them'}")
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                raise ValueError(f"regex is no regular expression: {error}") from error
        if self.json_schema is not None:
            try:
                Draft202012Validator.check_schema(self.json_schema)
            except SchemaError as error:
                raise ValueError(f"json_schema is no JSON Schema: {error.message}") from error
        if self.choice is not None and len(set(self.choice)) < len(self.choice):
            raise ValueError(f"choice names one text twice: {list(self.choice)}; name each once")
        return self

    @property
    def form(self) -> dict[str, Any]:
        """The one that is given, as a JSON value."""
        return self.model_dump(mode="json", exclude_none=True)


class Sampling(Part):
    """How completions are drawn. Every parameter is sent explicitly and the model's own generation_config is overruled, so the
    defaults mean ancestral sampling at temperature 1."""

    samples_per_prompt: Annotated[int, Field(ge=0, le=65536)] = 16
    """Completions per prompt (and temperature), besides the anchor. Raise it later to draw only the additional ones; 0 draws only
    the anchors."""
    target_hits: Annotated[int, Field(ge=1)] | None = None
    """Continue to draw for a prompt, in waves, until it has this many distinct hits; null draws samples_per_prompt and no
    more."""
    max_samples_per_prompt: Annotated[int, Field(ge=1, le=65536)] | None = None
    """With target_hits: most completions of a prompt; null takes 16 times samples_per_prompt."""
    give_up_below: Annotated[float, Field(gt=0, lt=1)] | None = None
    """With target_hits: pass rate below which a prompt is not worth sampling. A prompt without a hit is given up once the
    probability that its pass rate is above this value falls below 5 %; null never gives up."""
    target_rows: Annotated[int, Field(ge=1)] | None = None
    """Start no further shard once the run has this many hits; null samples every prompt."""
    anchor: bool = True
    """Also draw one greedy completion per prompt, the model's known solution."""
    max_tokens: Annotated[int, Field(ge=1)] = 512
    """Tokens of the longest completion. A longer one is cut and dropped as `truncated`."""
    temperature: Temperature | Annotated[tuple[Temperature, ...], Field(min_length=1)] = 1.0
    """1 draws from the model's own distribution. Any other value is recorded on every sample and named on the dataset card. A
    list draws samples_per_prompt at each temperature, for a comparison. vLLM takes 0.01 to 2."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Keep only the likeliest tokens whose probabilities add up to this share (nucleus sampling); 1 is off."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Keep only the k likeliest tokens; 0 is off."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Drop tokens with a probability below this share of the likeliest token's; 0 is off."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Subtract this from the logits of tokens that the completion already has; 0 is off."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Subtract this from a token's logit for each time that the completion already has it; 0 is off."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Divide positive logits of tokens that prompt or completion already have by this, and multiply negative ones; 1 is off."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a completion. They are not part of it."""
    thinking_tokens: Annotated[int, Field(ge=0)] | None = None
    """Most tokens of thinking. After them the engine forces the mark that ends the thinking (vLLM's thinking_token_budget). It
    needs the model's marks: `model.reasoning`, or a server with --reasoning-parser. Null forces nothing."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How much the model is to think, as its chat template understands it: `none` asks for no thinking. It is an argument of the
    template, not a limit. Null leaves it to the template."""
    structured: StructuredSpec | None = None
    """Force completions into a form. It is recorded on every sample, and their tokens are left out of the calibration. Null
    forces nothing."""
    keep_top_logprobs: Annotated[int, Field(ge=1, le=20)] | None = None
    """Keep the k likeliest tokens and their log-probabilities at each position, for the view `distill`: 8 k bytes more per
    token. Null keeps only the drawn token's."""
    seeds: Literal["auto", "sample", "engine"] = "auto"
    """`sample` gives each completion a seed derived from its identity, so that a repeated draw is the same; `engine` seeds the
    engine at its start. `auto` is `sample` for vLLM in this process on a GPU, and `engine` on a CPU and over HTTP, where a seed
    may crash vLLM (docs/decisions.md)."""
    calibration: CalibrationSpec = CalibrationSpec()
    """The test that the samples are draws from the model's own distribution."""

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures, at least one."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    @property
    def most(self) -> int:
        """Most completions of a prompt at one temperature."""
        if self.target_hits is None:
            return self.samples_per_prompt
        return self.max_samples_per_prompt or min(65536, 16 * self.samples_per_prompt)

    @property
    def declared(self) -> dict[str, Any]:
        """The settings that force tokens or change the prompt, as JSON values; those that are absent are left out."""
        structured = None if self.structured is None else self.structured.form
        values = {
            "thinking_tokens": self.thinking_tokens,
            "reasoning_effort": self.reasoning_effort,
            "structured": structured,
        }
        return {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _what_is_forced_agrees(self) -> "Sampling":
        if self.thinking_tokens is not None and self.thinking_tokens >= self.max_tokens:
            raise ValueError(
                f"thinking_tokens {self.thinking_tokens} leaves no room for an answer in max_tokens {self.max_tokens}; lower the "
                "former or raise the latter"
            )
        if self.thinking_tokens is not None and self.reasoning_effort == "none":
            raise ValueError("thinking_tokens and reasoning_effort none contradict each other; remove one of them")
        if self.structured is not None and self.stop:
            raise ValueError("structured and stop contradict each other: a stop string cuts the form; remove stop")
        return self

    @model_validator(mode="after")
    def _budget_agrees(self) -> "Sampling":
        if self.samples_per_prompt == 0 and (self.target_hits is not None or not self.anchor):
            raise ValueError("samples_per_prompt 0 draws only the anchors: set anchor, and remove target_hits")
        if self.target_hits is None:
            self._check_fixed_budget()
            return self
        if len(self.temperatures) > 1:
            raise ValueError(
                "target_hits and a list of temperatures contradict each other: temperatures are compared at equal numbers of "
                "samples; remove target_hits, or name one temperature"
            )
        if self.most < self.samples_per_prompt:
            raise ValueError(
                f"max_samples_per_prompt is {self.most}, less than samples_per_prompt {self.samples_per_prompt}; "
                "raise the former or lower the latter"
            )
        if self.target_hits > self.most:
            raise ValueError(
                f"target_hits {self.target_hits} can never be reached with max_samples_per_prompt {self.most}; raise the latter "
                "or lower the former"
            )
        return self

    def _check_fixed_budget(self) -> None:
        for name in ("max_samples_per_prompt", "give_up_below"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} limits the search for target_hits, which is not set; set target_hits, or remove {name}")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperature names one value twice: {list(self.temperatures)}; name each once")
