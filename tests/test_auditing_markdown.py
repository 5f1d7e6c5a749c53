"""Names as parts of Markdown."""

import pytest
from markdown_it import MarkdownIt

from thresher.auditing.markdown import code, inline, without_marks

NAMES = [
    "a | b", "`x`", "\\`x\\`", "a\nb", "---", "<b>", "![x](http://e/x.png)", "[x](javascript:1)", "[x][y]",
    "<!-- thresher: end -->", "&lt;b&gt; R&D", "\\| x", "\x1b[31m", "\u202eb", "</td>", "``", "a\\",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stays_in_its_cell(name: str) -> None:
    table = f"| {inline(name)} | `{code(name)}` | c |"
    tokens = MarkdownIt("commonmark").enable("table").parse(f"| a | b | c |\n|---|---|---|\n{table}\n\nAfter.\n")
    cells = [token for token in tokens if token.type == "td_open"]
    spans = {child.type for token in tokens for child in token.children or ()}

    assert len(cells) == 3
    assert [token.type for token in tokens].count("tr_open") == 2
    assert spans <= {"text", "code_inline", "text_special"}
    assert tokens[-2].content == "After."


def test_the_marks_of_a_card_are_no_comments_in_a_text() -> None:
    assert without_marks("a <!-- thresher: end --> <!-- mine -->") == "a &lt;!-- thresher: end --> <!-- mine -->"
