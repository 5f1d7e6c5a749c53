"""Checks what the card of a dataset makes `datasets` read: only files of the dataset itself.

The front matter of README.md, or .huggingface.yaml, names `data_files`. `datasets` also takes an absolute path there, one with
`..`, and a URL: a dataset of a stranger could have a file of this machine read as its rows.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from filters import trust
from thresher import yaml_text
from thresher.errors import SourceError

CARDS = ("README.md", ".huggingface.yaml")
"""Files of a dataset in which `datasets` looks for configs."""


def check_folder(folder: Path) -> None:
    """Check a dataset in a local folder before `datasets` reads it. Raises SourceError."""
    where = str(folder.absolute())
    if re.search(r"[*?\[]", where):
        raise SourceError(f"{where}: `datasets` takes *, ? and [ in the path of a dataset for a pattern; rename the folder")
    for name in CARDS:
        file = folder / name
        if file.is_file():
            check_card(file.read_bytes().decode("utf-8-sig", "replace"), str(file))


def check_hub_card(repo: str, revision: str | None) -> None:
    """Check a dataset of the Hub before `datasets` reads it. Where a card cannot be had, `datasets` cannot read the dataset
    either, or has a copy that was checked. Raises SourceError."""
    from huggingface_hub import hf_hub_download

    for name in CARDS if "/" in repo else ():  # names without an owner are of the builders of `datasets`
        try:
            file = hf_hub_download(repo, name, repo_type="dataset", revision=revision)
        except Exception:  # noqa: BLE001, S112 - `datasets` will say what is wrong with the Hub or the name
            continue
        check_card(Path(file).read_bytes().decode("utf-8-sig", "replace"), f"{repo}/{name}")


def check_card(text: str, where: str) -> None:
    """Raise SourceError where a card names data outside its dataset, unless the user trusts it (filters.trust)."""
    if trust.trusts_all():
        return
    matter = re.match(r"\s*---[\r\n]+(.*?)[\r\n]+---", text, re.DOTALL)
    try:
        content = yaml_text.load(matter[1] if matter else "" if where.endswith(".md") else text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SourceError(f"{where}: its front matter is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    configs = content.get("configs") if isinstance(content, Mapping) else None
    for config in configs if isinstance(configs, list) else []:
        for name in _named(config) if isinstance(config, Mapping) else ():
            if name.startswith(("/", "~", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
                raise SourceError(
                    f"{where}: a config of the dataset names {name!r}, which lies outside the dataset; if you trust it, pass "
                    f"--trust-code (or set {trust.VARIABLE}=1)"
                )


def _named(config: Mapping[str, Any]) -> Iterator[str]:
    """The paths of a config, in the forms that `datasets` knows."""
    yield from _texts(config.get("data_files"))
    yield from _texts(config.get("data_dir"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
