"""What of a run's surroundings may leave the machine: no addresses of servers, no further request fields, no directories.

Cards, datasets, releases and reports are read by others. What a recipe or an error says of the machine it ran on is left out of
them, unless the recipe asks for it (`dataset.engine_details`).
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.sample import to_json

ADDRESS, LEFT_OUT = "[address]", "[not shown]"
_HIDDEN = frozenset({"extra_body", "base_urls", "address", "fleet", "api_key_env", "scratch"})
"""Keys of a recipe whose values describe servers and machines."""
_TEXTS = frozenset({
    "template", "system", "few_shot", "reference_template", "stop", "fields", "description", "pretty_name", "json_schema",
    "regex", "choice", "tags", "pattern", "rubric", "salt",
})  # fmt: skip
"""Keys whose values are texts for a model or a reader: a slash at their beginning makes no path of them."""
_ANSWERS = frozenset({"found", "expected", "answer"})
"""Keys of a verdict's detail whose values are a sample's words or its reference's."""
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>()\[\],;]+")
_HOST = re.compile(
    r"\[[0-9A-Fa-f:]*:[0-9A-Fa-f:]*\](?::\d+)?|(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\w.])"
    r"|\blocalhost:\d+|\b(?:[A-Za-z0-9-]+\.)+(?!(?:py|pyx|c|cc|cpp|h|rs|js|ts|go|java|json|jsonl|yaml)\b)[A-Za-z]{2,}:\d{3,5}\b"
)
_PATH = re.compile(r"(?<![\w./:~<])(?:~[\w.-]*/|/)(?:[^\s/'\"<>:,;()\[\]]+/)+(?=[^\s/'\"<>:,;()\[\]])")
"""The folders of an absolute path with two names or more; the last name stays."""
_SERVER = re.compile(r".+:\d+")


def public_text(text: str, servers: Iterable[str] = ()) -> str:
    """Return a text without URLs, hosts, these `servers` (a host without dots is told from a word only by its name), and the
    folders of absolute paths."""
    text = _URL.sub(ADDRESS, text)
    for server in sorted(servers, key=len, reverse=True):
        text = text.replace(server, ADDRESS)
    return _PATH.sub("", _HOST.sub(ADDRESS, text))


def public_detail(detail: str, servers: Iterable[str] = ()) -> str:
    """Return the JSON text of a verdict's detail, of which each text is as `public_text` returns it; answers stay as they are."""

    def public(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: inner if key in _ANSWERS else public(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [public(inner) for inner in value]
        return public_text(value, servers) if isinstance(value, str) else value

    value = json.loads(detail)
    return detail if (changed := public(value)) == value else to_json(changed)


def servers_among(sources: Iterable[str | None]) -> frozenset[str]:
    """Return those of the samples' sources that are servers."""
    return frozenset(source for source in sources if source and _SERVER.fullmatch(source))


def public_name(name: str) -> str:
    """Return the name of a model, filter or file: of a path with folders of this machine only its last part."""
    name = _URL.sub(ADDRESS, name)
    outside = name.startswith(("/", "~", "../", "file:/")) or "/../" in name
    return name.rstrip("/").rsplit("/", 1)[-1] if outside else name


def public_source(source: str) -> str:
    """Return what drew a sample: `server` for the address of one."""
    return "server" if _SERVER.fullmatch(source) else source


def public_settings(value: Any, key: str = "") -> Any:
    """Return a part of a recipe, or of an engine's settings, that names no server, no directory and no further request fields."""
    if key in _HIDDEN and value not in (None, "auto", [], {}):
        return LEFT_OUT
    if isinstance(value, Mapping):
        return {name: inner if name in _TEXTS else public_settings(inner, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public_settings(inner, key) for inner in value]
    return _HOST.sub(ADDRESS, public_name(value)) if isinstance(value, str) else value
