"""Parse the command line, run one command, and turn its errors into messages and exit codes.

Imports of this package are part of `thresher --help`: each module imports only what its parser needs, and each command imports
its libraries when it runs.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from thresher import __version__
from thresher.cli import audits, clusters, data, recipes, repositories, schedules, schema
from thresher.cli.output import print_error
from thresher.errors import ThresherError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 is success, 1 an error that is explained on standard error, 130 an interrupt. argparse exits with 2 on a wrong command line.
    """
    options = parser().parse_args(arguments)
    _set_up_logging(verbose=options.verbose)
    _set_up_libraries(quiet=not (options.verbose or options.shows_log))
    try:
        exit_code: int = options.command(options)
        return exit_code
    except ThresherError as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt:
        print_error("interrupted; finished work is kept, and the same command resumes it")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports the pipe again as it exits
        return 0


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    program = argparse.ArgumentParser(prog="thresher", description="Turn a model's samples into verified datasets.")
    program.add_argument("--version", action="version", version=f"thresher {__version__}")
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    for group in (recipes, data, audits, repositories, schedules, clusters, schema):
        group.add(commands)
    return program


def _set_up_logging(*, verbose: bool) -> None:
    import logging

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO if verbose else logging.WARNING)


def _set_up_libraries(*, quiet: bool) -> None:
    """Configure libraries by their environment variables, which they read when they are imported."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    if quiet:  # thresher shows progress itself
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
