"""flows, filters and schemas are ours and not a stranger's: their names are common, so look before use."""

from importlib.util import find_spec
from pathlib import Path

_MARKS = {"flows": "pipeline.py", "filters": "base.py", "schemas": "recipe.py"}


def check() -> None:
    """Raise ImportError when another package of the same name stands first on the path."""
    for name, mark in _MARKS.items():
        spec = find_spec(name)
        places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
        if not any((place / mark).is_file() for place in places):
            found = spec.origin or ", ".join(map(str, places)) if spec else "nothing"
            raise ImportError(
                f"thresher needs its own package {name!r}, but Python found {found}; "
                "start from another directory, or take the other package off the path (PYTHONPATH, a folder of that name)"
            )
