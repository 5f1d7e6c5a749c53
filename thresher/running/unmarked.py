"""Warns where the marks of thinking that a recipe names never occur: whatever the model thinks would be judged as its answer."""

import logging
import re
import threading

import pyarrow as pa
import pyarrow.compute as pc

from filters.reasoning import CHANNEL, Marking
from schemas.engines import ModelSpec

log = logging.getLogger(__name__)

ENOUGH = 100
"""Samples after which marks that did not occur are unlikely to."""
SHOWN_CHARS = 160


class Unmarked:
    """Looks for the marks in the first samples of a run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples, self._done = 0, False

    def look(self, rows: pa.Table, spec: ModelSpec, marking: Marking | None) -> None:
        """Look at further samples (schema JOURNAL); log one warning once ENOUGH of them have none of the marks that the recipe
        names. With `auto` and null nothing is expected."""
        if self._done or marking is None or spec.reasoning == "auto":
            return
        with self._lock:
            drawn = rows.filter(pc.is_null(rows["error"]))
            self._samples += drawn.num_rows
            if self._done or not drawn.num_rows:
                return
            if _occurs(drawn, marking):
                self._done = True
            elif self._samples >= ENOUGH:
                self._done = True
                log.warning("%s", _words(drawn, spec, marking, self._samples))


# -- inside --------------------------------------------------------------------------------------------------------------


def _occurs(rows: pa.Table, marking: Marking) -> bool:
    """Whether a mark occurs, or a parser or a server found reasoning."""
    by_others = pc.fill_null(pc.not_equal(rows["parsed_by"], "marks"), False)
    if pc.any(pc.and_(by_others, pc.is_valid(rows["reasoning"]))).as_py():
        return True
    marks = [] if marking.parser else _marks(marking)
    pattern = "|".join(map(re.escape, marks))
    return bool(marks) and bool(pc.any(pc.match_substring_regex(rows["completion"], pattern)).as_py())


def _marks(marking: Marking) -> list[str]:
    return [mark for pair in marking.pairs for mark in pair] + [CHANNEL] * marking.channels


def _words(rows: pa.Table, spec: ModelSpec, marking: Marking, samples: int) -> str:
    name = f"the parser {spec.reasoning} finds no reasoning" if isinstance(spec.reasoning, str) else "the marks do not occur"
    marks = f" ({' '.join(_marks(marking))})" if not marking.parser else ""
    cut = pc.sum(pc.is_null(rows["answer"])).as_py()
    more = "raise sampling.max_tokens if they were cut before the end of the thinking, or " if cut else ""
    example = rows["completion"][0].as_py()[:SHOWN_CHARS]
    return (
        f"model.reasoning: {name}{marks} in the first {samples} samples; {more}give the marks that the model writes, or null "
        f"if it does not think; for example {example!r}"
    )
