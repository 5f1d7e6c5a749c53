"""Opens a repository by its name: on the Hub, in a directory, or at an fsspec URL."""

import re
from pathlib import Path

from thresher.releases.places.folder import Folder
from thresher.releases.places.hub import HubPlace
from thresher.releases.places.place import Place


def open_place(where: str) -> Place:
    """Open the repository of a name: ORG/NAME on the Hub, else a directory or an fsspec URL. Raises PublishError if the client
    of a URL is not installed."""
    if "://" in where or where.startswith((".", "/", "~")) or Path(where).is_dir() or not re.search("[^/]/[^/]", where):
        return Folder(where)
    return HubPlace(where)
