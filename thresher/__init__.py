"""thresher: verified datasets from temperature-1 samples. The Python interface is loaded at first use (thresher.interface)."""

from thresher import _neighbours

__version__ = "0.1.0"
__all__ = [  # noqa: F822 - __getattr__ loads them
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


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'thresher' has no attribute {name!r}")
    from thresher import interface

    return getattr(interface, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
