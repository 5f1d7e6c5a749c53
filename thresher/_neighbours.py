"""Check that Python finds thresher's own packages flows, filters and schemas, whose names other projects use too."""

import os
import sys

TYPE_CHECKING = False  # nothing is imported here that takes milliseconds: this runs before every command
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

_MARKS = {"flows": "pipeline.py", "filters": "base.py", "schemas": "recipe.py"}
"""Packages of thresher's, and a module that tells each from another package of the same name."""


def check() -> None:
    """Raise ImportError if Python finds another package of one of these names first."""
    for name, mark in _MARKS.items():
        spec = _find_spec(name)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not any(os.path.isfile(os.path.join(folder, mark)) for folder in folders):
            origin = (spec.origin or ", ".join(folders)) if spec else "nothing"
            raise ImportError(
                f"thresher needs its own package {name!r}, but Python found {origin}; start from another directory, or remove "
                "the other package from the path (PYTHONPATH, or a folder of that name)"
            )


def _find_spec(name: str) -> "ModuleSpec | None":
    """Do what importlib.util.find_spec does for a top-level package, without its imports."""
    if name in sys.modules:
        return sys.modules[name].__spec__
    specs = (finder.find_spec(name, None) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)
