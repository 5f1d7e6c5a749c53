"""The command line: `thresher COMMAND`, or `python -m thresher.cli COMMAND`. One module per group of commands."""

from thresher.cli.command_line import main, parser

__all__ = ["main", "parser"]
