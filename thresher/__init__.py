"""thresher: verified datasets from temperature-1 samples. The Python interface is loaded at first use (thresher.interface)."""

import importlib
import os

from thresher import _neighbours

__version__ = "0.2.0"

_HOMES = {
    "Audit": "thresher.auditing.audit",
    "Recipe": "schemas.recipe",
    "Run": "thresher.pool.run",
    "ThresherError": "thresher.errors",
    "audit": "thresher.interface",
    "filter_samples": "thresher.interface",
    "load_recipe": "thresher.interface",
    "open_run": "thresher.pool.run",
    "publish": "thresher.interface",
    "run": "thresher.interface",
}
"""The names of the Python interface, and the modules that they are loaded from at first use: `thresher --help` does without."""
__all__ = list(_HOMES)

_neighbours.check()

# Libraries that would send usage statistics are told not to, unless the user decided otherwise (docs/telemetry.md). Set here,
# before any of them is imported, so that every process of thresher has it.
for _name, _value in {
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}.items():
    os.environ.setdefault(_name, _value)

# A proxy is for other machines: what runs on this one (engines, Prefect's server) is asked directly. Libraries differ in which of
# the two spellings they read.
if any(os.environ.get(_name) or os.environ.get(_name.upper()) for _name in ("http_proxy", "https_proxy", "all_proxy")):
    _hosts = {_name: os.environ.get(_name, "").split(",") for _name in ("no_proxy", "NO_PROXY")}
    for _name, _value in _hosts.items():
        _own = [_host.strip() for _host in (_value if any(_value) else _hosts["NO_PROXY" if _name.islower() else "no_proxy"])]
        os.environ[_name] = ",".join(dict.fromkeys([*filter(None, _own), "localhost", "127.0.0.1", "::1"]))


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'thresher' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
