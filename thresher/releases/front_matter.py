"""The front matter of a card: read as people write it, and merged key by key.

A key equal to what thresher wrote last is thresher's and is updated; any other value is a person's and stays. Tags and languages
are united; of `configs` and `dataset_info` the entries that thresher wrote are replaced, and others stay. Lines of keys that keep
their value are copied as they are, comments included.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import yaml

from schemas.dataset import View
from thresher import yaml_text
from thresher.errors import PublishError

KEYS = (
    "license", "language", "pretty_name", "size_categories", "task_categories", "annotations_creators", "tags", "configs",
    "dataset_info",
)  # fmt: skip
"""Keys that thresher writes."""
UNITED, NAMED = ("tags", "language"), ("configs", "dataset_info")
_OPEN = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n")
_CLOSE = re.compile(r"^(?:---|\.\.\.)[ \t]*\r?$", re.MULTILINE)
_KEY = re.compile(r"\s*[\w-]+:(?:\s|$)")
_OTHER_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_ADVICE = "correct it by hand, and run the command again; nothing was changed"


@dataclass(frozen=True)
class Card:
    """A card, taken apart."""

    matter: dict[Any, Any]
    source: str
    """The lines of the front matter; empty if there is none."""
    body: str


READ_TWICE = 200_000
"""Characters of front matter up to which it is also read by the loader of its readers, which takes a second for so many."""
_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Those in C, where PyYAML was built with them: a card may have megabytes."""


class _Loader(yaml_text.FastLoader):
    """Refuses a key that occurs twice: YAML's own loader keeps the last and loses the others."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if (key.tag, key.value) in written:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} occurs twice", key.start_mark)
                written.add((key.tag, key.value))
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def taken_apart(text: str, name: str = "README.md") -> Card:
    """Take a card apart: with a BOM, any line ends, `...` or nothing after the last line. `name` is the card in errors. Raises
    PublishError on front matter that is no YAML mapping, whose text would be lost."""
    opened = _OPEN.match(text)
    if opened is None:
        return Card({}, "", text.removeprefix("\ufeff"))
    closed = _CLOSE.search(text, opened.end())
    line = opened[0].count("\n")
    if closed is None:
        if _KEY.match(text, opened.end()):
            raise PublishError(f"{name}: line {line}: its front matter has no last line `---`; {_ADVICE}")
        return Card({}, "", text.removeprefix("\ufeff"))
    source = text[opened.end() : closed.start()].replace("\r\n", "\n")
    body = text[closed.end() :].removeprefix("\n")
    return Card(_mapping(source, name, line), source, body)


def merged(
    generated: Mapping[str, Any], theirs: Mapping[Any, Any], last: Mapping[str, Any], name: str = "README.md"
) -> dict[Any, Any]:
    """Merge the keys that are generated now into those of the present card; `last` are those that were generated for it. Raises
    PublishError if an entry of a person has the name of one of thresher's."""
    if not theirs:
        return dict(generated)
    matter = {}
    for key in dict.fromkeys([*theirs, *generated]):
        if key in NAMED:
            entries = _named(key, generated, theirs, last, name)
            if entries or key in generated:
                matter[key] = entries
        elif key in UNITED and all(isinstance(keys.get(key) or [], (list, str)) for keys in (theirs, generated)):
            if united := _united(*(keys.get(key) for keys in (generated, theirs, last))):
                matter[key] = united
        elif key in theirs and (key not in last or theirs[key] != last[key]):
            matter[key] = theirs[key]
        elif key in generated and (key in theirs or key not in last):  # what a person removed is not written again
            matter[key] = generated[key]
    return matter


def joined(matter: Mapping[Any, Any], body: str, old: Card | None = None) -> str:
    """Return a card. Keys that have the value that they have in the `old` card keep their lines."""
    source = _edited(matter, old) if old is not None and old.source else None
    return f"---\n{_dumped(matter) if source is None else source}---\n{body}"


