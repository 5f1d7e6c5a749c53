"""How a model marks its thinking: from the recipe, its chat template and its tokenizer."""

import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from filters.reasoning import CHANNEL, USUAL, USUAL_MARKS, Marking, Pair
from schemas.engines import Marks, ModelSpec
from thresher.inputs.parser_names import FORMATS, KNOWN_MARKS, TOLD_BY_MARKS, WHOLE, marking_by_name


def marking_of(spec: ModelSpec, path: str) -> Marking | None:
    """How the model in a directory marks its thinking, as the recipe says by marks or by a parser's name or, with `auto`, as the
    chat template and the tokenizer show; None where nothing is taken apart. A path without a tokenizer, as for a model on a
    server, shows nothing."""
    if spec.reasoning is None:
        return None
    if isinstance(spec.reasoning, Marks):
        return Marking(((spec.reasoning.start, spec.reasoning.end),), channels=False)
    if spec.reasoning in FORMATS:
        return marking_by_name(spec.reasoning)
    if spec.tool_parser in WHOLE:
        return marking_by_name(spec.tool_parser)
    named = _named_by(Path(path))
    pairs = tuple(pair for pair in KNOWN_MARKS if pair[1] in named)
    if spec.reasoning != "auto":
        return marking_by_name(spec.reasoning, pairs or USUAL_MARKS)
    for name in TOLD_BY_MARKS:
        if all(mark in named for mark in FORMATS[name].pairs[0]):
            return marking_by_name(name)
    return Marking(pairs, channels=CHANNEL in named) if pairs or CHANNEL in named else USUAL


EFFORT_ARGUMENTS = ("reasoning_effort", "enable_thinking")
"""Arguments of a chat template that say how much the model is to think."""


def reads_effort(path: str) -> bool:
    """Whether the chat template of the model in a directory reads an argument that says how much to think."""
    named = _named_by(Path(path))
    return any(argument in named for argument in EFFORT_ARGUMENTS)


def budget_marks(marking: Marking | None) -> Pair | None:
    """The marks that a budget of thinking needs: the model's only pair; None if it has none, several, or channels."""
    return marking.pairs[0] if marking is not None and len(marking.pairs) == 1 and not marking.channels else None


def marking_from(noted: Any) -> Marking | None:
    """A marking from its JSON value in run.json."""
    if noted is None:
        return None
    return Marking(tuple((start, end) for start, end in noted["pairs"]), noted["channels"], noted["opened"], noted["parser"])


def noted(marking: Marking | None) -> dict[str, Any] | None:
    """The JSON value of a marking, as run.json holds it."""
    return None if marking is None else asdict(marking)


# -- inside --------------------------------------------------------------------------------------------------------------


def _named_by(folder: Path) -> str:
    """The chat templates and the added tokens of a tokenizer, as one text; empty without a folder."""
    if folder == Path():  # a model on a server has no path
        return ""
    files = [*sorted(folder.glob("*.jinja")), *(folder / name for name in ("tokenizer_config.json", "tokenizer.json"))]
    return _texts(tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()))


@lru_cache(maxsize=64)
def _texts(files: tuple[tuple[str, int, int], ...]) -> str:
    """The same of files by path, time of change and size: a tokenizer of megabytes is read once."""
    texts = []
    for name, _, _ in files:
        if name.endswith(".jinja"):
            texts.append(Path(name).read_text(encoding="utf-8", errors="replace"))
            continue
        value = orjson.loads(Path(name).read_bytes())
        texts.append(json.dumps(value.get("chat_template"), ensure_ascii=False))
        texts += [token["content"] for token in value.get("added_tokens") or () if isinstance(token, dict)]
    return "\n".join(texts)
