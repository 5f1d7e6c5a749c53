"""thresher: verified datasets from temperature-1 samples. The Python interface is loaded at first use (thresher.interface)."""

import importlib
import os

from thresher import _neighbours

__version__ = "0.1.0"
__all__ = [
    "Audit",
    "Recipe",
    "Run",
    "ThresherError",
    "audit",
    "filter_samples",
    "load_recipe",
    "open_run",
    "publish",
    "run",
]

_neighbours.check()

# Libraries that would send usage statistics are told not to, unless the user decided otherwise (docs/telemetry.md). Set here,
# before any of them is imported, so that every process of thresher has it.
for _name, _value in {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'thresher' has no attribute {name!r}")
    interface = importlib.import_module("thresher.interface")  # loads half of thresher, which `thresher --help` does without
    globals().update({each: getattr(interface, each) for each in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
