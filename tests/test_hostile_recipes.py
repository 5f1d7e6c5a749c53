"""Recipes, arguments and rows of any content end a command with one line of text, at once and in bounded memory."""

import os
import time
from pathlib import Path

import pytest

from helpers.small_run import small_run
from thresher.cli import main

pytestmark = pytest.mark.slow

RECIPE = """name: demo
prompts:
- family: a
  source: {kind: grid, fields: {x: [1, 2]}}
  template: "say {{x}}"
  reference: null
model: {name: smollm2-135m-instruct}
engine: {kind: replay, path: x.jsonl}
sampling: {samples_per_prompt: 2, max_tokens: 8}
"""
NESTED = [f"{name}: &{name} [{','.join([f'*{inner}'] * 9)}]" for inner, name in zip("abcdefghij", "bcdefghijk", strict=True)]
MERGED = [
    f"{name}: &{name} {{<<: [{','.join([f'*{inner}'] * 9)}]}}" for inner, name in zip("abcdefghij", "bcdefghijk", strict=True)
]
DOCUMENTS: dict[str, str | bytes] = {
    "empty": "",
    "a comment": "# nothing\n",
    "null": "null",
    "a list": "[1]",
    "text": "recipe",
    "two": "a\n---\nb",
    "aliases that grow": "\n".join(["a: &a [x]", *NESTED]),
    "merges that grow": "\n".join(["a: &a {x: 1}", *MERGED]),
    "an alias in itself": "name: &a [*a]",
    "an alias of nothing": "name: *a",
    "brackets": "[" * 100_000,
    "closed brackets": "[" * 150 + "]" * 150,
    "indents": "".join(f"{' ' * level}a:\n" for level in range(1500)),
    "questions": "? " * 20_000,
    "a long number": "1" * 5000,
    "a long hexadecimal number": "0x" + "f" * 100_000,
    "a number of base 60": "1" + ":59" * 100_000,
    "a control character": "name: \x1b[31m",
    "a character beyond Unicode": '"\\U7fffffff"',
    "UTF-16": RECIPE.encode("utf-16"),
    "Latin-1": "name: größer".encode("latin-1"),
    "half a surrogate pair": b"name: \xed\xa0\x80",
    "zeros": bytes(1000),
    "code": "!!python/object/apply:os.getcwd []",
    "a boolean that is none": "!!bool x",
    "a date that is none": "!!timestamp x",
    "much": "# " + "x" * (3 << 20),
}
GRID, MODEL, SAMPLING = "{kind: grid, fields: {x: [1, 2]}}", "{name: smollm2-135m-instruct}", "max_tokens: 8"
CHANGES = {
    "not a number": (SAMPLING, f"{SAMPLING}, temperature: .nan"),
    "infinity": (SAMPLING, f"{SAMPLING}, temperature: .inf"),
    "1e400": (SAMPLING, f"{SAMPLING}, temperature: 1.0e+400"),
    "10**300 tokens": (SAMPLING, f"max_tokens: 1{'0' * 300}"),
    "10**18 samples": ("samples_per_prompt: 2", f"samples_per_prompt: 1{'0' * 18}"),
    "a name with a line end": ("name: demo", 'name: "demo\\n"'),
    "a name with escapes": ("name: demo", 'name: "demo\\e[31m"'),
    "a path with the character 0": ("x.jsonl", '"a\\0b"'),
    "a path with half a surrogate pair": ("x.jsonl", '"a\\ud800b"'),
    "a key with half a surrogate pair": ("x: [1, 2]", '"\\ud800": [1, 2]'),
    "a key that is a number": ("x: [1, 2]", "1: [1, 2]"),
    "a key that is null": (MODEL, "{null: m}"),
    "a set": ("x: [1, 2]", "x: !!set {a, b}"),
    "a device": (GRID, "{kind: jsonl, path: /dev/zero}"),
    "a pipe": (GRID, "{kind: jsonl, path: pipe}"),
    "a pattern that finds a pipe": (GRID, "{kind: jsonl, path: pip*}"),
    "a pipe for Parquet": (GRID, "{kind: parquet, path: pipe}"),
    "a directory": (GRID, "{kind: jsonl, path: folder}"),
    "a dataset with a script": (GRID, "{kind: dataset, path: script, split: train}"),
    "a template of many levels": ('"say {{x}}"', '"' + "{{" * 5000 + '"'),
    "a template with half a surrogate pair": ('"say {{x}}"', '"\\udc00 {{x}}"'),
    "a filter with a line end": ("sampling:", 'filters: [{name: "a\\nb:c"}]\nsampling:'),
    "a filter of a package around": ("sampling:", 'filters: [{name: "..x:y"}]\nsampling:'),
    "a key of the rows with half a surrogate pair": (GRID, "{kind: jsonl, path: surrogate_key.jsonl}"),
    "a value of the rows with half a surrogate pair": (GRID, "{kind: jsonl, path: surrogate.jsonl}"),
    "rows of many levels": (GRID, "{kind: jsonl, path: deep.jsonl}"),
    "rows with a long number": (GRID, "{kind: jsonl, path: long.jsonl}"),
    "no rows": (GRID, "{kind: jsonl, path: empty.jsonl}"),
    "no Parquet": (GRID, "{kind: parquet, path: empty.jsonl}"),
}
OVERRIDES = [
    "sampling.temperature=.nan", "sampling.temperature=1.0e+999", f"sampling.max_tokens={'1' * 5000}", "sampling.max_tokens=[",
    f"sampling.max_tokens={'[' * 5000}", "sampling.max_tokens=&a [*a]", "a.b.c=1", "prompts.0=1", "prompts.7.family=b",
    f"prompts.{'9' * 30}.family=b", "prompts.x=1", "prompts.²=1", ".=1", "=1", "x", "name=a\x1b[31m", 'name="\\ud800"',
    "name=\udc80", f"{'.'.join('a' * 3000)}=1", "engine.x.y.z=1", "sampling=1", 'engine.path="a\\0b"',
]  # fmt: skip
GATES = ["hits=.nan", "hits=.inf", f"hits={'1' * 5000}", "hits=[", f"hits={'[' * 5000}", "hits=&a [*a]", "x=1", "", "hits=\udc80"]
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "a list": b"[1]",
    "brackets": b"[" * 100_000,
    "levels": b"[" * 10_000 + b"]" * 10_000,
    "not UTF-8": b'{"name": "\xff"}',
    "half a surrogate pair": b'{"name": "\\ud800"}',
    "a long number": b'{"pool_version": ' + b"1" * 5000 + b"}",
    "infinity": b'{"pool_version": 1e400}',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "script").mkdir()
    (folder / "script" / "script.py").write_text("raise SystemExit('ran')")
    (folder / "empty.jsonl").write_text("")
    (folder / "surrogate.jsonl").write_text('{"x": "\\ud800"}\n')
    (folder / "surrogate_key.jsonl").write_text('{"\\ud800": 1, "x": 1}\n')
    (folder / "deep.jsonl").write_text('{"x": ' + "[" * 100_000 + "\n")
    (folder / "long.jsonl").write_text('{"x": ' + "1" * 5000 + "}\n")
    (folder / "x.yaml").write_text(RECIPE)
    main(["check", str(folder / "x.yaml")])  # the imports
    main(["check", str(folder / "x.yaml"), "--set", "prompts.0.source={kind: dataset, path: script, split: train}"])
    return folder


