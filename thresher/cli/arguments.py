"""Arguments that several commands share."""

import argparse
from collections.abc import Callable

from thresher.errors import ThresherError


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
    *,
    shows_log: bool = False,
) -> argparse.ArgumentParser:
    """Add a command that calls `function`. `shows_log` leaves the log of Prefect on, as --verbose does."""
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("-v", "--verbose", action="store_true", help="also show the log of the libraries used")
    command.add_argument(
        "--trust-code",
        action="store_true",
        help="let the recipe, run or dataset name code to import and files outside its folder: it is yours, or you have read it",
    )
    command.set_defaults(command=function, shows_log=shows_log)
    return command


def add_recipe(command: argparse.ArgumentParser) -> None:
    """Add RECIPE and --set."""
    command.add_argument("recipe", metavar="RECIPE", help="recipe, a YAML file such as data/recipes/demo.yaml")
    add_overrides(command)


def add_overrides(command: argparse.ArgumentParser) -> None:
    """Add --set."""
    command.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a key of the recipe, such as sampling.max_tokens=64; may be repeated",
    )


def add_formats(command: argparse.ArgumentParser, json_help: str = "print JSON", csv_help: str = "print CSV") -> None:
    """Add --json and --csv, which exclude each other."""
    formats = command.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help=json_help)
    formats.add_argument("--csv", action="store_true", help=csv_help)


def require_at_least(options: argparse.Namespace, name: str, least: int) -> None:
    """Raise ThresherError where the flag `--name` is below `least`."""
    value = getattr(options, name)
    if value < least:
        raise ThresherError(f"--{name.replace('_', '-')}: must be {least} or more, found {value}")


def require_positive(options: argparse.Namespace, name: str) -> None:
    """Raise ThresherError where the flag `--name` is 0 or less."""
    value = getattr(options, name)
    if value <= 0:
        raise ThresherError(f"--{name.replace('_', '-')}: must be above 0, found {value:g}")


def refuse_passwords(options: argparse.Namespace) -> None:
    """Raise ThresherError where an argument is an address with a user name and a password, as s3://KEY:SECRET@bucket/run."""
    from thresher.credentials import advice, has_password

    for name, value in vars(options).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and has_password(text):
                raise ThresherError(f"{name}: {advice(text)}")
