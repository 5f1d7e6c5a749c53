"""Makes prompts of rows: a sandboxed Jinja template per family, few-shot turns, a reference."""

import difflib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.recipe import PromptSet, Recipe
from schemas.sample import PROMPTS, Message, Prompt, to_json
from thresher import ids
from thresher.errors import SourceError
from thresher.sources import plain, rows

log = logging.getLogger(__name__)


def plan(recipe: Recipe, base: Path) -> Iterator[Prompt]:
    """All prompts of a recipe in order; one that was there already (same messages, same reference) is left out and counted."""
    seen: set[bytes] = set()
    for prompt_set in recipe.prompts:
        repeated = 0
        for prompt in prompts(prompt_set, base):
            key = bytes.fromhex(prompt.prompt_id)
            if key in seen:
                repeated += 1
                continue
            seen.add(key)
            yield prompt
        if repeated:
            log.warning("prompts: family %s: %d prompts were there already and are left out", prompt_set.family, repeated)


def prompts(prompt_set: PromptSet, base: Path) -> Iterator[Prompt]:
    """The prompts of one family. Raises SourceError that names the row, the field that is missing and the nearest there is."""
    family = f"prompts: family {prompt_set.family}"
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)

    def compiled(text: str, name: str) -> Any:
        try:
            return environment.from_string(text)
        except TemplateSyntaxError as error:
            raise SourceError(f"{family}: {name}: not a valid Jinja template: {error.message} (line {error.lineno})") from error

    user = compiled(prompt_set.template, "template")
    system = compiled(prompt_set.system, "system") if prompt_set.system is not None else None
    reference = (
        compiled(prompt_set.reference_template, "reference_template") if prompt_set.reference_template is not None else None
    )
    shots = [m for turn in prompt_set.few_shot for m in (Message("user", turn.user), Message("assistant", turn.assistant))]

    count = with_reference = 0
    fields: list[str] = []
    for where, row in rows(prompt_set.source, base):
        if prompt_set.limit is not None and count >= prompt_set.limit:
            break
        count += 1
        fields = fields or list(row)
        row = {name: plain(value, f"{where}: {name}") for name, value in row.items()}
        content = _rendered(user, row, f"{where}: template of family {prompt_set.family}")
        if not content.strip():
            raise SourceError(f"{where}: the template of family {prompt_set.family} gives an empty prompt")
        first = [Message("system", _rendered(system, row, f"{where}: system"))] if system else []
        messages = (*first, *shots, Message("user", content))
        if reference is not None:
            answer = _rendered(reference, row, f"{where}: reference_template")
        else:
            answer = row.get(prompt_set.reference) if prompt_set.reference else None
        with_reference += answer is not None
        yield Prompt(ids.prompt_id(messages, answer), prompt_set.family, messages, answer, _metadata(prompt_set, row, where))
    if not count:
        raise SourceError(f"{family}: its source ({prompt_set.source.kind}) holds no rows; give it some or take the family out")
    if prompt_set.reference and reference is None and not with_reference and prompt_set.reference not in fields:
        near = difflib.get_close_matches(prompt_set.reference, fields, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SourceError(
            f"{family}: no row has the reference field {prompt_set.reference!r}{hint}; rows have {fields}; "
            "name another, or set reference: null"
        )


def _metadata(prompt_set: PromptSet, row: dict[str, Any], where: str) -> dict[str, Any]:
    if prompt_set.metadata is None:
        return {name: value for name, value in row.items() if name != prompt_set.reference}
    missing = [name for name in prompt_set.metadata if name not in row]
    if missing:
        raise SourceError(f"{where}: lacks the metadata field {missing[0]!r}; it has {list(row)}")
    return {name: row[name] for name in prompt_set.metadata}


def _rendered(template: Any, row: dict[str, Any], where: str) -> str:
    try:
        text: str = template.render(row)
        return text
    except UndefinedError as error:
        name = str(error.message).split("'")[1] if "'" in str(error.message) else ""
        near = difflib.get_close_matches(name, list(row), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SourceError(f"{where}: {error.message}{hint}; the row has {list(row)}") from error
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise SourceError(f"{where}: {type(error).__name__}: {error}") from error


def prompt_table(prompts: Sequence[Prompt]) -> pa.Table:
    """Prompts as rows of schema PROMPTS."""
    return pa.table(
        {
            "prompt_id": [prompt.prompt_id for prompt in prompts],
            "family": [prompt.family for prompt in prompts],
            "messages": [[{"role": m.role, "content": m.content} for m in prompt.messages] for prompt in prompts],
            "reference": [None if prompt.reference is None else to_json(prompt.reference) for prompt in prompts],
            "metadata": [to_json(dict(prompt.metadata)) for prompt in prompts],
        },
        schema=PROMPTS,
    )


def prompts_of(table: pa.Table) -> list[Prompt]:
    """The inverse of `prompt_table`."""
    return [
        Prompt(
            row["prompt_id"],
            row["family"],
            tuple(Message(**message) for message in row["messages"]),
            None if row["reference"] is None else json.loads(row["reference"]),
            json.loads(row["metadata"]),
        )
        for row in table.to_pylist()
    ]
