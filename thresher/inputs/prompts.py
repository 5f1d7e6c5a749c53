"""Makes prompts from rows: a sandboxed Jinja template per family, or a conversation as it is; worked examples as chat turns,
tools, and a reference.

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
from thresher.inputs.chat_messages import RefusedError, simple_calls
from thresher.inputs.conversations import conversation, tools_and_arguments, with_front
from thresher.inputs.files.json_lines import Row
from thresher.inputs.json_values import json_value, valid_text
from thresher.inputs.sources import NOT_READ, Columns, rows

log = logging.getLogger(__name__)

TEMPLATE_RAISES = "a template gives no text"
"""Why a row is left out whose template, system message or reference cannot be rendered."""
HOPELESS = 1000
"""Rows from the first on that may all be left out for that before the rest is not tried."""
_UNDEFINED = re.compile(r"'(\w+)' is undefined")


@dataclass(frozen=True)
class _Templates:
    """The compiled templates of a prompt set, and the fields of its rows that they need."""

    user: Template | None
    """None where the rows hold conversations."""
    system: Template | None
    reference: Template | None
    answer_fields: tuple[str, ...]
    """The fields that hold the reference, where no template makes it."""
    answer_is_object: bool
    """Whether the reference is an object of these fields; otherwise it is the value of the only one."""
    examples: tuple[Message, ...]
    """The worked examples, between the system and the user message."""
    decisive: frozenset[str]
    """The fields that templates and reference name, which decide what a prompt is."""
    named: frozenset[str]
    """These, and those that metadata names."""
    chats: frozenset[str]
    """The fields of the conversation, its tools and its template arguments: they are metadata only where named."""


Refusals = dict[str, Counter[str]]
"""For each family, how many rows were left out for each reason."""


def plan(
    recipe: Recipe, base: Path, *, repeated: Counter[str] | None = None, refused: Refusals | None = None
) -> Iterator[Prompt]:
    """Yield the prompts of all sets in order, without repeats: a prompt with the content of an earlier one is left out and
    counted in `repeated`, by its family. Rows that cannot be carried are left out and counted in `refused`. Paths are relative to
    `base`. Raises SourceError.

    Memory grows by the 16 bytes of each id (about 100 with Python's overhead).
    """
    repeated = Counter() if repeated is None else repeated
    earlier: set[bytes] = set()
    for prompt_set in recipe.prompts:
        family = prompt_set.family
        reasons: Counter[str] = Counter()
        for prompt in prompts(prompt_set, base, reasons):
            key = bytes.fromhex(prompt.prompt_id)
            if key in earlier:
                repeated[family] += 1
            else:
                earlier.add(key)
                yield prompt
        if repeated[family]:
            log.warning("prompts: family %s: %d repeated and left out", family, repeated[family])
        if reasons and refused is not None:
            refused[family] = reasons


def prompts(prompt_set: PromptSet, base: Path, refused: Counter[str] | None = None) -> Iterator[Prompt]:
    """Yield the prompts of one set in the order of its rows. The messages are the system message unless it renders to nothing,
    the worked examples, and the user message or the conversation. Paths are relative to `base`.

    A row whose conversation, tools or template arguments cannot be carried, or for which a template raises or renders to nothing,
    is left out, counted in `refused` by its reason, and logged with the first of its kind.

    Raises SourceError, with family and row, for a template that does not compile, a missing field of `metadata` (with the closest
    name), or a value that JSON cannot hold; and, after the last row, for a reference that no row has and where no row could be
    carried.
    """
    refused = Counter() if refused is None else refused
    fields: dict[str, None] = {}
    notes = _Notes(refused, {}, set(), Counter())
    carried = 0
    try:
        templates = _compiled_set(prompt_set)
        columns = Columns(templates.named | templates.chats, prompt_set.metadata is None, templates.chats)
        for where, row in itertools.islice(rows(prompt_set.source, base, columns), prompt_set.limit):
            fields |= dict.fromkeys(row)
            try:
                prompt = _prompt(prompt_set, templates, row, where, notes)
            except RefusedError as error:
                refused[error.reason] += 1
                notes.first.setdefault(error.reason, str(error))
                if not carried and refused[TEMPLATE_RAISES] == HOPELESS:
                    break
                continue
            carried += 1
            yield prompt
        _report(prompt_set, templates, fields, carried, notes)
    except SourceError as error:
        raise SourceError(f"prompts: family {prompt_set.family}: {error}") from error


@dataclass(frozen=True)
class _Notes:
    """What is said about a set once, after its last row."""

    refused: Counter[str]
    first: dict[str, str]
    """The first row of each reason."""
    further: set[str]
    """Keys of turns that messages do not have."""
    answered: Counter[str]
    """Conversations that end with a turn of the assistant, by the place of the first of them."""


def _report(prompt_set: PromptSet, templates: _Templates, fields: dict[str, None], carried: int, notes: _Notes) -> None:
    """Log what was left out. Raises SourceError for fields that no row has, and where no row could be carried."""
    wanted = [("messages", prompt_set.messages), ("tools", prompt_set.tools)]
    if isinstance(prompt_set.chat_template_kwargs, str):
        wanted.append(("chat_template_kwargs", prompt_set.chat_template_kwargs))
    for setting, field in (*wanted, *(("reference", field) for field in templates.answer_fields)):
        if field is not None and field not in fields:
            none = ", or set reference: null" if setting == "reference" else ""
            raise SourceError(
                f"{setting}: no row has the field {field!r}{did_you_mean(field, fields)}; "
                f"the rows have {', '.join(fields)}; name one of these{none}"
            )
    family = prompt_set.family
    for reason, count in notes.refused.most_common():
        if carried:
            log.warning("prompts: family %s: %d rows left out (%s); the first: %s", family, count, reason, notes.first[reason])
    if not carried and set(notes.refused) == {TEMPLATE_RAISES}:
        raise SourceError(notes.first[TEMPLATE_RAISES])
    if notes.refused and not carried:
        counts = ", ".join(f"{count}: {reason}" for reason, count in notes.refused.most_common())
        first = notes.first[notes.refused.most_common(1)[0][0]]
        raise SourceError(f"no row can be carried ({counts}); the first: {first}")
    for place, count in notes.answered.items():
        log.warning(
            "prompts: family %s: %d conversations end with a turn of the assistant, and the model is asked for another; "
            "until: last_user or before_answer cuts it off; the first: %s",
            family, count, place,
        )  # fmt: skip
    if notes.further:
        log.warning("prompts: family %s: messages have no place for %s; left out", family, ", ".join(sorted(notes.further)))


def _compiled_set(prompt_set: PromptSet) -> _Templates:
    environment = _environment(prompt_set.family)
    user = system = reference = None
    sources = []
    if prompt_set.template is not None:
        user = _compiled(environment, "template", prompt_set.template)
        sources.append(prompt_set.template)
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
    per_row = prompt_set.chat_template_kwargs if isinstance(prompt_set.chat_template_kwargs, str) else None
    chats = frozenset(filter(None, (prompt_set.messages, prompt_set.tools, per_row)))
    in_templates = (find_undeclared_variables(environment.parse(source)) for source in sources)
    decisive = frozenset[str]().union(*in_templates, answer_fields)
    used = decisive.union(prompt_set.metadata or ())
    return _Templates(user, system, reference, answer_fields, isinstance(named, tuple), examples, decisive, used, chats)


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
    except RecursionError as error:
        raise SourceError(f"{name}: not a valid Jinja template: too many levels") from error


def _prompt(prompt_set: PromptSet, templates: _Templates, row: Row, where: str, notes: _Notes) -> Prompt:
    turns: tuple[Message, ...] = ()
    answer = None
    if templates.user is None:
        turns, answer = conversation(prompt_set, row, where, notes.further)
        if turns[-1].role == "assistant":
            notes.answered[next(iter(notes.answered), where)] += 1
    tools, arguments = tools_and_arguments(prompt_set, row, where)
    values = _values(prompt_set, templates, row, where)
    if templates.user is not None:
        question = _rendered(templates.user, values, row, f"{where}: template")
        if not question.strip():
            raise RefusedError(f"{where}: template: renders to an empty message; the row has {', '.join(row)}", TEMPLATE_RAISES)
        turns = (Message("user", question),)
    system = _rendered(templates.system, values, row, f"{where}: system") if templates.system else ""
    messages = with_front(system, templates.examples, turns, where)
    reference: Any = None
    if templates.reference is not None:
        reference = _rendered(templates.reference, values, row, f"{where}: reference_template")
    elif prompt_set.reference_from_messages:
        reference = None if answer is None else simple_calls(answer.tool_calls) if answer.tool_calls else answer.content
    elif templates.answer_is_object:
        reference = {name: values[name] for name in templates.answer_fields if name in values}
    elif templates.answer_fields:
        reference = values.get(templates.answer_fields[0])
    kept = prompt_set.metadata
    if kept is None:
        kept = tuple(name for name in values if name not in templates.answer_fields and name not in templates.chats)
    for name in kept:
        if name not in values:
            raise SourceError(f"{where}: metadata: no field {name!r}{did_you_mean(name, row)}; the row has {', '.join(row)}")
    metadata = {name: values[name] for name in kept}
    prompt_id = ids.prompt_id(messages, reference, tools, arguments)
    return Prompt(prompt_id, prompt_set.family, messages, reference, metadata, tools, arguments)


def _values(prompt_set: PromptSet, templates: _Templates, row: Row, where: str) -> dict[str, Any]:
    """The values that templates, reference and metadata may use, as JSON. NaN and infinity are refused in those of templates and
    reference only: metadata keeps them as texts."""
    used = templates.named if prompt_set.metadata is not None else templates.named | (row.keys() - templates.chats)
    return {
        name: json_value(value, f"{where}: {name}", finite=name in templates.decisive)
        for name, value in row.items()
        if name in used and value is not NOT_READ
    }


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
        raise RefusedError(f"{where}: {error}{field}; the row has {', '.join(row)}", TEMPLATE_RAISES) from error
    except UndefinedError as error:
        missing = _UNDEFINED.fullmatch(error.message or "")
        hint = did_you_mean(missing[1], row) if missing else ""
        raise RefusedError(f"{where}: {error.message}{hint}; the row has {', '.join(row)}", TEMPLATE_RAISES) from error
    except Exception as error:  # A template can raise anything: a division by zero, bad arguments.
        raise RefusedError(f"{where}: {type(error).__name__}: {error}", TEMPLATE_RAISES) from error


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
