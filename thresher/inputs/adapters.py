"""Turns the LoRA adapter that a recipe names into a local directory that vLLM can load, identifies it, and compares it with its
model: by the shapes of its matrices, because the name of the base model in it is often somebody's local path."""

import hashlib
import json
import logging
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresher.errors import ModelError

log = logging.getLogger(__name__)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_HUB_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight")
_LAYER = re.compile(r"layers\.\d+\..+")
_PACKED = ("U8", "I8", "I32", "U32")
"""Types of tensors that hold several quantised weights per number, so that their shapes tell nothing."""
_REFUSED = (
    ("use_dora", False, "DoRA"),
    ("modules_to_save", None, "whole modules (modules_to_save)"),
    ("bias", "none", "biases"),
    ("alora_invocation_tokens", None, "activation tokens (aLoRA)"),
)
"""What vLLM cannot load, with the value that means it is absent."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on this machine, or the name under which a server has it."""

    name: str
    """As in the recipe; over HTTP the served name."""
    path: str = ""
    """Local directory; empty where a server has it."""
    revision: str | None = None
    """Commit of a Hub adapter, else the hash of its files; null where a server has it."""
    rank: int = 0
    """Largest rank of its matrices; 0 where unknown."""

    @property
    def label(self) -> str:
        """What the pool records: NAME@REVISION, or the name."""
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def resolve(name: str, *, base: Path, model: str, model_path: str) -> Adapter:
    """Find or download the adapter that a recipe names, and compare it with its model, whose weights are in `model_path`. `base`
    is the recipe's directory. Raises ModelError."""
    directory, where = (base / Path(name).expanduser()).absolute(), f"model.adapter {name!r}"
    hub_id = _HUB_ID.fullmatch(name)
    if directory.is_dir() or name.startswith(("/", ".", "~")) or hub_id is None:
        revision = None
    else:
        directory = _downloaded(hub_id["name"], hub_id["revision"], where)
        name, revision = hub_id["name"], directory.name
    if missing := [file for file in (CONFIG, WEIGHTS) if not (directory / file).is_file()]:
        raise ModelError(
            f"{where}: {directory} has no {' and no '.join(missing)}; give the directory of a LoRA adapter as PEFT writes it "
            "(save_pretrained), or a Hub id (org/name or org/name@commit)"
        )
    config = _json(directory / CONFIG, where)
    shapes = _lora_shapes(directory / WEIGHTS, where)
    _check_kind(config, shapes, where)
    _check_base(config, shapes, where, model=model, weights=Path(model_path))
    rank = max(shape[0] for (_, half), shape in shapes.items() if half == "A")
    return Adapter(name, str(directory), revision or _fingerprint(directory), rank)


# -- inside --------------------------------------------------------------------------------------------------------------


def _downloaded(name: str, revision: str | None, where: str) -> Path:
    import huggingface_hub

    try:
        files = [CONFIG, WEIGHTS]
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=files))
    except Exception as error:
        todo = "check its name and revision, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE, or name a directory"
        raise ModelError(f"{where}: not downloaded; {todo} ({type(error).__name__}: {error})") from error


def _check_kind(config: dict[str, Any], shapes: dict[tuple[str, str], list[int]], where: str) -> None:
    """Refuse what vLLM cannot load, before an engine is started."""
    kind = str(config.get("peft_type", "")).upper()
    if kind != "LORA":
        raise ModelError(f"{where}: its {CONFIG} says peft_type {kind or 'nothing'}; wanted LORA, the only kind that vLLM loads")
    if refused := [words for name, absent, words in _REFUSED if config.get(name, absent) not in (absent, None)]:
        raise ModelError(f"{where}: it has {', '.join(refused)}, which vLLM cannot load; merge it into its model, and name that")
    if not any(half == "A" for _, half in shapes):
        raise ModelError(f"{where}: {WEIGHTS} has no lora_A matrices; save the adapter with PEFT's save_pretrained")


def _check_base(
    config: dict[str, Any], shapes: dict[tuple[str, str], list[int]], where: str, *, model: str, weights: Path
) -> None:
    """Compare an adapter's matrices with the weights that they change. Raises ModelError where they do not fit."""
    trained_on = str(config.get("base_model_name_or_path") or "another model")
    known: dict[str, list[tuple[str, list[int]]]] = defaultdict(list)  # vision and text may have layers of the same name
    for name, weight in _tensors(weights):
        known[name].append(weight)
    if not known:  # weights in another format than safetensors: vLLM compares them when it starts
        return
    for (module, half), (rows, columns) in sorted(shapes.items()):
        layer = _LAYER.search(module)
        if layer is None or ".experts." in module:  # names that differ between libraries
            continue
        candidates = _of_module(known, layer[0])
        fits = f"it was trained on {trained_on}; name that model, or an adapter of {model}"
        if not candidates:
            raise ModelError(f"{where}: it changes {layer[0]}, which {model} does not have: an adapter of another model; {fits}")
        if any(kind in _PACKED or len(shape) != 2 for kind, shape in candidates):
            continue
        side, axis, found = ("reads", 1, columns) if half == "A" else ("writes", 0, rows)
        wanted = sorted({shape[axis] for _, shape in candidates})
        if found not in wanted:
            raise ModelError(
                f"{where}: its {layer[0]} {side} {found} numbers, that of {model} {' or '.join(map(str, wanted))}: an adapter of "
                f"another model; {fits}"
            )
    if trained_on != model and all(_HUB_ID.fullmatch(name) for name in (trained_on, model)):
        log.warning(
            "%s was trained on %s, and fits %s by its shapes; make sure that it is meant for it", where, trained_on, model
        )


def _of_module(known: dict[str, list[tuple[str, list[int]]]], tail: str) -> list[tuple[str, list[int]]]:
    """Type and shape of a module's weights, by the end of its name; packed weights have other names. Empty if it is absent."""
    packed = ("U8", list[int]())
    return known.get(f"{tail}.weight") or [packed for name in known if name.startswith(f"{tail}.")][:1]


def _tensors(folder: Path) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    """(name from its layer on, (type, shape)) of the weights of a model's layers."""
    for file in sorted(folder.glob("*.safetensors")):
        for name, fields in _header(file).items():
            if (layer := _LAYER.search(name)) is not None:
                yield layer[0], (fields["dtype"], fields["shape"])


def _lora_shapes(file: Path, where: str) -> dict[tuple[str, str], list[int]]:
    """Shapes of the matrices by module and half: A is (rank, inputs), B is (outputs, rank)."""
    try:
        header = _header(file)
    except (OSError, ValueError, struct.error) as error:
        raise ModelError(f"{where}: {file} is no safetensors file ({error}); save the adapter again") from error
    matches = {name: _MATRIX.fullmatch(name) for name in header}
    shapes = {(match["module"], match["half"]): header[name]["shape"] for name, match in matches.items() if match is not None}
    return {key: shape for key, shape in shapes.items() if len(shape) == 2}


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """The header of a safetensors file: type, shape and place of each tensor. Nothing else is read."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        if size > file.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = dict(json.loads(stream.read(size)))
    header.pop("__metadata__", None)
    return header


def _fingerprint(directory: Path) -> str:
    """16 hex digits of the hash of config and weights, all bytes of them: an adapter is small."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (directory / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _json(file: Path, where: str) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{where}: {file} holds no JSON object: {error}; save the adapter again") from error
