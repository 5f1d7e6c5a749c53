"""Characters and words of texts, against unicodedata."""

import unicodedata

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters.similarity import kernel
from helpers.prose import sign


@given(st.text(max_size=40))
@example("\U0001f600 \U00020000\U00020001")
@example("\x00")
@settings(max_examples=100)
def test_words_are_those_of_unicode(text: str) -> None:
    """Runs of letters, digits and marks; a letter of a script without spaces is a word."""
    plain = unicodedata.normalize("NFKC", text).lower()
    if any(0x0E00 <= ord(c) < 0x20000 and not 0x1E00 <= ord(c) < 0x2E80 for c in plain) or any(ord(c) > 0xFFFF for c in plain):
        return  # those scripts have a test of their own
    spaced = "".join(c if unicodedata.category(c)[0] in "LNM" or c == "_" else " " for c in plain)

    assert sign(text).words[0] == len(spaced.split())


@given(st.text(max_size=40))
def test_decoded_characters_are_those_of_the_text(text: str) -> None:
    """In lower case, after NFKC."""
    data, offsets = kernel.normalised(pa.array([text]))
    codes = np.empty(len(data) + 1, np.uint32)
    count = kernel.decode(data, offsets[0], offsets[1], codes)
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)

    characters = "".join(chr(code & 0xFFFFFF) for code in codes[:count].tolist())
    assert characters.isascii() == plain.isascii()
    assert not plain.isascii() or characters == plain.lower()


def test_ascii_is_read_without_a_copy() -> None:
    """The bytes of other texts are converted."""
    ascii_texts = pa.array(["One", "Two"])
    data, offsets = kernel.normalised(ascii_texts)

    assert data.ctypes.data == ascii_texts.buffers()[2].address
    assert offsets.tolist() == [0, 3, 6]
    assert bytes(kernel.normalised(pa.array(["\u00c9T\u00c9"]))[0]).decode() == "\u00e9t\u00e9"
