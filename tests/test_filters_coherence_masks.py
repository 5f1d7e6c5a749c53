"""Which characters of a text are not prose."""

import numpy as np
import pytest

from filters.coherence.masks import KINDS, SPACE, addresses, counts_in, covered, formulas, masked_characters, runs


def arrays(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Code points, kinds and line breaks of a text between null characters."""
    codes = np.array([ord(character) for character in text], np.uint32)
    return codes, KINDS[codes], (codes == 10) | (codes == 0)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call `f(x)` now", "`f(x)`"),
        ("so\n```\nx = 1\n```\nthen", "```\nx = 1\n```"),
        ("the sum $a + b$ is", "$a + b$"),
        ("it costs $5 or $6 a day", ""),
        ("see <b>this</b> text", "<b></b>"),
        ("let \\(x\\) be", "\\(x\\)"),
        ("reduces to\n\n.. math::\n\n   f + (g - a)h\n\nand so on", ".. math::\n\n   f + (g - a)h\n"),
        ("thanks to @some-one, and (@other)", "@some-one@other"),
        ("write to jan.de.boer@mail.example.org or call", "jan.de.boer@mail.example.org"),
    ],
)
def test_code_formulas_and_markup_are_masked(text: str, masked: str) -> None:
    """And nothing around them."""
    whole = f"\x00{text}\x00"
    mask = masked_characters(whole, *arrays(whole))

    assert "".join(character for character, hidden in zip(whole, mask, strict=True) if hidden) == masked


def test_a_line_with_the_shape_of_a_statement_is_code() -> None:
    """And so is an indented line after it; prose is not."""
    whole = "\x00We write this.\nfor row in rows:\n    print a name\nThen it ends here.\x00"
    mask = masked_characters(whole, *arrays(whole))

    hidden = "".join(character for character, masked in zip(whole, mask, strict=True) if masked)
    assert hidden == "\nfor row in rows:\n    print a name"


def test_formulas_and_addresses_are_tokens() -> None:
    """A host is left in an address, because it is made of words."""
    text = "so f(x)=x^2+1 is at https://example.org/a/b?c=1 now"
    codes, kinds, _ = arrays(text)
    tokens = runs(kinds != SPACE)

    assert np.flatnonzero(formulas(codes, kinds, tokens)).tolist() == list(range(3, 13))
    hidden = addresses(codes, tokens)
    assert "".join(character for character, masked in zip(text, hidden, strict=True) if masked) == "https:///a/b?c=1"


def test_spans_count_and_cover() -> None:
    """Empty spans cover nothing."""
    flags = np.array([True, False, True, True])

    assert [edges.tolist() for edges in runs(flags)] == [[0, 2], [1, 4]]
    assert counts_in(flags, (np.array([0, 1]), np.array([2, 4]))).tolist() == [1, 2]
    assert covered(4, np.array([1, 3]), np.array([2, 3])).tolist() == [False, True, False, False]
