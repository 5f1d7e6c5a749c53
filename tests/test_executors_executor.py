"""Calls in this process, which every executor without workers makes."""

import operator

import pytest

from thresher.executors.executor import call_here, map_here
from thresher.executors.local import LocalExecutor


def test_calls_here_return_and_raise_what_the_function_does() -> None:
    assert call_here(divmod, 7, 2) == (3, 1)
    assert map_here(operator.add, [(1, 2), (3, 4)]) == [3, 7]
    with pytest.raises(ZeroDivisionError):
        call_here(divmod, 7, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_executor_with_one_worker_maps_in_this_process(workers: int) -> None:
    seen: list[int] = []
    with LocalExecutor(workers) as executor:
        executor.map(seen.append, [(1,), (2,)])

    assert seen == [1, 2]
