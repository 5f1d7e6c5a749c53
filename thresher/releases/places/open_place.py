"""Opens a repository by its name: on the Hub, in a directory, or at an fsspec URL."""

from thresher.inputs.recipe_trust import is_of_hub
from thresher.releases.places.folder import Folder
from thresher.releases.places.hub import HubPlace
from thresher.releases.places.place import Place


def open_place(where: str) -> Place:
    """Open the repository of a name: ORG/NAME on the Hub, else a directory or an fsspec URL. Raises PublishError if the client
    of a URL is not installed."""
    return HubPlace(where) if is_of_hub(where) else Folder(where)
