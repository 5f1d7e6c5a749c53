"""Values as literals."""

from typing import Any

import pytest

from filters.code.bindings import literal


@pytest.mark.parametrize(
    "value", [None, True, -3, 2.5, float("inf"), "a'b\n", b"\x00", [1, [2]], (1,), (), set(), {3, 1}, {"k": (1, 2)}, 1 + 2j]
)
def test_a_literal_has_its_value(value: Any) -> None:
    """In any namespace: it uses no name."""
    assert eval(literal(value), {"__builtins__": {}}) == value


def test_other_types_have_no_literal() -> None:
    with pytest.raises(TypeError, match="a object cannot be written into a call"):
        literal(object())
