"""Where the steps run: this machine, or a Ray cluster."""

from schemas.executors import RayExecutorSpec
from schemas.recipe import Recipe
from thresher.executors.executor import Executor
from thresher.executors.local import LocalExecutor
from thresher.executors.ray import RayExecutor


def open_executor(recipe: Recipe) -> Executor:
    """Return the recipe's executor, a context manager. Entering it raises EngineError where there is no cluster."""
    if isinstance(recipe.executor, RayExecutorSpec):
        return RayExecutor(recipe.executor, recipe.run.filter_workers, engine=recipe.engine)
    return LocalExecutor(recipe.run.filter_workers)
