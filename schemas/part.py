"""The base of every part of a recipe, and types that several parts share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Share = Annotated[float, Field(ge=0, le=1)]
Similarity = Annotated[float, Field(gt=0, le=1)]


def _inner(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or "://" in path or "\\" in path or "\0" in path:
        raise ValueError(f"{path!r} leads out of its folder")
    return path


InnerPath = Annotated[str, AfterValidator(_inner)]
"""A relative path of a file in a folder or repository, which cannot lead out of it."""


class Part(BaseModel):
    """Frozen, and unknown keys are errors. The docstring of a field is its description in the JSON Schema and the docs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
