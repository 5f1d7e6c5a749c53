"""YAML read the same way in every process.

Other libraries change the loaders of PyYAML for the whole process: lm-format-enforcer 0.11.3, which vLLM requires, makes
`yaml.safe_load` return dates as text once it is imported. The loaders here have constructors of their own.
"""

from typing import Any

import yaml
from yaml.constructor import SafeConstructor

_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class SafeLoader(yaml.SafeLoader):
    """The loader in Python, which is strict with tabs."""


class FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # one of two classes
    """The loader in C, where PyYAML was built with it."""


for _loader in (SafeLoader, FastLoader):
    _loader.add_constructor(_TIMESTAMP, SafeConstructor.construct_yaml_timestamp)  # type: ignore[type-var]  # both derive from it


def load(text: str) -> Any:
    """Return the value of a YAML document. Raises yaml.YAMLError, also for a date that is none or for too many levels."""
    try:
        return yaml.load(text, SafeLoader)  # noqa: S506 - a SafeLoader
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error