def own(matter: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the keys of a card that thresher wrote, as far as their names tell."""
    kept = {key: value for key, value in matter.items() if key in KEYS}
    for key in NAMED:
        if isinstance(kept.get(key), list):
            kept[key] = [entry for entry in kept[key] if isinstance(entry, dict) and _name(entry) in names()]
    return kept


def foreign_configs(matter: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return the configs of a card whose names are not thresher's."""
    return [entry for entry in _entries("configs", matter, "README.md") if _name(entry) not in names()]


def names() -> tuple[str, ...]:
    """Return the names of thresher's configs, which are also those of their folders."""
    return (*get_args(View), "revoked")


# -- inside --------------------------------------------------------------------------------------------------------------


class _Tail:
    """The key of the comments below the last key."""


def _mapping(source: str, name: str, before: int) -> dict[Any, Any]:
    """The keys of front matter that begins after so many lines."""
    try:
        matter = yaml_text.load(source, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {before + mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise PublishError(f"{name}: {where}its front matter is not valid YAML: {problem}; {_ADVICE}") from error
    if len(source) < READ_TWICE:  # what readers use is stricter with tabs than the loader in C
        try:
            yaml_text.load(source)
        except yaml.YAMLError as error:
            raise PublishError(f"{name}: `datasets` could not read its front matter: {error}; {_ADVICE}") from error
    if odd := [key for key in (matter if isinstance(matter, dict) else ()) if not isinstance(key, str)]:
        raise PublishError(f"{name}: its front matter has a key that is no text: {odd[0]!r}; put it in quotes, or {_ADVICE}")
    if matter is None:
        return {}
    if not isinstance(matter, dict):
        kind = "a list" if isinstance(matter, list) else "plain text"
        raise PublishError(
            f"{name}: line {before}: `---` begins front matter, whose lines must be `key: value`, and found {kind}; {_ADVICE} "
            "(a horizontal rule can be written as ***)"
        )
    return matter


def _united(generated: Any, theirs: Any, last: Any) -> Any:
    """Their items and the generated ones, without those that a person removed or that are no longer generated."""
    now, found, before = ([items] if isinstance(items, str) else list(items or ()) for items in (generated, theirs, last))
    items = [item for item in now if item in found or item not in before]
    items += [item for item in found if item not in before and item not in items]
    same = len(items) == len(found) and all(item in found for item in items)
    return theirs if same else items


def _named(
    key: str, generated: Mapping[str, Any], theirs: Mapping[Any, Any], last: Mapping[str, Any], name: str
) -> list[dict[str, Any]]:
    """The generated entries, each a config or its description, and those of a person."""
    now, found, before = (_entries(key, keys, name) for keys in (generated, theirs, last))
    ours, earlier = {_name(entry) for entry in now}, {_name(entry) for entry in before}
    if taken := [entry for entry in found if _name(entry) in ours - earlier and entry not in now]:
        raise PublishError(
            f"{name}: its front matter has an entry {_name(taken[0])!r} of its own in `{key}`, which the release would replace; "
            "rename the config, or publish to another repository"
        )
    foreign = [entry for entry in found if _name(entry) not in ours | earlier]
    chosen = [_name(entry) for entry in found if entry.get("default")]
    if any(entry.get("default") or _name(entry) == "default" for entry in foreign):
        default = None
    elif chosen and chosen[0] in ours and chosen[0] not in [_name(entry) for entry in before if entry.get("default")]:
        default = chosen[0]
    else:
        return [*now, *foreign]
    return [*(_with_default(entry, _name(entry) == default) for entry in now), *foreign]


def _with_default(entry: dict[str, Any], default: bool) -> dict[str, Any]:
    """An entry that is the default config, or is not."""
    rest = {key: value for key, value in entry.items() if key not in ("config_name", "default")}
    return {"config_name": _name(entry)} | ({"default": True} if default else {}) | rest


def _entries(key: str, matter: Mapping[Any, Any], name: str) -> list[dict[str, Any]]:
    entries = matter.get(key)
    if isinstance(entries, dict) and key == "dataset_info":
        entries = [entries]
    if entries is not None and not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise PublishError(f"{name}: `{key}` of its front matter must be a list of mappings; {_ADVICE}")
    return entries or []


def _name(entry: Mapping[str, Any]) -> str:
    """The name of a config; datasets calls one without a name `default`."""
    return str(entry.get("config_name", "default"))


def _edited(matter: Mapping[Any, Any], old: Card) -> str | None:
    """The lines of the old card, with those of other keys; None if these keys cannot be written so."""
    lines = _lines(old.source)
    pieces = []
    try:
        for key, value in matter.items():
            comments, own = lines.get(key, ("", ""))
            if old.matter.get(key) == value and own:
                pieces.append(comments + own)
            else:
                pieces.append(comments + (_edited_list(key, value, own) or _dumped({key: value})))
        source = "".join(pieces) + lines.get(_Tail, ("", ""))[0]
        return source if yaml.load(source, _Loader) == matter else None  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError):
        return None


def _edited_list(key: Any, items: Any, own: str) -> str | None:
    """The lines of a list with other items, of which those that were there keep their lines; None if it is not in block style."""
    node = yaml.compose(own, yaml_text.FastLoader) if own and isinstance(items, list) and items else None
    sequence = node.value[0][1] if isinstance(node, yaml.MappingNode) else None
    if not isinstance(sequence, yaml.SequenceNode) or sequence.flow_style or not sequence.value:
        return None
    lines = own.splitlines(keepends=True)
    starts = [item.start_mark.line for item in sequence.value]
    there = list(zip(yaml.load(own, _Loader)[key], starts, [*starts[1:], len(lines)], strict=True))  # noqa: S506 - a SafeLoader
    indent = " " * sequence.start_mark.column
    pieces = ["".join(lines[: starts[0]])]
    for item in items:
        place = next((lines[start:end] for value, start, end in there if value == item), None)
        made = [f"{indent}{line}" for line in _dumped([item]).splitlines(keepends=True)]
        pieces.append("".join(made if place is None else place))
    return "".join(pieces)


def _lines(source: str) -> dict[Any, tuple[str, str]]:
    """The lines of each key as (comments above it, its own); empty if keys do not begin on lines of their own."""
    if _OTHER_BREAKS.search(source):
        return {}
    node = yaml.compose(source, yaml_text.FastLoader)
    lines = [f"{line}\n" for line in source.removesuffix("\n").split("\n")]
    if node is None or not node.value:  # no keys, as in the template of huggingface_hub
        return {_Tail: ("".join(line for line in lines if line.startswith("#")), "")}
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return {}
    found: dict[Any, tuple[str, str]] = {}
    comments = lines[: node.value[0][0].start_mark.line]
    for key, start, end in _spans(node, len(lines)):
        own = lines[start:end]
        below: list[str] = []
        while own and (not own[-1].strip() or own[-1].startswith("#")):
            below.insert(0, own.pop())
        found[key] = ("".join(comments), "".join(own))
        comments = below
    found[_Tail] = ("".join(comments), "")
    return found


def _spans(node: yaml.MappingNode, lines: int) -> Iterator[tuple[Any, int, int]]:
    starts = [key.start_mark.line for key, _ in node.value]
    keys = yaml_text.SafeLoader("")
    for (key, _), start, end in zip(node.value, starts, [*starts[1:], lines], strict=True):
        yield keys.construct_object(key, deep=True), start, end


def _dumped(matter: Mapping[Any, Any] | list[Any]) -> str:
    if not matter:
        return ""
    text: str = yaml.dump(matter, Dumper=_SafeDumper, sort_keys=False, allow_unicode=True, width=120)
    return text
