"""Parse the command line, run one command, and turn its errors into messages and exit codes.

Imports of this package are part of `thresher --help`: each module imports only what its parser needs, and each command imports
its libraries when it runs.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from thresher import __version__
from thresher.cli import audits, clusters, data, recipes, repositories, schedules, schema
from thresher.cli.arguments import refuse_passwords
from thresher.cli.output import print_error
from thresher.errors import ThresherError
from thresher.terminal import visible

TYPE_CHECKING = False  # typing itself is not imported: it takes milliseconds of every command
if TYPE_CHECKING:
    from typing import Any, NoReturn

TRUST_CODE = "THRESHER_TRUST_CODE"
"""As filters.trust names it, which would take long to import."""
INTERRUPTED = "interrupted; finished work is kept, and the same command resumes it"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 is success, 1 an error that is explained on standard error, 130 an interrupt (Ctrl-C), 143 SIGTERM. argparse exits with 2 on
    a wrong command line.
    """
    options = parser().parse_args(arguments)
    trusted = os.environ.get(TRUST_CODE)
    if options.trust_code:
        os.environ[TRUST_CODE] = "1"  # processes that are started inherit it
    _set_up_logging(verbose=options.verbose)
    _set_up_libraries(quiet=not (options.verbose or options.shows_log))
    interrupts = Interrupts()
    interrupts.catch()
    try:
        refuse_passwords(options)
        exit_code: int = options.command(options)
        return exit_code
    except ThresherError as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt:
        print_error(INTERRUPTED)
        return interrupts.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports the pipe again as it exits
        return 0
    finally:
        interrupts.at_once()
        if arguments is not None:  # this process has other work to do
            interrupts.release()
            _restore(TRUST_CODE, trusted)


class Interrupts:
    """What Ctrl-C and SIGTERM do to a command: the first raises KeyboardInterrupt, so that engines and processes are ended in
    order; a second one ends this process at once, which loses no finished work either."""

    def __init__(self) -> None:
        self._first = 0
        self._done = False
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 and the number of the first signal."""
        return 128 + (self._first or 2)

    def catch(self) -> None:
        """Handle the signals from now on; in another thread than the main one Python does not allow it."""
        import signal
        import threading

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and background jobs of a shell set it
                    self._before[number] = signal.signal(number, self._handle)

    def at_once(self) -> None:
        """From now on the first signal ends this process: the command is done."""
        self._done = True

    def release(self) -> None:
        """Leave the signals to those who handled them before."""
        import signal

        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: object) -> None:
        if self._first or self._done:
            if not self._done:
                os.write(2, f"thresher: {INTERRUPTED}\n".encode())
            os._exit(128 + number)
        self._first = number
        raise KeyboardInterrupt


class Parser(argparse.ArgumentParser):
    """A parser that repeats arguments in its errors so that they cannot act on the terminal."""

    def error(self, message: str) -> "NoReturn":
        super().error(visible(message))


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    program = Parser(prog="thresher", description="Turn a model's samples into verified datasets.")
    program.add_argument("--version", action="version", version=f"thresher {__version__}")
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    for group in (recipes, data, audits, repositories, schedules, clusters, schema):
        group.add(commands)
    return program


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value


def _set_up_logging(*, verbose: bool) -> None:
    import logging

    from thresher.credentials import hidden

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return visible(hidden(super().format(record)))

    class Record(logging.LogRecord):
        def getMessage(self) -> str:  # noqa: N802 - its name in logging
            return visible(hidden(super().getMessage()))

    logging.setLogRecordFactory(Record)  # libraries have handlers of their own

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING)
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(Formatter("%(levelname)s: %(message)s"))


def _set_up_libraries(*, quiet: bool) -> None:
    """Configure libraries by their environment variables, which they read when they are imported."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    # What an interrupted engine leaves in shared memory is cleaned up by a process of Python, which would report that as a leak.
    others = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join([*([others] if others else []), "ignore:resource_tracker:UserWarning"])
    if quiet:  # thresher shows progress itself
        warnings.filterwarnings("ignore", module="prefect")  # without its home, say, a run goes on, and says so
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
