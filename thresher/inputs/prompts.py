"""Makes prompts from rows: a sandboxed Jinja template per family, worked examples as chat turns, and a reference.

The sandbox denies a template the attributes and calls that could reach the interpreter. It does not stop a template that runs
forever or fills the memory.
"""

import itertools
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import StrictUndefined, Template, TemplateSyntaxError, Undefined, UndefinedError, nodes, pass_eval_context
from jinja2.filters import do_join, make_attrgetter
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.prompt_sets import PromptSet
from schemas.recipe import Recipe
from schemas.sample import PROMPTS, Message, Prompt, to_json
from schemas.suggest import did_you_mean
from thresher import ids
from thresher.errors import SourceError
from thresher.inputs.json_values import json_value, valid_text
from thresher.inputs.sources import Row, rows

log = logging.getLogger(__name__)

_UNDEFINED = re.compile(r"'(\w+)' is undefined")


@dataclass(frozen=True)
class _Templates:
    """The compiled templates of a prompt set, and the fields of its rows that they need."""

    user: Template
    system: Template | None
    reference: Template | None
    answer_fields: tuple[str, ...]
    """The fields that hold the reference, where no template makes it."""
    answer_is_object: bool
    """Whether the reference is an object of these fields; otherwise it is the value of the only one."""
    examples: tuple[Message, ...]
    """The worked examples, between the system and the user message."""
    used_fields: frozenset[str] | None
    """The fields that are converted to JSON; None for all of them."""


def plan(recipe: Recipe, base: Path, *, repeated: Counter[str] | None = None) -> Iterator[Prompt]:
    """Yield the prompts of all sets in order, without repeats: a prompt with the messages and the reference of an earlier one is
    left out and counted in `repeated`, by its family. Paths are relative to `base`. Raises SourceError.

    Memory grows by the 16 bytes of each id (about 100 with Python's overhead).
    """
    repeated = Counter() if repeated is None else repeated
    earlier: set[bytes] = set()
    for prompt_set in recipe.prompts:
        family = prompt_set.family
        for prompt in prompts(prompt_set, base):
            key = bytes.fromhex(prompt.prompt_id)
            if key in earlier:
                repeated[family] += 1
            else:
                earlier.add(key)
                yield prompt
        if repeated[family]:
            log.warning("prompts: family %s: %d repeated and left out", family, repeated[family])


def prompts(prompt_set: PromptSet, base: Path) -> Iterator[Prompt]:
    """Yield the prompts of one set in the order of its rows. The messages are the system message unless it renders to nothing,
    the worked examples, and the user message. Paths are relative to `base`.

    Raises SourceError, with family and row, for a template that does not compile or render, a missing field (with the closest
    name), a null or empty message, or a value that JSON cannot hold; and, after the last row, for a reference that no row has.
    """
    fields: dict[str, None] = {}
    try:
        templates = _compiled_set(prompt_set)
        for where, row in itertools.islice(rows(prompt_set.source, base), prompt_set.limit):
            fields |= dict.fromkeys(row)
            yield _prompt(prompt_set, templates, row, where)
        for field in templates.answer_fields:
            if field not in fields:
                raise SourceError(
                    f"reference: no row has the field {field!r}{did_you_mean(field, fields)}; "
                    f"the rows have {', '.join(fields)}; name one of these, or set reference: null"
                )
    except SourceError as error:
        raise SourceError(f"prompts: family {prompt_set.family}: {error}") from error


def _compiled_set(prompt_set: PromptSet) -> _Templates:
    environment = _environment(prompt_set.family)
    user = _compiled(environment, "template", prompt_set.template)
    system = reference = None
    sources = [prompt_set.template]
    if prompt_set.system is not None:
        system = _compiled(environment, "system", prompt_set.system)
        sources.append(prompt_set.system)
    if prompt_set.reference_template is not None:
        reference = _compiled(environment, "reference_template", prompt_set.reference_template)
        sources.append(prompt_set.reference_template)
    examples = tuple(
        Message(role, valid_text(content, f"few_shot {number}: {role}"))
        for number, turn in enumerate(prompt_set.few_shot)
        for role, content in (("user", turn.user), ("assistant", turn.assistant))
    )
    named = prompt_set.reference if reference is None else None
    answer_fields = () if named is None else (named,) if isinstance(named, str) else named
    used_fields = None
    if prompt_set.metadata is not None:
        in_templates = (find_undeclared_variables(environment.parse(source)) for source in sources)
        used_fields = frozenset().union(*in_templates, prompt_set.metadata, answer_fields)
    return _Templates(user, system, reference, answer_fields, isinstance(named, tuple), examples, used_fields)


def _environment(family: str) -> ImmutableSandboxedEnvironment:
    told = set[bool]()

    def as_text(value: Any) -> Any:
        if isinstance(value, bool) and value not in told:
            told.add(value)
            log.warning(
                "prompts: family %s: a template writes %s; for %s write {{ field | tojson }}", family, value, to_json(value)
            )
        return _as_text(value)

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=as_text
    )
    # Planning a recipe twice must give the same prompts.
    del environment.globals["lipsum"], environment.filters["random"]
    # Jinja's own filter is made for HTML: it escapes < > & '.
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)

    @pass_eval_context
    def join(context: Any, values: Any, d: str = "", attribute: Any = None) -> str:
        parts = values if attribute is None else map(make_attrgetter(environment, attribute), values)
        return str(do_join(context, map(as_text, parts), d))

    environment.filters |= {"string": lambda value: str(as_text(value)), "join": join}
    return environment


