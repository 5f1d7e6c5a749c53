"""Renders, escapes and writes HTML pages that work offline."""

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thresher.auditing.show import finite, number, percent, share
from thresher.durable import replace_file
from thresher.errors import AuditError
from thresher.pool.store import Store

if TYPE_CHECKING:
    import altair as alt


def write_page(text: str, path: str | Path) -> str:
    """Write a page to a file or an fsspec URL; returns where it is. Raises AuditError if it cannot be written."""
    if "://" in str(path):
        folder, _, name = str(path).rpartition("/")
        Store(folder).write_bytes(name, text.encode())
        return str(path)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise AuditError(f"{path}: cannot write: {error.strerror or error}; name another file with --html") from error
    return str(path)


def rendered(template: str, charts: "Mapping[str, alt.Chart | alt.LayerChart]", **values: Any) -> str:
    """Render a template with these charts. Every value is escaped, except JSON from `safe_json`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("thresher.auditing.pages", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(
        charts=safe_json({name: chart.to_dict() for name, chart in charts.items()}),
        library=_library(),
        safe=safe_json,
        number=number,
        percent=percent,
        share=share,
        **values,
    )


def safe_json(value: Any) -> str:
    """JSON for a script element: nothing in it can end the element or start another. NaN and infinity become null."""
    text = json.dumps(finite(value), ensure_ascii=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed as one script. Bundling takes seconds, so the script is kept in the user's cache."""
    from importlib.metadata import version

    import vl_convert
    from platformdirs import user_cache_path

    file = user_cache_path("thresher") / f"vega-{version('vl-convert-python')}.js"
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text("utf-8")
    bundle = str(vl_convert.javascript_bundle()).replace("</script", "<\\/script")  # type: ignore[call-arg]
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, bundle.encode())
    return bundle
