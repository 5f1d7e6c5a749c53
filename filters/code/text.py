"""Extracts the program from a completion, by one rule. The text is searched and never parsed; parsing happens in the sandbox.

1. Fenced blocks of Python count (tag `python`, `py`, `python3` or none). A single block is the program. Of several blocks, the
   program is the one that defines the entry point, if exactly one does. Text with an unclosed fence is unparsed.
2. Without a fence the whole text is the program, if its first line is code: `def`, `class`, `import`, `from`, a decorator, a
   comment, an assignment, or a statement such as `print(` or `for`.
3. If the reference has the start of the program (HumanEval's `prompt`), the program follows it. It either defines the entry point
   again, after what the prompt has before it, or is indented and continues the function's body.

A fence may be indented, as in an item of a list. One that closes may be indented further than the one that opened, if no other
closes it.
"""

import ast
import re
import textwrap
from collections.abc import Sequence

PROGRAM_CHARS = 65_536
_FENCE = re.compile(r"^([ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?)(```+|~~~+)[ \t]*([\w+-]*)[^\n`]*$", re.MULTILINE)
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
    if not prefix:
        return text
    if defines(text, entry_points):
        return f"{_before(prefix, entry_points)}\n\n{text}"
    return f"{prefix.rstrip()}\n{text.lstrip(chr(10))}" if _BODY.match(text) else None


def defines(text: str, names: Sequence[str]) -> bool:
    """Whether the text defines all the names, in lines that are not indented."""
    patterns = (rf"^(?:(?:async[ ]+)?def|class)[ ]+{re.escape(name)}\b|^{re.escape(name)}[ ]*=" for name in names)
    return all(re.search(pattern, text, re.MULTILINE) for pattern in patterns) or _is_solution(text, names)


def called_by(program: str, calls: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The calls of a test as this program takes them: by a method of its `class Solution`, where it defines no such function."""
    if not _is_solution(program, names):
        return tuple(calls)
    return tuple(ast.unparse(_OfSolution(names[0]).visit(ast.parse(call, mode="eval"))) for call in calls)


def fenced(program: str) -> str:
    """Return a completion from which `program_of` extracts this program."""
    fence = "```"
    while fence in program:
        fence += "`"
    return f"{fence}python\n{program.rstrip()}\n{fence}\n"


class _OfSolution(ast.NodeTransformer):
    """Calls of a function as calls of a method of a new Solution."""

    def __init__(self, name: str) -> None:
        self.name = name

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == self.name:
            node.func = ast.Attribute(ast.Call(ast.Name("Solution", ast.Load()), [], []), self.name, ast.Load())
        return node


def _is_solution(text: str, names: Sequence[str]) -> bool:
    """Whether a text defines the one name as a method of a class Solution only."""
    if len(names) != 1 or not re.search(r"^class[ ]+Solution\b", text, re.MULTILINE):
        return False
    name = re.escape(names[0])
    return re.search(rf"^[ \t]+(?:async[ ]+)?def[ ]+{name}\b", text, re.MULTILINE) is not None and not re.search(
        rf"^(?:(?:async[ ]+)?def|class)[ ]+{name}\b|^{name}[ ]*=", text, re.MULTILINE
    )


def _before(prefix: str, entry_points: Sequence[str]) -> str:
    """The start of the program without the entry point, where that has no body yet and would be no Python."""
    try:
        ast.parse(prefix)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        names = "|".join(map(re.escape, (*entry_points, "Solution")))
        start = re.search(rf"^(?:@[^\n]*\n)*(?:(?:async[ ]+)?def|class)[ ]+(?:{names})\b", prefix, re.MULTILINE)
        return prefix[: start.start()] if start else prefix
    return prefix


def _single(completion: str, entry_points: Sequence[str]) -> str | None:
    """The text of the only program in a completion, before the checks on its length."""
    completion = completion.replace("\r\n", "\n")
    marks = list(_FENCE.finditer(completion))
    if marks:
        blocks = _blocks(completion, marks, deeper=False) or _blocks(completion, marks, deeper=True)
        if blocks is None:
            return None
        if len(blocks) > 1:
            blocks = [block for block in blocks if defines(block, entry_points)] if entry_points else []
        return blocks[0] if len(blocks) == 1 else None
    first = completion.lstrip()
    if _CODE.match(first) or _BODY.match(completion):
        return completion
    return None


def _blocks(completion: str, marks: Sequence["re.Match[str]"], *, deeper: bool) -> list[str] | None:
    """The fenced blocks of Python; None if one is not closed. `deeper`: a fence that closes may be indented at will."""
    blocks: list[str] = []
    opened: re.Match[str] | None = None
    for mark in marks:
        if opened is None:
            opened = mark
            continue
        indent = len(mark[1].expandtabs()) if not mark[1].strip() else None
        within = indent is not None and (deeper or indent <= len(opened[1].expandtabs()) + 3)
        if within and mark[2][0] == opened[2][0] and len(mark[2]) >= len(opened[2]) and not mark[3]:
            if opened[3].lower() in _PYTHON:
                block = completion[opened.end() + 1 : mark.start()]
                blocks.append(textwrap.dedent(block) if opened[1] else block)
            opened = None
    return None if opened is not None else blocks
