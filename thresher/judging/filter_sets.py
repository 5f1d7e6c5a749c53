"""A bounded cache of built filters: a filter process judges every wave of every prompt with the filters of its run."""

import atexit
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filters.base import Scope
from filters.tools import Tools
from thresher.judging.build import Built, build_filters, tools_of
from thresher.judging.model_engines import ModelEngines
from thresher.pool.run import Run

MOST = 4
"""Filter sets kept. Each may hold worker processes, and an index of a benchmark in memory."""


@dataclass
class FilterSet:
    """The built filters of one recipe over samples and prompts, and their own tools.

    `users` counts the threads that judge with the set at the moment.
    """

    local: list[Built]
    tools: Tools
    users: int = 0
    evicted: bool = False


class FilterSets:
    """Built filter sets by recipe, base and origin, the most recently used ones. Thread-safe.

    Each set has worker processes of its own, in the number its recipe asks for. They end when the set is evicted and no thread
    uses it any more, and with `close`. The open models are shared by all sets.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.models = ModelEngines()
        self._lock = threading.Lock()
        self._sets: OrderedDict[tuple[str, str, bool], FilterSet] = OrderedDict()

    @contextmanager
    def use(self, run: Run) -> Iterator[FilterSet]:
        """Yield the filters of a run. Their processes are not ended inside the context."""
        with self._lock:
            key = (run.recipe.model_dump_json(), str(run.base), run.sampled)
            if key not in self._sets:
                self._sets[key] = self._built(run)
            filter_set = self._sets[key]
            self._sets.move_to_end(key)
            filter_set.users += 1
            unused = self._evict(self.most)
        for old in unused:
            old.tools.close()
        try:
            yield filter_set
        finally:
            with self._lock:
                filter_set.users -= 1
                unused = [filter_set] if filter_set.evicted and not filter_set.users else []
            for old in unused:
                old.tools.close()

    def close(self) -> None:
        """Drop every set, end the processes of those that no thread uses, and close the models."""
        with self._lock:
            unused = self._evict(0)
        for old in unused:
            old.tools.close()
        self.models.close()

    def _evict(self, most: int) -> list[FilterSet]:
        """Drop the least recently used sets. Returns those that no thread uses: their tools are to be closed."""
        evicted = [self._sets.popitem(last=False)[1] for _ in range(len(self._sets) - most)]
        for old in evicted:
            old.evicted = True
        return [old for old in evicted if not old.users]

    def _built(self, run: Run) -> FilterSet:
        tools = tools_of(run.recipe, run.base, self.models, run.home)
        built = build_filters(run.recipe, tools, imported=not run.sampled)
        return FilterSet([item for item in built if item.filter.scope is not Scope.CORPUS], tools)


of_this_process = FilterSets()
atexit.register(of_this_process.close)
