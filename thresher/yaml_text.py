"""YAML read the same way in every process, and within bounds.

Other libraries change the loaders of PyYAML for the whole process: lm-format-enforcer 0.11.3, which vLLM requires, makes
`yaml.safe_load` return dates as text once it is imported. The loaders here have constructors of their own.

A text of a few lines can stand for more than any memory holds: a list of aliases of a list of aliases. What a document stands for
is counted before it is built.
"""

import math
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_INT = "tag:yaml.org,2002:int"
MOST_CHARACTERS = 2 << 20
"""Of a document that people write, such as a recipe; reading so many takes seconds."""
MOST_VALUES = 500_000
"""Keys, values and items of a document, with those behind aliases."""
DEEPEST = 100
"""Levels of a document."""
LONGEST_NUMBER = 400
"""Characters of a whole number."""
_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What the constructors of dates, tags and numbers raise."""


class SafeLoader(yaml.SafeLoader):
    """The loader in Python, which is strict with tabs."""


class FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # one of two classes
    """The loader in C, where PyYAML was built with it."""


for _loader in (SafeLoader, FastLoader):
    _loader.add_constructor(_TIMESTAMP, SafeConstructor.construct_yaml_timestamp)  # type: ignore[type-var]  # both derive from it


def load(text: str, loader: Any = SafeLoader) -> Any:
    """Return the value of a YAML document. Raises yaml.YAMLError, also for a date that is none, for too many levels or values,
    and for an alias inside what it stands for."""
    reading = None
    try:
        _refuse_depth(text)
        reading = loader(text)
        node = reading.get_single_node()
        if node is None:
            return None
        _size(node, {}, {})
        return reading.construct_document(node)
    except _UNREADABLE as error:
        raise yaml.YAMLError(" ".join(str(error).split())[:200]) from error
    finally:
        if reading is not None:
            reading.dispose()


def odd_value(value: Any) -> tuple[tuple[str | int, ...], str] | None:
    """Return the place of the first value in a document that no file of a run can hold, and what was found there: a number that
    is not finite or has more than 64 bits, a key that is no text, half a surrogate pair, or the character 0. None without one."""
    if isinstance(value, float) and not math.isfinite(value):
        return (), "a number that is not finite"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return (), "a whole number of more than 64 bits; put it in quotes to have it as text"
    if isinstance(value, str) and any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
        return (), "a character that no text has: U+0000, or half a surrogate pair"
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                return (), f"the key {str(key)[:60]}, which is no text; put it in quotes"
            if (odd := odd_value(key) or odd_value(inner)) is not None:
                return (key, *odd[0]), odd[1]
    for number, inner in enumerate(value if isinstance(value, list | tuple) else ()):
        if (odd := odd_value(inner)) is not None:
            return (number, *odd[0]), odd[1]
    return None


# -- inside --------------------------------------------------------------------------------------------------------------


def _refuse_depth(text: str) -> None:
    """Raise yaml.YAMLError for a text of too many levels, which would overflow the stack of the loader in C, and take the other
    one a time that grows with their square."""
    levels = 0
    try:
        for event in yaml.parse(text, FastLoader):
            levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if levels > DEEPEST:
                break
    except yaml.YAMLError:  # the loader that reads it says it better
        pass
    if levels > DEEPEST:
        raise yaml.YAMLError(f"more than {DEEPEST} levels")


def _size(node: yaml.Node, sizes: dict[int, tuple[int, int]], above: dict[int, None]) -> int:
    """How many values a node stands for. `sizes` holds those of nodes that were counted, with their levels; `above` the nodes
    that this one is inside of. Raises yaml.YAMLError beyond the bounds."""
    if id(node) in above:
        raise _error(node, "an alias stands inside what it is an alias of")
    size, levels = sizes.get(id(node), (0, 0))
    if not size:
        if isinstance(node, yaml.ScalarNode) and node.tag == _INT and len(node.value) > LONGEST_NUMBER:
            raise _error(node, f"a whole number of more than {LONGEST_NUMBER} characters")
        above[id(node)] = None
        size = 1
        for inner in _inner(node):
            size += _size(inner, sizes, above)
            levels = max(levels, 1 + sizes[id(inner)][1])
            if size > MOST_VALUES:
                raise _error(node, f"more than {MOST_VALUES:,} values, counting those behind aliases")
        del above[id(node)]
        sizes[id(node)] = size, levels
    if len(above) + levels > DEEPEST:
        raise _error(node, f"more than {DEEPEST} levels")
    return size


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _error(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
