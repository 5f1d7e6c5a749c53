"""Groups, lists, intervals and matrices."""

from filters.maths.structures import Interval, elements_of, group_of, intervals_of, is_pair, matrix_rows, parts_of


def test_a_group_is_split_at_its_own_commas() -> None:
    """Not at those of inner groups or of thousands."""
    assert group_of("(1, (2, 3))") == ("(", ["1", "(2, 3)"], ")")
    assert group_of("(1)(2)") is None
    assert parts_of("1,234, 5") == ["1", "234", "5"]
    assert parts_of("1,234;5") == ["1234", "5"]


def test_intervals_come_from_brackets_and_inequalities() -> None:
    """And from unions of them."""
    half_open = [Interval("0", False, "1", True)]

    assert intervals_of("(0, 1]") == half_open
    assert intervals_of("0 < x <= 1") == half_open
    assert intervals_of("1 >= x > 0") == half_open
    assert intervals_of("x \\in (0, 1]") == half_open
    assert intervals_of("x > 2") == intervals_of("2 < x") == [Interval("2", False, "\\infty", False)]
    assert intervals_of("(0,1] \\cup (0,1]") == half_open * 2
    assert intervals_of("5") is None
    assert is_pair("(0, 1)")
    assert not is_pair("(0, 1]")


def test_collections_have_kinds() -> None:
    """A list of solutions needs no brackets; plus-minus is two solutions."""
    assert elements_of("(1, 2)") == ("tuple", ["1", "2"])
    assert elements_of("\u27e81, 2\u27e9") == ("set", ["1", "2"])
    assert elements_of("x = 1 or x = 2") == ("list", ["x = 1", "x = 2"])
    assert elements_of("x=\\pm 2") == ("list", ["x=+ 2", "x=- 2"])
    assert elements_of("5") is None


def test_matrices_have_rows() -> None:
    """In LaTeX and in brackets."""
    rows = [["1", "2"], ["3", "4"]]

    assert matrix_rows("\\begin{pmatrix}1 & 2 \\\\ 3 & 4\\end{pmatrix}") == rows
    assert matrix_rows("[[1, 2], [3, 4]]") == rows
    assert matrix_rows("[1, 2]") is None
