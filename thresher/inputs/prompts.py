"""Makes prompts of rows: a sandboxed Jinja template per family, worked examples as chat turns, a reference.

The sandbox keeps a template from attributes and calls that could reach the interpreter. It does not stop one that runs
forever or fills the memory.
"""

import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.prompt_sets import PromptSet
from schemas.recipe import Recipe
from schemas.sample import PROMPTS, Message, Prompt, to_json
from schemas.suggest import did_you_mean
from thresher import ids
from thresher.errors import SourceError
from thresher.inputs.sources import Row, plain, rows, text

log = logging.getLogger(__name__)

_UNDEFINED = re.compile(r"'(\w+)' is undefined")


@dataclass(frozen=True)
class _Templates:
    """One set, compiled: its templates, the fields with the answer where no template makes the reference (and whether they make
    an object), the turns between system and user message, and the fields that are used (None: all)."""

    user: Template
    system: Template | None
    reference: Template | None
    answer: tuple[str, ...]
    several: bool
    shots: tuple[Message, ...]
    fields: frozenset[str] | None


def plan(recipe: Recipe, base: Path, *, repeated: Counter[str] | None = None) -> Iterator[Prompt]:
    """Yield the prompts of all sets in order, each once: one that was there before, with the same messages and the same
    reference, is left out and counted in `repeated` by its family. Paths are relative to `base`. Raises SourceError.

    Memory grows by the 16 bytes of each id (about 100 with Python's overhead).
    """
    repeated = Counter() if repeated is None else repeated
    seen: set[bytes] = set()
    for prompt_set in recipe.prompts:
        family = prompt_set.family
        for prompt in prompts(prompt_set, base):
            key = bytes.fromhex(prompt.prompt_id)
            if key in seen:
                repeated[family] += 1
            else:
                seen.add(key)
                yield prompt
        if repeated[family]:
            log.warning("prompts: family %s: %d repeated and left out", family, repeated[family])


def prompts(prompt_set: PromptSet, base: Path) -> Iterator[Prompt]:
    """Yield the prompts of one set in the order of its rows: the system message unless it renders to nothing, the
    worked examples, the user's message. Paths are relative to `base`.

    Raises SourceError that names family and row for a template that does not compile or render, a missing field (with
    the nearest there is), a null or empty message, a value that JSON cannot hold; and, after the last row, for a
    reference that no row has.
    """
    fields: dict[str, None] = {}
    try:
        templates = _compiled(prompt_set)
        for where, row in itertools.islice(rows(prompt_set.source, base), prompt_set.limit):
            fields |= dict.fromkeys(row)
            yield _prompt(prompt_set, templates, row, where)
        for wanted in templates.answer:
            if wanted not in fields:
                raise SourceError(
                    f"reference: no row has the field {wanted!r}{did_you_mean(wanted, fields)}; "
                    f"the rows have {', '.join(fields)}; name one of these, or set reference: null"
                )
    except SourceError as error:
        raise SourceError(f"prompts: family {prompt_set.family}: {error}") from error


def _compiled(prompt_set: PromptSet) -> _Templates:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_no_null
    )
    # A plan must come out the same each time.
    del environment.globals["lipsum"], environment.filters["random"]
    # Jinja's own is made for HTML: it spells < > & ' as escapes.
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    fields: set[str] = set()

    def compiled(name: str, source: str | None) -> Template | None:
        if source is None:
            return None
        try:
            fields.update(find_undeclared_variables(environment.parse(source)))
            return environment.from_string(source)
        except TemplateSyntaxError as error:
            raise SourceError(f"{name}:{error.lineno}: not a valid Jinja template: {error.message}") from error

    user = compiled("template", prompt_set.template)
    assert user is not None
    system = compiled("system", prompt_set.system)
    reference = compiled("reference_template", prompt_set.reference_template)
    shots = tuple(
        Message(role, text(content, f"few_shot {number}: {role}"))
        for number, turn in enumerate(prompt_set.few_shot)
        for role, content in (("user", turn.user), ("assistant", turn.assistant))
    )
    named = prompt_set.reference if reference is None else None
    answer = () if named is None else (named,) if isinstance(named, str) else named
    used = None
    if prompt_set.metadata is not None:
        used = frozenset(fields.union(prompt_set.metadata, answer))
    return _Templates(user, system, reference, answer, isinstance(named, tuple), shots, used)


def _prompt(prompt_set: PromptSet, templates: _Templates, row: Row, where: str) -> Prompt:
    used = row if templates.fields is None else row.keys() & templates.fields
    values = {name: plain(value, f"{where}: {name}") for name, value in row.items() if name in used}
    asked = _rendered(templates.user, values, row, f"{where}: template")
    if not asked.strip():
        raise SourceError(f"{where}: template: renders to an empty message; the row has {', '.join(row)}")
    system = _rendered(templates.system, values, row, f"{where}: system") if templates.system else ""
    reference: Any = None
    if templates.reference is not None:
        reference = _rendered(templates.reference, values, row, f"{where}: reference_template")
    elif templates.several:
        reference = {name: values[name] for name in templates.answer if name in values}
    elif templates.answer:
        reference = values.get(templates.answer[0])
    kept = prompt_set.metadata
    if kept is None:
        kept = tuple(name for name in values if name not in templates.answer)
    for name in kept:
        if name not in values:
            raise SourceError(f"{where}: metadata: no field {name!r}{did_you_mean(name, row)}; the row has {', '.join(row)}")
    first = (Message("system", system),) if system.strip() else ()
    messages = (*first, *templates.shots, Message("user", asked))
    metadata = {name: values[name] for name in kept}
    return Prompt(ids.prompt_id(messages, reference), prompt_set.family, messages, reference, metadata)


def _no_null(value: Any) -> Any:
    """Jinja would write None, in words, where a field is null."""
    if value is None:
        raise UndefinedError("an expression is null; say what to write instead, as in {{ field or 'unknown' }}")
    return value


def _rendered(template: Template, values: Mapping[str, Any], row: Row, where: str) -> str:
    try:
        return text(template.render(values), where)
    except SourceError:
        raise
    except UndefinedError as error:
        missing = _UNDEFINED.fullmatch(error.message or "")
        hint = did_you_mean(missing[1], row) if missing else ""
        raise SourceError(f"{where}: {error.message}{hint}; the row has {', '.join(row)}") from error
    except Exception as error:  # a template calls what it likes: divisions by zero, bad arguments
        raise SourceError(f"{where}: {type(error).__name__}: {error}") from error


# -- tables ------------------------------------------------------------------------------------------------------------


def prompt_table(prompts: Sequence[Prompt]) -> pa.Table:
    """Prompts as a table of schema PROMPTS, a row each, in order."""
    columns = {
        "prompt_id": [prompt.prompt_id for prompt in prompts],
        "family": [prompt.family for prompt in prompts],
        "messages": [[{"role": turn.role, "content": turn.content} for turn in one.messages] for one in prompts],
        "reference": [None if prompt.reference is None else to_json(prompt.reference) for prompt in prompts],
        "metadata": [to_json(dict(prompt.metadata)) for prompt in prompts],
    }
    return pa.table(columns, schema=PROMPTS)


def prompts_of(table: pa.Table) -> list[Prompt]:
    """The prompts of a table of schema PROMPTS, in order: the inverse of `prompt_table`."""
    return [
        Prompt(
            row["prompt_id"],
            row["family"],
            tuple(Message(**turn) for turn in row["messages"]),
            None if row["reference"] is None else json.loads(row["reference"]),
            json.loads(row["metadata"]),
        )
        for row in table.select(PROMPTS.names).to_pylist()
    ]
