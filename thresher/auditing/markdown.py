"""Names and messages as parts of Markdown that they cannot break out of: table cells, lines of text, code spans."""

import re

_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_BIDI = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MARK = re.compile(r"<!--(\s*thresher:)", re.IGNORECASE)


def inline(text: str) -> str:
    """Return a text as a line of Markdown without HTML, code, images, links or the ends of table cells."""
    text = _flat(text).replace("&", "&amp;")
    text = text.replace("\\", "\\\\").replace("<", "&lt;").replace(">", "&gt;").replace("`", "\\`").replace("|", "\\|")
    return text.replace("](", "]\\(").replace("][", "]\\[").replace("![", "!\\[")


def code(text: str) -> str:
    """Return a text as the content of a code span, also in a table."""
    return _flat(text).replace("`", "'").replace("|", "\\|").replace('"', "'").replace("<!--", "<! --")


def without_marks(text: str) -> str:
    """Return a text in which no comment begins as those by which the parts of a card are found."""
    return _MARK.sub(r"&lt;!--\1", text)


def _flat(text: str) -> str:
    return _BIDI.sub("", _SPACE.sub(" ", text)).strip()
