"""Options of vLLM's engine that need the user's consent: those that load code, trust another machine, or use files elsewhere.

They are judged by rule and not by a list, because each version of vLLM adds some (0.32.0 is tested).
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from filters import trust

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
"""How vLLM names an object of a module: package.module.Class."""
_LOADS = re.compile(
    r"(^|_)(cls|cls_path|class|class_overrides|plugins?|module|module_path|code|code_revision|middleware)$"
    r"|(^|_)(addr|address|ip|host|endpoint|url|uri|socket|socket_path|socket_dir|cache_dir)$"
    r"|^(logits_processors|additional_config|log_config_file|logging_config)$"
)
"""Names of options of vLLM's engine, and of keys inside them, whose values are code, say where it is, or name a machine whose
messages, or a folder whose compiled code, the engine loads."""
_LABELS = frozenset({"served_model_name", "splitting_ops", "custom_ops"})
"""Names of options whose values are names that vLLM compares, and never imports or opens."""
_DEVICE = re.compile(r"(cuda|cpu|xpu|hpu|tpu|npu|mps):\d+")


def refused(options: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first option of vLLM's engine that loads code or uses files elsewhere, and why it is refused; None if all may be set.
    Options that nobody knows are judged by their value: numbers and plain words load nothing."""
    if trust.trusts_all():
        return None
    for name, value in options.items():
        if _loads_code(name, value):
            return name, (
                "can make vLLM load code from outside, or trust another machine; if you trust it, pass --trust-code (or set "
                f"{trust.VARIABLE}=1), else remove it"
            )
        for text in _texts({name: value}):
            if _may_be_path(text) and (why := trust.refused_path(os.path.expanduser(text))):
                return name, why
    return None


# -- inside --------------------------------------------------------------------------------------------------------------


def _loads_code(name: str, value: Any) -> bool:
    if value is None or value is False or value in ("", [], {}):
        return False
    if _LOADS.search(name):
        return True
    if isinstance(value, Mapping):
        return any(_loads_code(str(key), inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return any(_loads_code("" if isinstance(inner, Mapping) else name, inner) for inner in value)
    return name not in _LABELS and isinstance(value, str) and _names_code(value)


def _names_code(text: str) -> bool:
    is_object = _DOTTED.fullmatch(text) is not None or ":" in text or text.endswith(".py")
    return is_object and _DEVICE.fullmatch(text) is None


def _may_be_path(text: str) -> bool:
    """Whether a text may be a path to another folder than the working directory, or is there: ORG/NAME is none unless a folder or
    link of that name lies there."""
    if text.startswith((".", "/", "~")) or ".." in text.split("/") or os.path.lexists(text):
        return True
    return os.path.realpath(text) != os.path.normpath(os.path.join(os.path.realpath(os.curdir), text))


def _texts(value: Any) -> Iterator[str]:
    """The texts in a JSON value, but for labels."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner) if name not in _LABELS else ()
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
