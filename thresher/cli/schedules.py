"""Commands on schedules of a Prefect server: schedule, schedules, serve."""

import argparse

from thresher.cli.arguments import add_command, add_formats, add_overrides, require_at_least
from thresher.cli.output import print_error, print_line, print_rows


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this module."""
    _add_schedule(commands)

    command = add_command(commands, "schedules", schedules, "List the schedules on your Prefect server.")
    add_formats(command, "print JSON, one object per schedule")

    command = add_command(
        commands,
        "serve",
        serve,
        "Run the schedules of this machine in this process until it is stopped; no work pool is needed.",
        shows_log=True,
    )
    command.add_argument(
        "names", metavar="NAME", nargs="*", help="schedules to run (default: all that were made on this machine)"
    )
    command.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="runs at the same time (default: %(default)s, for one engine)"
    )


def _add_schedule(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands, "schedule", schedule, "Schedule a recipe on your Prefect server; or pause, resume or remove a schedule."
    )
    command.add_argument(
        "recipe", metavar="RECIPE|NAME", help="recipe file; with --pause, --resume or --remove the name of a schedule"
    )
    action = command.add_mutually_exclusive_group(required=True)
    action.add_argument("--cron", metavar="CRON", help='cron expression, such as "0 2 * * *" for two o\'clock every night')
    action.add_argument(
        "--interval", metavar="TIME", help="time between runs, such as 30m, 6h or 1d; a bare number is in seconds"
    )
    for name, meaning in (
        ("pause", "start no more runs"),
        ("resume", "start runs again after --pause"),
        ("remove", "delete the schedule; its runs stay"),
    ):
        action.add_argument(f"--{name}", dest="change", action="store_const", const=name, help=meaning)
    command.add_argument("--timezone", metavar="ZONE", help="time zone of the schedule, such as Europe/Berlin (default: UTC)")
    command.add_argument("--name", help="name of the schedule; one that exists is changed (default: the recipe's name)")
    add_overrides(command)
    command.add_argument("--out", metavar="DIR", help="directory or fsspec URL for the run directories (default: data/runs)")
    command.add_argument("--pool", help="Prefect work pool whose workers execute the runs (default: none; thresher serve does)")
    command.add_argument(
        "--env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="environment variable of the jobs on the pool; '{{ prefect.blocks.secret.NAME }}' reads a Secret block of Prefect; "
        "may be repeated",
    )


def schedule(options: argparse.Namespace) -> int:
    """Run `thresher schedule`."""
    from flows import schedules as server

    if options.change:
        server.change(options.recipe, options.change)
        print_line(f"{options.recipe}: {options.change}d")
        return 0
    row = server.schedule(
        options.recipe,
        cron=options.cron,
        interval=options.interval,
        timezone=options.timezone,
        overrides=options.overrides,
        name=options.name,
        out=options.out,
        pool=options.pool,
        env=options.env,
    )
    for line in server.lines_of(row):
        print_line(line)
    if not row["next"] and not row["paused"]:
        print_error(
            f"the Prefect server has not planned a run of {row['name']} yet, and starts none before it has; see the log of the "
            "server. Prefect 3.7 does not work with SQLAlchemy 2.1: where the server runs, run pip install 'sqlalchemy<2.1', and "
            "restart it"
        )
    return 0


def schedules(options: argparse.Namespace) -> int:
    """Run `thresher schedules`."""
    from flows import schedules as server
    from thresher.auditing.show import table_of

    rows = server.schedules()
    if options.json or options.csv:
        print_rows(options, table_of(rows=rows))
    elif rows:
        print_rows(options, table_of(rows=server.short_rows(rows)))
    else:
        print_line("no schedules; make one: thresher schedule RECIPE --cron ...")
    return 0


def serve(options: argparse.Namespace) -> int:
    """Run `thresher serve`."""
    from flows import serving

    require_at_least(options, "at_once", 1)
    number = serving.serve(options.names, at_once=options.at_once, say=print_line)
    print_error(serving.STOPPED)
    return 128 + number