def refused(capsys: pytest.CaptureFixture[str], *command: str, lines: int = 1) -> str:
    """Run a command that ends with an error of one line, or of so many, within two seconds; return it."""
    capsys.readouterr()
    began = time.process_time()
    assert main(command) == 1
    seconds = time.process_time() - began
    message = capsys.readouterr().err

    assert message.startswith("thresher: ")
    assert 1 <= message.count("\n") <= lines
    assert message.replace("\n", "").isprintable()
    assert seconds < 2
    return message


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_is_no_recipe_is_refused(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = DOCUMENTS[name]
    (folder / "x.yaml").write_bytes(document if isinstance(document, bytes) else document.encode())

    assert "x.yaml" in refused(capsys, "check", str(folder / "x.yaml"))


@pytest.mark.parametrize("name", CHANGES)
def test_a_recipe_with_an_odd_value_is_refused(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = CHANGES[name]
    assert old in RECIPE
    (folder / "x.yaml").write_text(RECIPE.replace(old, new, 1))

    refused(capsys, "check", str(folder / "x.yaml"))


@pytest.mark.parametrize("path", ["folder", "pipe", "/dev/zero", "none", "a\0b", "a\udc80b", "a" * 5000, ""])
def test_a_path_that_is_no_file_is_refused(path: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "check", str(folder / path))


@pytest.mark.parametrize("text", OVERRIDES, ids=lambda text: text[:20])
def test_an_odd_override_is_refused(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.yaml").write_text(RECIPE)

    refused(capsys, "check", str(folder / "x.yaml"), "--set", text)


@pytest.mark.parametrize("text", GATES, ids=lambda text: text[:20])
def test_an_odd_gate_is_refused(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder / "run"
    if not root.exists():
        small_run(root)

    assert "gate" in refused(capsys, "publish", str(root), "--repo", str(folder / "repo"), "--gate", text)


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("file", ["run.json", "prompts.json", "samples/00000.json", "verdicts/00000.json"])
def test_a_file_of_a_run_that_is_none_is_named(name: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path)
    (tmp_path / file).write_bytes(CONTENTS[name])

    assert file.removesuffix(".json") in refused(capsys, "audit", str(tmp_path), lines=3)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a directory"])
def test_a_manifest_that_is_no_file_is_named(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "run.json"
    if kind == "a pipe":
        os.mkfifo(manifest)
    elif kind == "a device":
        manifest.symlink_to("/dev/zero")
    else:
        manifest.mkdir()

    assert "run.json: wanted a file" in refused(capsys, "audit", str(tmp_path))
