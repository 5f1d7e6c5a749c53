"""Where the steps run: this machine, or a Ray cluster."""

from schemas.engines import VllmEngine
from schemas.executors import RayExecutorSpec
from schemas.recipe import Recipe
from thresher.executors.executor import Executor
from thresher.executors.local import LocalExecutor
from thresher.executors.ray import RayExecutor


def open_executor(recipe: Recipe) -> Executor:
    """Return the recipe's executor, a context manager. Entering it raises EngineError where there is no cluster."""
    if isinstance(recipe.executor, RayExecutorSpec):
        engines = [one.engine for one in recipe.of_each_model()]
        largest = max(engines, key=lambda engine: engine.devices if isinstance(engine, VllmEngine) else 0)
        return RayExecutor(recipe.executor, recipe.run.filter_workers, engine=largest)
    return LocalExecutor(recipe.run.filter_workers)
