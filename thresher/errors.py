"""The errors thresher raises; every message says where, what was wanted, what was found and what to do.

ThresherError
├── RecipeError     a recipe that does not fit its schema, or contradicts itself
├── SourceError     prompts or samples that cannot be read
├── ModelError      a model that cannot be found or loaded
├── EngineError     an engine that would not start, or died
│   └── DeadlyError     work under which engines die: tried again it would kill more
├── StoreError      a run directory that cannot be read or written, or that holds another run
├── AuditError      counts that do not add up
├── PublishError    a release that the Hub, or a gate, refused
└── ScheduleError   a Prefect server that is not there, or a schedule that it does not know
FilterError stands in filters.base: filters know nothing of thresher.
"""


class ThresherError(Exception):
    """Base of thresher's own errors: the command line prints the message and no traceback."""


class RecipeError(ThresherError):
    """A recipe that does not fit its schema, or contradicts itself."""


class SourceError(ThresherError):
    """Prompts or samples that cannot be read."""


class ModelError(ThresherError):
    """A model that cannot be found or loaded."""


class EngineError(ThresherError):
    """An engine that would not start, or died."""


class DeadlyError(EngineError):
    """Work under which engines die: tried again it would kill more."""


class StoreError(ThresherError):
    """A run directory that cannot be read or written, or that holds another run."""


class AuditError(ThresherError):
    """Counts that do not add up."""


class PublishError(ThresherError):
    """A release that the Hub, or a gate, refused."""


class ScheduleError(ThresherError):
    """A Prefect server that is not there, or a schedule that it does not know."""
