"""Reads the program out of a completion, by one rule. The text is searched, never parsed: that happens inside of the sandbox.

1. Fenced blocks that are Python (tag `python`, `py`, `python3` or none) count, others do not. One block is the program. Of
   several, the one that defines the entry point is, if exactly one does. A fence that is not closed leaves the text unparsed.
2. Without a fence the whole text is the program, if its first line is code: `def`, `class`, `import`, `from`, a decorator, a
   comment, an assignment, or a statement such as `print(` or `for`.
3. Where the reference has the beginning of the program (HumanEval's `prompt`), that stands in front. A program that defines the
   entry point itself then defines it anew; otherwise the text must be indented and is the body that goes on.
"""

import re
from collections.abc import Sequence

PROGRAM_CHARS = 65_536
_FENCE = re.compile(r"^[ ]{0,3}(```+|~~~+)[ \t]*([\w+-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = ("", "python", "py", "python3")
_CODE = re.compile(
    r"(?:async[ ]+)?(?:def|class|import|from|for|while|if|with|try|print|return)\b[ (:]|try:|[@#]|\"\"\"|'''"
    r"|[A-Za-z_][\w.]*(?:[ ]*[,:][^=\n]+)?[ ]*[-+*/]?=(?!=)"
)
_BODY = re.compile(r"\s*\n*(?:[ ]{2,}|\t)\S")


def program_of(completion: str, entry_points: Sequence[str], beginning: str = "") -> str | None:
    """The program of a completion, or None where the rule finds none."""
    text = _one(completion, entry_points)
    if text is None or not text.strip() or len(text) > PROGRAM_CHARS:
        return None
    if not beginning or defines(text, entry_points):
        return f"{beginning}\n\n{text}" if beginning else text
    return f"{beginning.rstrip()}\n{text.lstrip(chr(10))}" if _BODY.match(text) else None


def defines(text: str, names: Sequence[str]) -> bool:
    """Whether the text defines every one of the names, in a line that is not indented."""
    found = (rf"^(?:(?:async[ ]+)?def|class)[ ]+{re.escape(name)}\b|^{re.escape(name)}[ ]*=" for name in names)
    return all(re.search(pattern, text, re.MULTILINE) for pattern in found)


def fenced(program: str) -> str:
    """The completion from which `program_of` reads this program."""
    fence = "```"
    while fence in program:
        fence += "`"
    return f"{fence}python\n{program.rstrip()}\n{fence}\n"


def _one(completion: str, entry_points: Sequence[str]) -> str | None:
    completion = completion.replace("\r\n", "\n")
    blocks: list[str] = []
    opened: re.Match[str] | None = None
    marked = False
    for mark in _FENCE.finditer(completion):
        marked = True
        if opened is None:
            opened = mark
        elif mark[1][0] == opened[1][0] and len(mark[1]) >= len(opened[1]) and not mark[2]:
            if opened[2].lower() in _PYTHON:
                blocks.append(completion[opened.end() + 1 : mark.start()])
            opened = None
    if opened is not None:
        return None
    if marked:
        if len(blocks) > 1:
            blocks = [block for block in blocks if defines(block, entry_points)] if entry_points else []
        return blocks[0] if len(blocks) == 1 else None
    first = completion.lstrip()
    if _CODE.match(first) or _BODY.match(completion):
        return completion
    return None
