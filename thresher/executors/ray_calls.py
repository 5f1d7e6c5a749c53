"""Calls on a Ray cluster, with the errors that Ray wraps around them translated back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from filters import trust
from thresher.errors import EngineError

P = ParamSpec("P")
T = TypeVar("T")

TASK_RETRIES = 3
"""Times that a filter task is repeated elsewhere after its machine was lost."""


class LostError(Exception):
    """The process or the machine of an actor is gone."""


@contextmanager
def translated(ray: Any, name: str) -> Iterator[None]:
    """Raise a function's own error as it was raised on the cluster, LostError where an actor is gone, EngineError for any other
    error of Ray. `name` is that of the call."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else EngineError(f"{name} failed on the cluster: {error}")) from None
    except (ray.exceptions.RayActorError, ray.exceptions.ActorUnavailableError) as error:
        raise LostError(str(error).strip().splitlines()[0]) from error
    except ray.exceptions.RayError as error:
        raise EngineError(f"{name}: Ray could not do it: {str(error).strip().splitlines()[0]}") from error


def called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], consent: trust.Consent) -> Any:
    """Call a function: the body of every task. `consent`: what the caller allows recipes to name."""
    trust.inherit(consent)
    return function(*args, **kwargs)


def filter_task(ray: Any) -> Any:
    """The remote form of `called`, on a CPU of the cluster."""
    return ray.remote(called).options(num_cpus=1, max_retries=TASK_RETRIES)


def call_from_actor(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """RayExecutor.call, from inside an actor."""
    import ray

    with translated(ray, function.__name__):
        result: T = ray.get(filter_task(ray).remote(function, args, kwargs, trust.consent()))
        return result


def address_here() -> str:
    """Return this machine's address in the cluster."""
    import ray

    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address