def _compiled(environment: ImmutableSandboxedEnvironment, name: str, source: str) -> Template:
    try:
        tree = environment.parse(source)
        for joined in tree.find_all(nodes.Concat):  # `~` writes its operands itself
            joined.nodes = [nodes.Filter(part, "string", [], [], None, None, lineno=part.lineno) for part in joined.nodes]
        tree.set_environment(environment)
        return environment.from_string(tree)
    except TemplateSyntaxError as error:
        raise SourceError(f"{name}:{error.lineno}: not a valid Jinja template: {error.message}") from error


def _prompt(prompt_set: PromptSet, templates: _Templates, row: Row, where: str) -> Prompt:
    used = row if templates.used_fields is None else row.keys() & templates.used_fields
    values = {name: json_value(value, f"{where}: {name}") for name, value in row.items() if name in used}
    question = _rendered(templates.user, values, row, f"{where}: template")
    if not question.strip():
        raise SourceError(f"{where}: template: renders to an empty message; the row has {', '.join(row)}")
    system = _rendered(templates.system, values, row, f"{where}: system") if templates.system else ""
    reference: Any = None
    if templates.reference is not None:
        reference = _rendered(templates.reference, values, row, f"{where}: reference_template")
    elif templates.answer_is_object:
        reference = {name: values[name] for name in templates.answer_fields if name in values}
    elif templates.answer_fields:
        reference = values.get(templates.answer_fields[0])
    kept = prompt_set.metadata
    if kept is None:
        kept = tuple(name for name in values if name not in templates.answer_fields)
    for name in kept:
        if name not in values:
            raise SourceError(f"{where}: metadata: no field {name!r}{did_you_mean(name, row)}; the row has {', '.join(row)}")
    first = (Message("system", system),) if system.strip() else ()
    messages = (*first, *templates.examples, Message("user", question))
    metadata = {name: values[name] for name in kept}
    return Prompt(ids.prompt_id(messages, reference), prompt_set.family, messages, reference, metadata)


class _NotTextError(Exception):
    """A template writes `value`, which is no text; the message says what to write instead."""

    def __init__(self, value: Any, message: str) -> None:
        super().__init__(message)
        self.value = value


def _as_text(value: Any) -> Any:
    """Refuse what Jinja would write as Python spells it: None, ['a', 'b'], {'x': 1}, nan, <generator object ...>."""
    if value is None:
        raise _NotTextError(value, "an expression is null; say what to write instead, as in {{ field or 'unknown' }}")
    if isinstance(value, str | int | Undefined) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, float):
        raise _NotTextError(value, f"an expression is {value}, which is no number in JSON; say what to write instead")
    kind = {"dict": "an object", "list": "a list", "tuple": "a list"}.get(type(value).__name__, f"a {type(value).__name__}")
    raise _NotTextError(value, f"an expression is {kind}, which Python would spell {_spelt(value)}; {_INSTEAD}")


_INSTEAD = "write {{ field | tojson }}, {{ field | join(', ') }}, or one of its parts"


def _spelt(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _rendered(template: Template, values: Mapping[str, Any], row: Row, where: str) -> str:
    try:
        return valid_text(template.render(values), where)
    except SourceError:
        raise
    except _NotTextError as error:
        names = [name for name, value in values.items() if value is error.value and value is not None]
        field = f" (the field {names[0]})" if names else ""
        raise SourceError(f"{where}: {error}{field}; the row has {', '.join(row)}") from error
    except UndefinedError as error:
        missing = _UNDEFINED.fullmatch(error.message or "")
        hint = did_you_mean(missing[1], row) if missing else ""
        raise SourceError(f"{where}: {error.message}{hint}; the row has {', '.join(row)}") from error
    except Exception as error:  # A template can raise anything: a division by zero, bad arguments.
        raise SourceError(f"{where}: {type(error).__name__}: {error}") from error


# -- tables ------------------------------------------------------------------------------------------------------------


def prompt_table(prompts: Sequence[Prompt]) -> pa.Table:
    """Return the prompts as a table of schema PROMPTS, one row each, in order."""
    columns = {
        "prompt_id": [prompt.prompt_id for prompt in prompts],
        "family": [prompt.family for prompt in prompts],
        "messages": [[turn.parts for turn in prompt.messages] for prompt in prompts],
        "reference": [None if prompt.reference is None else to_json(prompt.reference) for prompt in prompts],
        "metadata": [to_json(dict(prompt.metadata)) for prompt in prompts],
        "tools": [prompt.tools for prompt in prompts],
        "template": [prompt.template for prompt in prompts],
    }
    return pa.table(columns, schema=PROMPTS)


def prompts_of(table: pa.Table) -> list[Prompt]:
    """Return the prompts of a table of schema PROMPTS, in order: the inverse of `prompt_table`."""
    return [
        Prompt(
            row["prompt_id"],
            row["family"],
            tuple(Message(**turn) for turn in row["messages"]),
            None if row["reference"] is None else json.loads(row["reference"]),
            json.loads(row["metadata"]),
            row["tools"],
            row["template"],
        )
        for row in table.select(PROMPTS.names).to_pylist()
    ]
