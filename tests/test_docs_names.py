"""What README and docs/ name exists: commands, flags, recipe keys, files. And README names every command.

`make check` runs this too.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from helpers.docs import PAGES, ROOT, Code, codes, make_reference

reference = make_reference()
COMMANDS = reference.commands()
KEYS = {key.replace("[]", "") for key in reference.recipe_keys(reference.recipe_schema())}
TOP = {key for key in KEYS if "." not in key}
MAPPINGS = ("parameters", "options", "config", "fields", "extra_body", "resources_per_replica", "chat_template_kwargs")
FREE = {key for key in KEYS if key.split(".")[-1] in MAPPINGS}
"""Mappings whose keys are not thresher's to name."""

OTHER_TOOLS = {
    # pip, uv, make
    "--no-deps", "--require-hashes", "--upgrade",
    # benchmarks and docs/make_reference.py
    "--rounds", "--ray", "--prefect", "--check",
    # Prefect
    "--type", "--pool", "--no-prompt", "--from-file", "--base-job-template", "--active-slots", "--host",
    # Ray and Slurm
    "--head", "--port", "--address", "--block", "--temp-dir", "--resources", "--nodes", "--ntasks", "--ntasks-per-node",
    "--gpus-per-node", "--cpus-per-task", "--time", "--exclude",
    # vLLM, bubblewrap, Hugging Face
    "--enable-auto-tool-choice", "--tool-call-parser", "--reasoning-parser", "--reasoning-config", "--enable-lora",
    "--lora-modules", "--api-key", "--enable-deterministic-inference", "--sampling-defaults",
    "--use-fp64-gumbel", "--die-with-parent", "--remount-ro", "--revision", "--local-dir",
}  # fmt: skip
"""Flags of other programs that the docs name."""

FILES = ("json", "jsonl", "parquet", "arrows", "yaml", "py", "md", "html", "toml", "txt", "lock")

RECIPES = [code for code in codes() if code.info == "yaml" and not code.text.startswith("# automation")]
"""All blocks of YAML but the one for Prefect."""


def where(code: Code) -> str:
    return f"{code.page}: {code.text.strip()[:100]!r}"


def calls() -> Iterator[tuple[Code, str, set[str]]]:
    """Every call of thresher in a block or a span: where, the command, and the flags that follow it on the line."""
    for code in codes():
        for line in re.sub(r"\\\n\s*", "", code.text).splitlines():
            if match := re.match(r"\s*(?:\$ )?thresher ([a-z]\S*)(.*)", line):
                yield code, match[1], set(re.findall(r"(?<!\S)\[?(--[a-z-]+)", match[2]))


def exists(key: str) -> bool:
    """Whether a recipe has this dotted key, with or without the marks of lists; below a free mapping every key is one."""
    plain = re.sub(r"\[\]|\.\d+(?=\.|$)", "", key)
    return plain in KEYS or any(plain.startswith(f"{free}.") for free in FREE)


def unknown(value: Any, path: str) -> Iterator[str]:
    """The keys of a recipe, or of part of one, that recipes do not have."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = f"{path}.{key}" if path else str(key)
            if exists(name):
                yield from unknown(inner, name)
            else:
                yield name
    elif isinstance(value, list):
        for item in value:
            yield from unknown(item, path)


def test_every_command_exists_and_has_the_flags_named_with_it() -> None:
    found = list(calls())

    assert len(found) > 100
    assert [f"{where(code)}: no command {name}" for code, name, _ in found if name not in COMMANDS] == []
    assert [
        f"{where(code)}: {name} has no {', '.join(flags - reference.flags(COMMANDS[name]))}"
        for code, name, flags in found
        if not flags <= reference.flags(COMMANDS[name])
    ] == []


def test_every_flag_belongs_to_a_command_or_another_program() -> None:
    known = OTHER_TOOLS | {flag for command in COMMANDS.values() for flag in reference.flags(command)} | {"--version"}
    named = [(code, flag) for code in codes() for flag in re.findall(r"(?<![\w-])(--[a-z][\w-]+)", code.text)]

    assert [f"{where(code)}: no flag {flag}" for code, flag in named if flag not in known] == []


def test_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")

    assert [name for name in COMMANDS if f"| `thresher {name}" not in text] == []


def test_every_recipe_key_in_a_span_exists() -> None:
    """`filters[].classes` and the like are fields of `thresher audit --json`."""
    spans = [(code, re.fullmatch(r"([a-z_]+(?:\[\])?(?:\.[a-z_]+(?:\[\])?)+)(?:[:=].*)?", code.text)) for code in codes()]
    named = [
        (code, match[1])
        for code, match in spans
        if match and match[1].split(".")[0].removesuffix("[]") in TOP and match[1].split(".")[-1] not in FILES
    ]

    assert len(named) > 50
    assert [f"{code.page}: no recipe key {key}" for code, key in named if not exists(key) and "filters[]." not in key] == []


def test_every_recipe_key_that_is_set_on_a_command_line_exists() -> None:
    named = [(code, key) for code in codes() for key in re.findall(r"--set ['\"]?([a-z][\w.]*)=", code.text)]

    assert len(named) > 10
    assert [f"{where(code)}: no recipe key {key}" for code, key in named if not exists(key)] == []


@pytest.mark.parametrize("code", RECIPES, ids=lambda code: code.page)
def test_every_key_of_a_recipe_in_a_block_exists(code: Code) -> None:
    assert list(unknown(yaml.safe_load(code.text), "")) == []


def test_every_file_exists() -> None:
    """Of the tree; what is written by a run is not there."""
    pattern = (
        r"(?<![\w/.\-])(?:thresher|filters|schemas|flows|tests|benchmarks|docs|requirements|data/(?:recipes|prompts))/[\w./*-]+"
    )
    written = ("schemas/views/VIEW", "thresher/log", "thresher/manifest.json", "thresher/card.md")
    named = [
        (page.name, name.rstrip("./"))
        for page in PAGES
        for name in re.findall(pattern, page.read_text("utf-8"))
        if not name.startswith(written)
    ]

    assert len(named) > 50
    assert [(page, name) for page, name in named if not any(ROOT.glob(name))] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_link_leads_to_a_file(page: str) -> None:
    """mkdocs checks those inside of docs/."""
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text("utf-8"))

    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_what_does_not_exist_is_noticed() -> None:
    assert not exists("sampling.temprature")
    assert not exists("samplng.temperature")
    assert exists("prompts.0.source.path")
    assert exists("prompts[].license")
    assert exists("engine.options.block_size")
    assert list(unknown({"sampling": {"max_tokens": 1, "max_token": 1}, "filters": [{"nam": 1}]}, "")) == [
        "sampling.max_token",
        "filters.nam",
    ]
