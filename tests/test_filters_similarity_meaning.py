"""What tells the meanings of alike texts apart."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.similarity.meaning import meanings


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("the answer is 5", "the answer is -5", False),
        ("a + b = 3", "a - b = 3", False),
        ("3 then 5", "5 then 3", False),
        ("5 cm long", "5 m long", False),
        ("5 cm long", "5cm long", True),
        ("on March 5, 2024", "on May 5, 2024", False),
        ("if x < 3: go", "if x <= 3: go", False),
        ("  return x", "    return x", False),
        ("for i in x:\n    a()\n    b()", "for i in x:\n    a()\nb()", False),
        ("The **answer** is 42.", "So the answer is 42!", True),
        ("- 5 apples\n- 3 pears", "* 5 apples\n* 3 pears", True),
        ("a well-known fact", "a well known fact", True),
        ("x * y", "x + y", False),
        ("2*3", "2+3", False),
        ("2**3", "2*3", False),
        ("five plus two", "five minus two", False),
        ("it is greater than", "it is less than", False),
        ("it is true", "it is not true", False),
        ("x == y", "x != y", False),
        ("\\frac{1}{2}", "\\frac{2}{1}", False),
        ("a \\le b", "a \\ge b", False),
        ("1,000", "1000", False),
        ("50%", "50", False),
        ("Paris", "London", True),
        ("2024-01-02", "2024-02-01", False),
        ("at 5 pm", "at 5 am", False),
        ("x - 1", "x + 1", False),
        ("x-1", "x+1", False),
        ("f(x) - 1", "f(x) + 1", False),
        ("a*b", "a*b ", True),
        ("I think it is 12 apples.", "It is 12 apples, I think.", True),
    ],
)
def test_signs_operators_order_units_dates_and_indentation_count(first: str, second: str, equal: bool) -> None:
    """Wording, emphasis, bullets and hyphens do not."""
    found = meanings(pa.array([first, second])).tolist()

    assert (found[0] == found[1]) == equal


def test_without_values_only_the_order_of_the_numbers_counts() -> None:
    texts = pa.array(["from 3 to 5", "from 4 to 7", "from 5 to 3", "from 3 to -5"])
    found = meanings(texts, values=False).tolist()

    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert len(set(meanings(texts).tolist())) == 4


@given(st.lists(st.text(max_size=60), max_size=5))
def test_a_text_has_one_meaning_wherever_it_stands(texts: list[str]) -> None:
    """Alone or among others, in any chunk."""
    together = meanings(pa.array(texts, pa.string())).tolist()

    assert together == [meanings(pa.array([text], pa.string())).tolist()[0] for text in texts]
