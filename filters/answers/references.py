"""Read the texts that a prompt's reference accepts."""

import json
from typing import Any


def accepted_texts(reference: Any) -> list[str] | None:
    """The acceptable answers as text; None if the reference is not a text, a number, or a list of these with an entry."""
    entries = reference if isinstance(reference, list) else [reference]
    if not entries or any(isinstance(entry, bool) or not isinstance(entry, str | int | float) for entry in entries):
        return None
    return [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
