"""The card of a dataset may name its own files, and no others."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import errors

from filters import trust
from thresher.errors import SourceError
from thresher.inputs.files.dataset_cards import check_card, check_folder, check_hub_card

pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def untrusting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(trust.VARIABLE)
    monkeypatch.delenv(trust.ROOT)


def card(files: str, start: str = "") -> str:
    return f"{start}---\nlicense: mit\nconfigs:\n- config_name: a\n  {files}\n---\n# text\n"


@pytest.mark.parametrize(
    "files",
    [
        "data_files: /etc/passwd",
        "data_files: ../x.parquet",
        "data_files: ['a.parquet', 'b/../../x.parquet']",
        "data_files: [{split: train, path: ['https://127.0.0.1:1/x']}]",
        "data_files: {train: 'file:///etc/passwd'}",
        "data_files: '~/x.parquet'",
        "data_dir: ..",
        "data_dir: /etc",
    ],
)
@pytest.mark.parametrize("start", ["", "\n \n"])
def test_files_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch, files: str, start: str) -> None:
    """Also where the front matter begins after empty lines, which `datasets` skips."""
    with pytest.raises(SourceError, match=r"org/name/README\.md: .* lies outside the dataset; .*--trust-code"):
        check_card(card(files, start), "org/name/README.md")
    monkeypatch.setenv(trust.VARIABLE, "1")
    check_card(card(files, start), "org/name/README.md")


@pytest.mark.parametrize(
    "text",
    [
        "# no front matter, and /etc/passwd",
        "---\nlicense: mit\n---\n",
        card("data_files: [{split: train, path: 'sft/train/*.parquet'}]"),
        card("data_files: 'data/**'"),
        card("data_dir: data"),
    ],
)
def test_cards_of_ordinary_datasets_are_taken(text: str) -> None:
    check_card(text, "org/name/README.md")


def test_a_card_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(SourceError, match="not valid YAML"):
        check_card("---\nconfigs: [\n---\n", "README.md")


def test_a_folder_that_datasets_would_take_for_a_pattern(tmp_path: Path) -> None:
    """It would read those of `run1` in place of `run[1]`."""
    (tmp_path / "run[1]").mkdir()
    with pytest.raises(SourceError, match="rename the folder"):
        check_folder(tmp_path / "run[1]")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".huggingface.yaml").write_text("configs: [{config_name: a, data_files: /x}]")
    with pytest.raises(SourceError, match="outside the dataset"):
        check_folder(tmp_path / "run")


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, text: str = "") -> list[tuple[str, str | None]]:
    """A Hub that answers with an error, or a card; returns what was asked for."""
    asked: list[tuple[str, str | None]] = []

    def download(repo: str, name: str, *, repo_type: str, revision: str | None) -> str:
        asked.append((f"{repo}/{name}", revision))
        if error is not None:
            raise error
        Path(name).write_text(text)
        return name

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: False)
    return asked


def hub_error(kind: type[errors.HfHubHTTPError]) -> Exception:
    return kind.__new__(kind)  # which needs no answer of a server


def test_a_card_of_the_hub_is_checked_before_the_dataset_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    asked = raising(monkeypatch, text=card("data_files: /etc/passwd"))
    for name in ("org/name", "name"):
        with pytest.raises(SourceError, match=f"{name}/README.md: a config"):
            check_hub_card(name, "abc")
    assert asked == [("org/name/README.md", "abc"), ("name/README.md", "abc")]


def test_a_card_that_cannot_be_had_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The next request, of `datasets`, may well find it. Where there is no repository, `datasets` says so."""
    monkeypatch.chdir(tmp_path)
    for error in (errors.LocalEntryNotFoundError("no network"), OSError("reset"), hub_error(errors.HfHubHTTPError)):
        raising(monkeypatch, error)
        with pytest.raises(SourceError, match=r"org/name/README\.md: cannot be read.*HF_HUB_OFFLINE=1"):
            check_hub_card("org/name", None)
    for kind in (errors.RemoteEntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raising(monkeypatch, hub_error(kind))
        check_hub_card("org/name", None)
    raising(monkeypatch, errors.LocalEntryNotFoundError("offline"))
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: True)
    check_hub_card("org/name", None)


@pytest.mark.parametrize("name", ["org/name", "json", "pandas", "buckets/org/name"])
def test_names_that_datasets_takes_for_no_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """A folder of the working directory, which is not beside the recipe; a format, which is read from there; a bucket."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    asked = raising(monkeypatch)
    with pytest.raises(SourceError, match=name):
        check_hub_card(name, None)
    assert asked == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README.md", "---\nlicense: mit\n---x: y\nconfigs:\n- config_name: default\n  data_files: /abs/s.jsonl\n---\n"),
        ("README.md", "---\r\nconfigs:\r\n- config_name: default\r\n  data_files: /abs/s.jsonl\r\n---\r\n"),
        ("README.md", "---\na: b\n--- \n---\n" + "---\nconfigs: [{config_name: a, data_files: /x}]\n---\n"),
        (".huggingface.yaml", "---\nconfigs: [{config_name: a, data_files: /x}]\n"),
        (".huggingface.yaml", "---\na: b\n---x: y\nconfigs: [{config_name: a, data_files: /x}]\n"),
        (".huggingface.yaml", "configs: [{config_name: a, data_files: /x}]\na: |\n\n ---\n"),
    ],
)
def test_a_card_is_read_to_where_datasets_reads_it(tmp_path: Path, name: str, text: str) -> None:
    """Whatever `datasets` finds in it is refused; what is not in its front matter is text."""
    (tmp_path / name).write_bytes(text.encode())
    if name == "README.md":
        found: Any = huggingface_hub.DatasetCard.load(tmp_path / name).data.to_dict()
    else:
        found = yaml.safe_load(text)
    if found.get("configs"):
        with pytest.raises(SourceError, match="outside the dataset"):
            check_folder(tmp_path)
    else:
        check_folder(tmp_path)


@pytest.mark.parametrize("place", [".h/l.jsonl", "_h/l.jsonl", ".l.jsonl", "a/.h", "README.md", ".huggingface.yaml"])
def test_links_are_found_wherever_a_card_may_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    folder, secret = tmp_path / "data", tmp_path / "secret"
    secret.mkdir()
    (folder / place).parent.mkdir(parents=True)
    (folder / place).symlink_to(secret)
    monkeypatch.chdir(folder)
    with pytest.raises(SourceError, match="lies outside"):
        check_folder(folder)
