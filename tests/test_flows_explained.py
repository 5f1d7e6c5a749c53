"""What the log of a flow run says about an error."""

import logging

import pytest
from prefect import runtime

from flows.explained import Once
from thresher.errors import EngineError, PublishError, StoppedError

REFUSED = "not released; --force REASON releases it all the same:\n  25.0% of the samples are undecided, more than 0.0%"
pytestmark = pytest.mark.slow


@pytest.fixture
def log() -> tuple[logging.Logger, list[str]]:
    """A logger with the filter, and what it passes, tracebacks included."""
    said: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(self.format(record))

    logger = logging.Logger("flow")  # noqa: LOG001 - one that no other test sees
    logger.addFilter(Once())
    logger.addHandler(Kept())
    return logger, said


def raised(logger: logging.Logger, error: Exception, message: str = "Task run failed with exception: %r") -> None:
    try:
        raise error
    except Exception as caught:
        logger.error(message, caught, exc_info=True)  # noqa: G201 - as Prefect does


def test_the_reasons_of_a_gate_are_logged_once(log: tuple[logging.Logger, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """As Prefect logs them: by the task, by the flow, at the end of the process, and in the name of each state."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-schedule")
    logger, said = log
    error = PublishError(REFUSED)
    raised(logger, error)
    logger.error("Finished in state Failed(%r)", f"Task run encountered an exception: {error}")
    raised(logger, error, "Encountered exception during execution: %r")
    raised(logger, error, "Execution of flow run exited with unexpected exception %r")

    assert runtime.deployment.id == "a-schedule"
    assert said == [f"Task run failed with exception: {REFUSED}", "Finished in state Failed"]


def test_what_is_raised_to_the_caller_is_not_logged_and_an_interrupt_is_no_error(log: tuple[logging.Logger, list[str]]) -> None:
    logger, said = log
    raised(logger, PublishError(REFUSED))
    raised(logger, StoppedError("the engine was stopped"))
    logger.error("Finished in state Failed(%r)", "StoppedError")
    raised(
        logger, EngineError("the engine died"), "Task run failed with exception: %r - Retry 1/2 will start 2 second(s) from now"
    )

    assert said == ["Task run failed with exception: the engine died - Retry 1/2 will start 2 second(s) from now"]


def test_other_errors_keep_their_traceback(log: tuple[logging.Logger, list[str]]) -> None:
    logger, said = log
    raised(logger, ZeroDivisionError("a fault"))

    assert "Traceback" in said[0]
