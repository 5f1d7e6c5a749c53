"""thresher: verified datasets from temperature-1 samples."""

from thresher import _neighbours

__version__ = "0.1.0"

_neighbours.check()
