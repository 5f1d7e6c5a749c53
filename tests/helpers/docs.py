"""README and docs/ as tests read them: pages, code blocks, spans of code, and the module that writes the generated parts."""

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Code:
    """A block or a span of code: where it is, what follows the opening fence ("" for a span), and its text."""

    page: str
    info: str
    text: str


def codes() -> Iterator[Code]:
    """Every block and span of code of every page."""
    for path in PAGES:
        page, rest = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
        for info, text in re.findall(r"^```([^\n]*)\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL):
            yield Code(page, info or "block", text)
        without = re.sub(r"^```.*?^```$", "", rest, flags=re.MULTILINE | re.DOTALL)
        for text in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", without):
            yield Code(page, "", text.replace("\n", " ").replace("\\|", "|"))


def block(page: str, info: str, contains: str = "") -> str:
    """The only block of a page with that info string and that text in it."""
    (text,) = [code.text for code in codes() if code.page == page and code.info == info and contains in code.text]
    return text


def make_reference() -> ModuleType:
    """docs/make_reference.py, which is a script and in no package."""
    return _script("make_reference")


def make_licences() -> ModuleType:
    """docs/make_licences.py, another one."""
    return _script("make_licences")


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
