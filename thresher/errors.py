"""The errors that thresher raises. A message says where, what was wanted, what was found and what to do.

ThresherError
├── RecipeError     a recipe that does not fit its schema or contradicts itself
├── SourceError     prompts or samples that cannot be read
├── ModelError      a model that cannot be found or loaded
├── EngineError     an engine that did not start, or died
│   ├── DeadlyError     work that kills engines; repeating it would kill more
│   └── StoppedError    an engine or a filter process that was told to stop
├── StoreError      a run directory that cannot be read or written, or that belongs to another run
│   └── HeldError       a run directory that another process writes
├── AuditError      counts that do not add up
├── PublishError    a release that the Hub or a gate refused
└── ScheduleError   a Prefect server that does not answer, or an unknown schedule

FilterError is in filters.base, because filters do not depend on thresher.
"""


class ThresherError(Exception):
    """Base class; the command line prints the message without a traceback."""


class RecipeError(ThresherError):
    """The recipe does not fit its schema or contradicts itself."""


class SourceError(ThresherError):
    """Prompts or samples cannot be read."""


class ModelError(ThresherError):
    """The model cannot be found or loaded."""


class EngineError(ThresherError):
    """An engine did not start, or died."""


class DeadlyError(EngineError):
    """The work killed engines; repeating it would kill more."""


class StoppedError(EngineError):
    """The engine or the filter process was told to stop, by an interrupt."""


class StoreError(ThresherError):
    """The run directory cannot be read or written, or belongs to another run."""


class HeldError(StoreError):
    """Another process writes the run directory."""


class AuditError(ThresherError):
    """Counts do not add up."""


class PublishError(ThresherError):
    """The Hub or a gate refused the release."""


class ScheduleError(ThresherError):
    """The Prefect server does not answer, or does not know the schedule."""
