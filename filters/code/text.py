"""Extracts the program from a completion, by one rule. The text is searched and never parsed; parsing happens in the sandbox.

1. Fenced blocks of Python count (tag `python`, `py`, `python3` or none). A single block is the program. Of several blocks, the
   program is the one that defines the entry point, if exactly one does. Text with an unclosed fence is unparsed.
2. Without a fence the whole text is the program, if its first line is code: `def`, `class`, `import`, `from`, a decorator, a
   comment, an assignment, or a statement such as `print(` or `for`.
3. If the reference has the start of the program (HumanEval's `prompt`), the program follows it. It either defines the entry point
   again, or is indented and continues the function's body.
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


def program_of(completion: str, entry_points: Sequence[str], prefix: str = "") -> str | None:
    """Extract the program of a completion; None if the rule finds none. `prefix` is the start of the program."""
    text = _single(completion, entry_points)
    if text is None or not text.strip() or len(text) > PROGRAM_CHARS:
        return None
    if not prefix or defines(text, entry_points):
        return f"{prefix}\n\n{text}" if prefix else text
    return f"{prefix.rstrip()}\n{text.lstrip(chr(10))}" if _BODY.match(text) else None


def defines(text: str, names: Sequence[str]) -> bool:
    """Whether the text defines all the names, in lines that are not indented."""
    patterns = (rf"^(?:(?:async[ ]+)?def|class)[ ]+{re.escape(name)}\b|^{re.escape(name)}[ ]*=" for name in names)
    return all(re.search(pattern, text, re.MULTILINE) for pattern in patterns)


def fenced(program: str) -> str:
    """Return a completion from which `program_of` extracts this program."""
    fence = "```"
    while fence in program:
        fence += "`"
    return f"{fence}python\n{program.rstrip()}\n{fence}\n"


def _single(completion: str, entry_points: Sequence[str]) -> str | None:
    """The text of the only program in a completion, before the checks on its length."""
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
