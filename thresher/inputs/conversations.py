"""Makes the messages of a prompt from the conversation in a row: cut as the recipe says, with its system message and worked
examples in front, and with the row's tools and template arguments."""

import re
from collections.abc import Sequence
from typing import Any

from schemas.prompt_sets import DatasetSource, ParquetSource, PromptSet
from schemas.sample import Message
from thresher.inputs.chat_messages import SYSTEM_ROLES, RefusedError, last_answer, read_messages, require_user, without_nulls
from thresher.inputs.files.json_lines import Row
from thresher.inputs.tool_schemas import read_arguments, read_tools

Turns = tuple[Message, ...]

MEDIA_COLUMNS = ("image", "images", "audio", "audios", "video", "videos")
_MARK = re.compile(r"\A\s*<(image|audio|video)>|<(image|audio|video)>\s*\Z")
"""Where the text of a turn shows that an image of another column belongs to it."""


def conversation(prompt_set: PromptSet, row: Row, where: str, further: set[str]) -> tuple[Turns, Message | None]:
    """The turns of a row's conversation up to where `until` cuts it, and the last turn of the assistant among those cut off. Keys
    of turns that messages do not have are added to `further`. Raises RefusedError."""
    place = f"{where}: {prompt_set.messages}"
    turns = read_messages(_field(prompt_set, prompt_set.messages, row), place, further)
    medium = next((name for name in MEDIA_COLUMNS if row.get(name) not in (None, [], "")), None)
    if medium is not None and any(_MARK.search(turn.content) for turn in turns):
        raise RefusedError(
            f"{place}: a turn shows the column {medium}, which cannot be carried", f"a mark for the column {medium}"
        )
    end = _end(turns, prompt_set.until)
    require_user(turns[:end], place)
    number = last_answer(turns[end:])
    return turns[:end], None if number is None else turns[end + number]


def tools_and_arguments(prompt_set: PromptSet, row: Row, where: str) -> tuple[str | None, str | None]:
    """The tools and the template arguments of a row, as JSON text. Raises RefusedError."""
    tools = _field(prompt_set, prompt_set.tools, row)
    kwargs = prompt_set.chat_template_kwargs
    arguments = _field(prompt_set, kwargs, row) if isinstance(kwargs, str) else kwargs
    return read_tools(tools, f"{where}: tools"), read_arguments(arguments, f"{where}: chat_template_kwargs")


def with_front(system: str, examples: Sequence[Message], turns: Turns, where: str) -> Turns:
    """Put the recipe's system message and worked examples in front of turns: the examples after a system message of the turns.
    Raises RefusedError where both have a system message."""
    own = next((number for number, turn in enumerate(turns) if turn.role not in SYSTEM_ROLES), len(turns))
    if system.strip() and own:
        raise RefusedError(
            f"{where}: the conversation has a system message, and so has the recipe; make `system` render to nothing for such "
            "rows, or remove it",
            "a system message of its own",
        )
    front = (Message("system", system),) if system.strip() else turns[:own]
    return (*front, *examples, *turns[own:])


def _field(prompt_set: PromptSet, name: str | None, row: Row) -> Any:
    """The value of a field. A column of Arrow fills objects with the keys of all rows, so null keys are left out there."""
    value = None if name is None else row.get(name)
    return without_nulls(value) if isinstance(prompt_set.source, ParquetSource | DatasetSource) else value


def _end(turns: Turns, until: str) -> int:
    """How many turns the prompt has."""
    if until == "last_user":
        return next((number + 1 for number in reversed(range(len(turns))) if turns[number].role == "user"), 0)
    number = last_answer(turns) if until == "before_answer" else None
    return len(turns) if number is None else number
