"""A small recipe with two models whose answers come from two tables."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRONG = {"France": ["Lyon", "Paris"], "Spain": ["Sevilla"], "Japan": ["Tokyo"], "Italy": ["Milan"]}
"""What the model `second` answers: half right for France, right for Japan."""


def model_directory(folder: Path, name: str) -> None:
    """A directory that is a model by its files; nothing loads it. Its weights are its name, so that its revision is its own."""
    (folder / name).mkdir(exist_ok=True)
    files = {
        "config.json": '{"max_position_embeddings": 8192}',
        "tokenizer.json": "{}",
        "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}),
        "model.safetensors": name * 10_000,
    }
    for file, text in files.items():
        (folder / name / file).write_text(text)


def two_models(recipe: Callable[..., Path], folder: Path, **changes: Any) -> Path:
    """Write the small recipe with the models `first` and `second`; `first` and `second` in `changes` are further keys of these
    entries. Returns its path."""
    for name in ("first", "second"):
        model_directory(folder, name)
    rows = [{"prompt": f"Capital of {country}?", "completion": text} for country, texts in WRONG.items() for text in texts]
    (folder / "second.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = [
        {"name": "first", **changes.pop("first", {})},
        {"name": "second", "engine": {"kind": "replay", "path": "second.jsonl"}, **changes.pop("second", {})},
    ]
    return recipe(**{"models": models} | changes)
