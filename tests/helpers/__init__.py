"""Modules that tests share: a run written by hand, servers on 127.0.0.1, and programs that tests start."""

from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FOLDER = Path(__file__).parent
"""Where the programs lie: `hub_client.py`, `hub_contract.py` and `train_two_steps.py` are started by path."""


def known(value: T | None) -> T:
    """Return the value, which must not be None."""
    assert value is not None
    return value
