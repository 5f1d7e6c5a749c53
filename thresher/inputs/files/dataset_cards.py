"""Checks what the card of a dataset makes `datasets` read: only files of the dataset itself.

The front matter of README.md, or .huggingface.yaml, names `data_files`. `datasets` also takes an absolute path there, one with
`..`, and a URL: a dataset of a stranger could have a file of this machine read as its rows.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from filters import trust
from thresher import yaml_text
from thresher.errors import SourceError
from thresher.inputs.files.named_files import refuse_links

CARDS = ("README.md", ".huggingface.yaml")
"""Files of a dataset in which `datasets` looks for configs."""


def check_folder(folder: Path) -> None:
    """Check a dataset in a local folder before `datasets` reads it: no link in it may lead out of it. Raises SourceError."""
    where = str(folder.absolute())
    if re.search(r"[*?\[]", where):
        raise SourceError(f"{where}: `datasets` takes *, ? and [ in the path of a dataset for a pattern; rename the folder")
    refuse_links(folder)
    for name in CARDS:
        file = folder / name
        if file.is_file():
            check_card(file.read_bytes().decode("utf-8-sig", "replace"), str(file))


def check_hub_card(repo: str, revision: str | None) -> None:
    """Check a dataset of the Hub before `datasets` reads it. A repository that the Hub does not have is left to `datasets`, which
    says so; where the Hub is not to be asked, `datasets` reads the copy that it made then. Raises SourceError, also where a card
    may exist and cannot be had, and for names that `datasets` takes for something else than a repository."""
    from huggingface_hub import constants, errors, hf_hub_download

    if trust.trusts_all():
        return
    _refuse_other_meanings(repo)
    for name in CARDS:
        try:
            file = hf_hub_download(repo, name, repo_type="dataset", revision=revision)
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
            return
        except errors.RemoteEntryNotFoundError:
            continue
        except Exception as error:
            if constants.is_offline_mode():
                continue
            raise SourceError(
                f"{repo}/{name}: cannot be read, so nobody knows which files the dataset names "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); try again, or set HF_HUB_OFFLINE=1 to use "
                "what is on this machine"
            ) from error
        check_card(Path(file).read_bytes().decode("utf-8-sig", "replace"), f"{repo}/{name}")


def _refuse_other_meanings(repo: str) -> None:
    """Raise SourceError for a name of the Hub that `datasets` would look for in the working directory, and for a bucket."""
    import datasets

    if os.path.exists(repo):
        raise SourceError(
            f"{repo}: is no folder beside the recipe, but `datasets` would read {os.path.abspath(repo)} in its place; give the "
            "path of the folder that you mean, or run the command elsewhere"
        )
    if repo in datasets.packaged_modules._PACKAGED_DATASETS_MODULES:
        raise SourceError(
            f"{repo}: is a format of `datasets`, which would read the working directory; name a dataset (org/name), or the files"
        )
    if repo.startswith("buckets/"):
        raise SourceError(
            f"{repo}: thresher checks no cards of buckets; if you trust it, pass --trust-code (or set {trust.VARIABLE}=1)"
        )


def check_card(text: str, where: str) -> None:
    """Raise SourceError where a card names data outside its dataset, unless the user trusts it (filters.trust). `where` ends
    with the name of the file: of README.md, `datasets` reads the front matter, of others the whole."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    if trust.trusts_all():
        return
    matter = REGEX_YAML_BLOCK.search(text)
    try:
        content = yaml_text.load((matter[2] if matter else "") if where.endswith(".md") else text)
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
