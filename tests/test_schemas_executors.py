"""The parts of a recipe about the run and where it is executed."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.executors import ExecutorSpec, LocalExecutorSpec, RayExecutorSpec, RunSpec

EXECUTOR: TypeAdapter[Any] = TypeAdapter(ExecutorSpec)


def test_the_kind_selects_the_executor() -> None:
    """A cluster has one replica unless the recipe asks for more."""
    assert EXECUTOR.validate_python({"kind": "local"}) == LocalExecutorSpec()
    ray = EXECUTOR.validate_python({"kind": "ray"})

    assert isinstance(ray, RayExecutorSpec)
    assert (ray.address, ray.replicas, ray.gpus_per_replica) == ("auto", 1, None)


@pytest.mark.parametrize(
    "values", [{"kind": "slurm"}, {"kind": "local", "replicas": 2}, {"kind": "ray", "replicas": 0}, {"address": None}]
)
def test_other_executors_and_keys_are_refused(values: dict[str, Any]) -> None:
    """Each kind has its own keys."""
    with pytest.raises(ValidationError):
        EXECUTOR.validate_python(values)


@pytest.mark.parametrize("values", [{"shard_samples": 0}, {"filter_workers": -1}, {"dedupe_gib": 0}, {"filter_order": "random"}])
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    """A shard has at least one sample, and a search needs memory."""
    with pytest.raises(ValidationError):
        RunSpec(**values)
