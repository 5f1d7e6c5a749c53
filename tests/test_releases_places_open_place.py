"""A name is a repository of the Hub, a directory or an address."""

from pathlib import Path

import pytest

from thresher.errors import PublishError
from thresher.releases.places.folder import Folder
from thresher.releases.places.hub import HubPlace
from thresher.releases.places.open_place import open_place


@pytest.mark.parametrize("name", ["acme/sums", "acme/sums.v2"])
def test_two_names_are_a_repository_of_the_hub(name: str) -> None:
    assert isinstance(open_place(name), HubPlace)


@pytest.mark.parametrize("name", ["memory://bucket/sums", "./acme/sums", "sums", "acme/"])
def test_an_address_or_a_path_is_a_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert isinstance(open_place(name), Folder)


def test_a_directory_that_exists_is_a_folder_even_if_it_looks_like_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme" / "sums").mkdir(parents=True)

    assert isinstance(open_place("acme/sums"), Folder)


def test_an_address_whose_client_cannot_create_a_file_on_a_condition_is_refused() -> None:
    """Two publishers would overwrite each other's commits there."""
    with pytest.raises(
        PublishError, match=r"hf://datasets/acme/sums: cannot be a shared repository: its client .*hf://.* cannot"
    ):
        open_place("hf://datasets/acme/sums")
