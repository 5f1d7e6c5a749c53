"""Shows prompts as the model reads them, and counts their tokens: through the model's own chat template, or by asking its server.

No engine is started. A table that replays answers has no template, so of its prompts only the messages are shown.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from filters.reasoning import USUAL, Marking, opens_thinking
from schemas.engines import HttpEngine, VllmEngine
from schemas.recipe import Recipe
from schemas.sample import Message, Prompt
from thresher.errors import EngineError, ModelError, SourceError
from thresher.estimators.calibration import Quota
from thresher.inputs import models
from thresher.inputs.thinking import marking_of
from thresher.samplers.openai_http import HttpSampler
from thresher.samplers.sampler import Group, draw_parameters
from thresher.samplers.vllm_process import Tokeniser

BATCH = 1024
"""Prompts that are tokenised in one call."""
ASKED = 8
"""Prompts of a family, the longest by characters, whose tokens a server is asked for besides those of the first one."""
SHOWN_MESSAGES = 6
SHOWN_LINES = 14
SHOWN_CHARS = 110


@dataclass(frozen=True)
class Rendered:
    """The first prompt of a family as the model reads it, and the tokens of the family's prompts.

    `text`, `tokens` and `thinking` (where thinking begins) are None if they cannot be known. `counted` prompts were tokenised and
    have `fewest` to `most` tokens. `too_long` of them leave no room for sampling.max_tokens in the `context`.
    """

    family: str
    prompts: int
    messages: tuple[dict[str, Any], ...]
    text: str | None = None
    tokens: int | None = None
    thinking: str | None = None
    counted: int = 0
    fewest: int | None = None
    most: int | None = None
    context: int | None = None
    too_long: int = 0
    model: str = ""
    """The model, in words, where the recipe names several."""

    def lines(self) -> list[str]:
        """Return it as lines of text, long messages and texts shortened."""
        heading = f"{self.model + ', ' if self.model else ''}{self.family}: {self.prompts} prompts"
        if self.counted:
            which = "" if self.counted == self.prompts else "the first and the longest "
            heading += f", {which}{self.fewest} to {self.most} tokens" if self.fewest != self.most else f", {self.most} tokens"
        shown = [heading, *turn_lines(self.messages)]
        if self.text is not None:
            shown.append(f"  as the model reads it, {self.tokens} tokens; {self.thinking}:")
            shown += _middle_out([cut(f"  | {line}") for line in self.text.splitlines()], SHOWN_LINES, "lines")
        elif self.tokens is not None:
            shown.append(f"  {self.tokens} tokens")
        return shown


class Rendering(NamedTuple):
    """The first prompts of all families, what is wrong with prompts or model, and what could not be found out."""

    rendered: tuple[Rendered, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def render(recipe: Recipe, base: Path, prompts: Iterable[Prompt]) -> Rendering:
    """Render the first prompt of each family, and count the tokens of all prompts; a server is asked for those of the longest."""
    families: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        families.setdefault(prompt.family, []).append(prompt)
    plain = tuple(_plain(family, members) for family, members in families.items())
    if isinstance(recipe.engine, VllmEngine):
        return _by_template(recipe, recipe.engine, base, families, plain)
    if isinstance(recipe.engine, HttpEngine):
        return _by_server(recipe, recipe.engine, base, families, plain)
    return Rendering(plain)


def where_thinking_begins(text: str, marking: Marking | None) -> str:
    """Say where the thinking of a model begins that continues this text."""
    if marking is None:
        return "reasoning is not taken apart (model.reasoning is null)"
    tail = text.rstrip()
    if opens_thinking(text, marking):
        return f"thinking begins in the prompt, by {next(start for start, _ in marking.pairs if tail.endswith(start))}"
    if closed := [end for _, end in marking.pairs if tail.endswith(end)]:
        return f"the prompt ends the thinking, by {closed[0]}"
    if marking == USUAL:
        return "the model has no thinking marks"
    marks = [start for start, _ in marking.pairs] or ["its channels"]
    return f"thinking begins in the completion, by {' or '.join(marks)}"


def turn_lines(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return messages for a terminal: one line for each, without those in the middle if there are many."""
    lines = []
    for turn in messages:
        further = "".join(f" [{name}]" for name in turn if name not in {"role", "content"})
        content = str(turn["content"] or "").strip().replace("\n", "\\n")
        lines.append(cut(f"  {turn['role']}: {content}{further}"))
    return _middle_out(lines, SHOWN_MESSAGES, "messages")


