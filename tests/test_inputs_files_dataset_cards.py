"""The card of a dataset may name its own files, and no others."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from filters import trust
from thresher.errors import SourceError
from thresher.inputs.files.dataset_cards import check_card, check_folder, check_hub_card


@pytest.fixture(autouse=True)
def untrusting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(trust.VARIABLE)


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


def test_a_card_of_the_hub_is_checked_before_the_dataset_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def download(repo: str, name: str, *, repo_type: str, revision: str | None) -> str:
        asked.append((repo, name, revision))
        if name != "README.md":
            raise OSError("no such file")
        (tmp_path / name).write_text(card("data_files: /etc/passwd"))
        return str(tmp_path / name)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    with pytest.raises(SourceError, match="org/name"):
        check_hub_card("org/name", "abc")
    assert asked[0] == ("org/name", "README.md", "abc")
    asked.clear()
    check_hub_card("json", None)
    assert asked == []
