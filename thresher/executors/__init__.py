"""Where the steps run: this machine, or a Ray cluster."""

from schemas.executors import RayExecutorSpec
from schemas.recipe import Recipe
from thresher.executors.executor import Executor
from thresher.executors.local import LocalExecutor


def open_executor(recipe: Recipe) -> Executor:
    """The recipe's executor, to be entered. Raises EngineError, on entry, where there is no cluster."""
    if isinstance(recipe.executor, RayExecutorSpec):
        from thresher.executors.ray import RayExecutor

        return RayExecutor(recipe.executor, recipe.run.filter_workers, engine=recipe.engine)
    return LocalExecutor(recipe.run.filter_workers)