def cut(line: str) -> str:
    """Shorten a line for a terminal."""
    return line if len(line) <= SHOWN_CHARS else f"{line[:SHOWN_CHARS]}..."


# -- through the model's own template ------------------------------------------------------------------------------------


def _by_template(
    recipe: Recipe,
    engine: VllmEngine,
    base: Path,
    families: Mapping[str, Sequence[Prompt]],
    plain: tuple[Rendered, ...],
) -> Rendering:
    spec = recipe.model
    try:
        model = models.resolve(spec.name, spec.revision, base=base)
        tokeniser = Tokeniser(model, spec.prompt_format, engine)
    except (ModelError, EngineError) as error:
        return Rendering(plain, (str(error),))
    except ImportError as error:
        return Rendering(plain, notes=(f"the prompts are not rendered: {error}; install thresher[cpu] or thresher[gpu]",))
    except Exception as error:  # noqa: BLE001 - a tokenizer's files may be damaged in any way
        return Rendering(plain, (f"model {spec.name!r}: its tokenizer does not load: {type(error).__name__}: {error}",))
    context = min((size for size in (engine.max_model_len, model.context_tokens) if size is not None), default=None)
    marking = marking_of(spec, model.path)
    rendered, faults = [], list[str]()
    for known in plain:
        members = families[known.family]
        texts = _Texts(tokeniser)
        first = texts.of(members[0])
        lengths = [texts.lengths(members[start : start + BATCH]) for start in range(0, len(members), BATCH)]
        entry = _counted(known, np.concatenate(lengths), context, recipe)
        if first is not None:
            tokens = int(tokeniser.lengths([first])[0])
            entry = replace(entry, text=first, tokens=tokens, thinking=where_thinking_begins(first, marking))
        rendered.append(entry)
        faults += [*texts.faults(known), *_too_long(entry, recipe)]
    return Rendering(tuple(rendered), tuple(faults))


class _Texts:
    """Renders prompts by a tokeniser, and keeps the first one that the template refuses."""

    def __init__(self, tokeniser: Tokeniser) -> None:
        self._tokeniser = tokeniser
        self._refused: tuple[Prompt, Exception] | None = None
        self._refusals = set[str]()

    def of(self, prompt: Prompt, messages: Sequence[Message] | None = None) -> str | None:
        try:
            turns = prompt.messages if messages is None else messages
            return self._tokeniser.text(turns, to_continue=True, tools=prompt.tools, template=prompt.template)
        except Exception as error:  # noqa: BLE001 - a template may raise anything
            if messages is None:
                self._refused = self._refused or (prompt, error)
                self._refusals.add(prompt.prompt_id)
            return None

    def lengths(self, prompts: Sequence[Prompt]) -> NDArray[np.int64]:
        """Tokens of each prompt that the template renders."""
        texts = [text for prompt in prompts if (text := self.of(prompt)) is not None]
        return self._tokeniser.lengths(texts) if texts else np.zeros(0, np.int64)

    def faults(self, known: Rendered) -> list[str]:
        if self._refused is None:
            return []
        prompt, error = self._refused
        role = _refused_role(prompt.messages, lambda messages: self.of(prompt, messages) is not None)
        return [_refusal(known, prompt, role, str(error) or type(error).__name__, f"{len(self._refusals)} of {known.prompts}")]


def _refused_role(messages: Sequence[Message], renders: Callable[[Sequence[Message]], bool]) -> str | None:
    """The role of the message that a template refuses: the system message, or the first after which it renders no more. None if
    no message is at fault alone."""
    if messages[0].role == "system" and len(messages) > 1 and renders(messages[1:]):
        return "system"
    works = [renders(messages[:length]) for length in range(1, len(messages) + 1)]
    return next((messages[n].role for n in range(1, len(messages)) if works[n - 1] and not any(works[n:])), None)


# -- by a server ---------------------------------------------------------------------------------------------------------


