"""The log of a flow run, as far as errors go: an error of thresher says what to do, so it is logged once and without a traceback.

Prefect logs an error where a task raises it, where the flow does, and where the process ends, each time with a traceback.
"""

import logging

from prefect import runtime

from thresher.errors import StoppedError, ThresherError

LOGGERS = ("prefect.task_runs", "prefect.flow_runs", "prefect.engine")


class Once(logging.Filter):
    """Passes the first record of each error of thresher, in its own words. An interrupt is no error, and what is raised to the
    caller of a flow is explained there."""

    def __init__(self) -> None:
        super().__init__()
        self._last: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        message = record.getMessage()
        if error is None:
            if self._last is not None and message.startswith("Finished in state Failed("):
                record.msg, record.args = "Finished in state Failed", ()
                return not isinstance(self._last, StoppedError)
            return True
        if not isinstance(error, ThresherError):
            return True
        known, self._last = error is self._last, error
        if known or isinstance(error, StoppedError) or (not runtime.deployment.id and "Retry" not in message):
            return False
        record.msg, record.args = message.replace(repr(error), str(error)), ()
        record.exc_info = record.exc_text = None
        return True


ONCE = Once()


def explain_once() -> None:
    """Log errors this way from now on."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(ONCE)  # one that is there is not added again
