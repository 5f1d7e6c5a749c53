"""The blocks of docs/deployment.md that tests run."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()


def block(name: str, kind: str = "sh") -> str:
    (text,) = re.findall(rf"^```{kind} {name}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def blocks(kind: str) -> list[str]:
    """All of a kind, whatever their names."""
    return re.findall(rf"^```{kind}(?: [^\n]*)?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