def _by_server(
    recipe: Recipe, engine: HttpEngine, base: Path, families: Mapping[str, Sequence[Prompt]], plain: tuple[Rendered, ...]
) -> Rendering:
    marking = marking_of(recipe.model, "")
    rendered, faults, notes = [], list[str](), list[str]()
    try:
        with HttpSampler(engine, recipe.model.name, quota=Quota(0), seeds=recipe.sampling.seeds, base=base) as server:
            for known in plain:
                entry, more = _asked(server, known, families[known.family], recipe, marking)
                rendered.append(entry)
                faults += more
    except EngineError as error:
        return Rendering(plain, (str(error),))
    if any(entry.text is None for entry in rendered) and not faults:
        notes.append("the server renders the prompts, and does not show them: their tokens are not counted")
    return Rendering(tuple(rendered), tuple(faults), tuple(notes))


def _asked(
    server: HttpSampler, known: Rendered, prompts: Sequence[Prompt], recipe: Recipe, marking: Marking | None
) -> tuple[Rendered, list[str]]:
    """The first prompt as a server reads it, and the tokens of the longest ones."""
    longest = sorted(prompts[1:], key=lambda prompt: -sum(len(message.content) for message in prompt.messages))
    entry, lengths, context = known, list[int](), 0
    for prompt in (prompts[0], *longest[:ASKED]):
        try:
            read = server.tokenise(_group(prompt, recipe))
        except SourceError as error:

            def accepts(messages: Sequence[Message], prompt: Prompt = prompt) -> bool:
                try:
                    return server.tokenise(replace(_group(prompt, recipe), messages=tuple(messages))) is not None
                except SourceError:
                    return False

            return entry, [_refusal(known, prompt, _refused_role(prompt.messages, accepts), str(error), "at least 1")]
        if read is None:
            return known, []
        if prompt is prompts[0]:
            thinking = None if read.text is None else where_thinking_begins(read.text, marking)
            entry = replace(known, text=read.text, tokens=read.tokens, thinking=thinking)
        lengths.append(read.tokens)
        context = read.context
    entry = _counted(entry, np.array(lengths, np.int64), context or None, recipe)
    return entry, _too_long(entry, recipe)


def _group(prompt: Prompt, recipe: Recipe) -> Group:
    parameters = draw_parameters(recipe.sampling, recipe.sampling.temperatures[0])
    return Group(0, prompt.messages, 1, parameters, tools=prompt.tools, template=prompt.template)


# -- in words ------------------------------------------------------------------------------------------------------------


def _plain(family: str, prompts: Sequence[Prompt]) -> Rendered:
    return Rendered(family, len(prompts), tuple(message.as_chat() for message in prompts[0].messages))


def _counted(entry: Rendered, lengths: NDArray[np.int64], context: int | None, recipe: Recipe) -> Rendered:
    if not len(lengths):
        return replace(entry, context=context)
    too_long = 0 if context is None else int((lengths > context - recipe.sampling.max_tokens).sum())
    fewest, most = int(lengths.min()), int(lengths.max())
    return replace(entry, counted=len(lengths), fewest=fewest, most=most, context=context, too_long=too_long)


def _too_long(entry: Rendered, recipe: Recipe) -> list[str]:
    if not entry.too_long:
        return []
    raised = "start the server with a longer context" if isinstance(recipe.engine, HttpEngine) else "raise engine.max_model_len"
    longest = recipe.sampling.max_tokens
    words = (
        f"prompts: family {entry.family}: {entry.too_long} of the {entry.counted} prompts counted leave no room for "
        f"sampling.max_tokens {longest} in the context of {entry.context}; the longest has {entry.most} tokens; "
        f"shorten them, lower max_tokens or {raised}"
    )
    return [words]


def _refusal(known: Rendered, prompt: Prompt, role: str | None, words: str, count: str) -> str:
    roles = ", ".join(dict.fromkeys(message.role for message in prompt.messages))
    what = f"refuses the role {role}" if role is not None else f"fails on a prompt with the roles {roles}"
    todo = "leave out `system`, or write it into `template`" if role == "system" else "change the prompts, or take another model"
    return f"prompts: family {known.family}: the model's chat template {what}: {words.strip()} ({count} prompts); {todo}"


def _middle_out(lines: list[str], most: int, what: str) -> list[str]:
    """The first and the last lines, if there are too many; a gap is at least three lines."""
    if len(lines) <= most + 2:
        return lines
    half = most // 2
    return [*lines[:half], f"  ... {len(lines) - 2 * half} {what} more", *lines[-half:]]
