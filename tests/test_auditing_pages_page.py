"""Pages embed data that cannot become markup, and are written to files and object stores."""

import json
from pathlib import Path

import fsspec
import pytest

from thresher.auditing.pages.page import rendered, safe_json, write_page
from thresher.errors import AuditError


def test_json_in_a_page_cannot_end_its_script_element() -> None:
    value = {"text": "</script><!-- & \u2028", "rate": float("nan"), "bound": float("inf")}

    text = safe_json(value)

    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"text": value["text"], "rate": None, "bound": None}


def test_values_of_a_template_are_escaped() -> None:
    page = rendered("review.html.j2", {}, run="<b>run</b>", lines=[], key="key")

    assert "&lt;b&gt;run&lt;/b&gt;" in page
    assert "<b>run</b>" not in page


def test_a_page_is_written_to_a_file_or_a_url(tmp_path: Path) -> None:
    assert write_page("text", tmp_path / "page.html") == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "text"
    url = f"memory://{tmp_path.name}/page.html"
    assert write_page("text", url) == url
    assert fsspec.filesystem("memory").cat_file(f"/{tmp_path.name}/page.html") == b"text"
    with pytest.raises(AuditError, match="cannot write: No such file or directory; name another file with --html"):
        write_page("text", tmp_path / "nowhere" / "page.html")
