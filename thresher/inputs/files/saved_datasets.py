"""Datasets that `datasets` saved in a folder with save_to_disk: one dataset, or one for each split."""

import json
from pathlib import Path
from typing import Any

from filters import trust
from schemas.suggest import did_you_mean
from thresher.errors import SourceError
from thresher.inputs.files.named_files import SPLITS, refuse_links

_ONE, _INFO = "state.json", "dataset_info.json"


def is_saved(folder: Path) -> bool:
    """Whether save_to_disk wrote the folder."""
    return (folder / _ONE).exists() or (folder / SPLITS).exists()


def load_saved(folder: Path, name: str, config: str | None, split: str | None) -> Any:
    """The saved dataset, which has no configs, and splits only if a DatasetDict was saved. `config` and `split` must be those
    that it was saved from; without a `split`, "train" is taken of several, and the only one there is otherwise. Raises
    SourceError, and what `datasets` raises."""
    import datasets

    _check_names(folder)
    if (folder / SPLITS).exists():
        splits = datasets.load_from_disk(str(folder))
        wanted = split or "train"
        if wanted not in splits:
            raise SourceError(f"{name}: no such split{did_you_mean(wanted, splits)}; it has {', '.join(splits)}")
        _require(name, "config", config, _noted(folder / wanted / _INFO, "config_name"))
        return splits[wanted]
    _require(name, "split", split, _noted(folder / _ONE, "_split"))
    _require(name, "config", config, _noted(folder / _INFO, "config_name"))
    return datasets.load_from_disk(str(folder))


def _check_names(folder: Path) -> None:
    """Raise SourceError where the files of a saved dataset name splits or data outside its folder."""
    refuse_links(folder)
    splits = _content(folder / SPLITS).get("splits", []) if (folder / SPLITS).exists() else [""]
    for split in splits:
        if refused := trust.outside(str(folder), f"{split}/{_ONE}" if split else _ONE, local=True):
            raise SourceError(f"{folder / SPLITS}: {refused}")
        state = folder / split / _ONE
        noted = _content(state) if state.exists() else {}
        for file in (*(noted.get("_data_files") or ()), *(noted.get("_indices_data_files") or ())):
            if refused := trust.outside(str(folder / split), str(file.get("filename")), local=True):
                raise SourceError(f"{state}: {refused}")


def _content(file: Path) -> dict[str, Any]:
    """What a file of a saved dataset holds."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{file}: cannot be read: {error}; is the saved dataset complete?") from error


def _noted(file: Path, key: str) -> str | None:
    """What a file of a saved dataset notes under a key."""
    noted = _content(file).get(key)
    return None if noted is None else str(noted)


def _require(name: str, what: str, wanted: str | None, noted: str | None) -> None:
    """Raise SourceError unless the dataset was saved from the wanted split or config. One that was made in memory has none: then
    `split` may be "train", which is what a recipe says where it names no split."""
    allowed = {None, noted} | ({"train"} if what == "split" and noted is None else set())
    if wanted not in allowed:
        raise SourceError(
            f"{name}: wanted the {what} {wanted!r} of a dataset that was saved without any; "
            + (f"set {what} to {noted}, which it was saved from" if noted else f"remove {what}, or save a DatasetDict")
        )
