"""Commands on Ray clusters: fleet, scale."""

import argparse

from thresher.cli.arguments import add_command, add_recipe
from thresher.cli.output import print_error, print_line
from thresher.errors import ThresherError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this module."""
    command = add_command(
        commands, "fleet", fleet, "Run vLLM servers of a recipe's model on a Ray cluster, for engine.fleet, until interrupted."
    )
    add_recipe(command)
    command.add_argument(
        "--file", metavar="FILE", required=True, help="file for the servers' addresses, one per line, which clients read"
    )

    command = add_command(commands, "scale", scale, "Change the number of engines of a run in progress on a Ray cluster.")
    command.add_argument("run", metavar="RUN", help="run directory")
    command.add_argument("replicas", metavar="N", type=int, help="number of engines; they start or stop within seconds")


def fleet(options: argparse.Namespace) -> int:
    """Run `thresher fleet`."""
    import signal
    from pathlib import Path

    from thresher.executors import fleet as fleets
    from thresher.inputs import recipe_file

    loaded = recipe_file.load(options.recipe, options.overrides)
    try:
        with fleets.start_fleet(loaded.recipe, loaded.base, Path(options.file)) as servers:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # after Ray, which sets a handler of its own
            servers.keep(print_line)
    except KeyboardInterrupt:
        print_error("the fleet has stopped")
    return 0


def scale(options: argparse.Namespace) -> int:
    """Run `thresher scale`."""
    from thresher.pool.run import open_run
    from thresher.running import replicas

    if options.replicas < 1:
        raise ThresherError(f"scale: N must be 1 or more, found {options.replicas}; to stop a run, interrupt it")
    replicas.scale(open_run(options.run), options.replicas)
    print_line(f"{options.run}: {options.replicas} engines requested; the run looks for requests every five seconds")
    return 0
