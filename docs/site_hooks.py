"""Hooks of mkdocs: what Markdown for GitHub and for the tests needs is made fit for the site."""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take the names off the code blocks of a page, and keep the asterisks of file names in headings."""
    markdown = re.sub(r"^```(\w+) [\w-]+$", r"```\1", markdown, flags=re.MULTILINE)
    return re.sub(r"^#+ .*$", lambda heading: heading[0].replace("/*", r"/\*"), markdown, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Join numbers and per cent signs outside of code by a space that does not break."""
    parts = re.split(r"(<pre.*?</pre>|<code.*?</code>)", html, flags=re.DOTALL)
    return "".join(part if part.startswith(("<pre", "<code")) else re.sub(r"(\d) %", "\\1\u00a0%", part) for part in parts)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page that would load a script, a style or a picture from the network: the site is read offline."""
    if match := re.search(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"', output):
        raise SystemExit(f"docs/{page.file.src_uri}: the page would load {match[0]}, and must be readable offline")
    return output
