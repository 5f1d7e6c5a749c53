"""Commands that read runs: audit, sql."""

import argparse

from thresher.cli.arguments import add_command, add_formats
from thresher.cli.output import print_line, print_note, print_rows, print_table
from thresher.errors import ThresherError
from thresher.terminal import open_console

TYPE_CHECKING = False  # typing itself is not imported: it takes milliseconds of every command
if TYPE_CHECKING:
    from thresher.executors.executor import Map
    from thresher.pool.run import Run


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this module."""
    command = add_command(
        commands, "audit", audit, "Print a run's statistics; fail if counts do not add up or sampling is not what was declared."
    )
    command.add_argument("run", metavar="RUN", nargs="?", help="run directory")
    command.add_argument("--all", metavar="DIR", help="instead of RUN: compare all runs in this directory")
    command.add_argument("--against", metavar="RUN", help="earlier run; test what has changed since then")
    command.add_argument(
        "--review", metavar="N", type=int, help="write N samples to RUN/review.jsonl, and a page to mark them right or wrong"
    )
    command.add_argument(
        "--spread", action="store_true", help="count on the workers of the recipe's executor: local processes, or its Ray cluster"
    )
    command.add_argument(
        "--recount", action="store_true", help="count again, whatever was kept of an earlier audit of the same files"
    )
    add_formats(command, "print JSON, with the statistics of docs/statistics.md")
    command.add_argument(
        "--html",
        metavar="FILE",
        nargs="?",
        const="",
        help="write a report that works offline (default of FILE: RUN/report.html, or DIR/runs.html)",
    )

    command = add_command(commands, "sql", sql, "Query a run in SQL; its tables are prompts, samples, verdicts and stats.")
    command.add_argument("run", metavar="RUN", help="run directory")
    command.add_argument("query", metavar="QUERY", help='SQL, such as "select reason, count(*) from verdicts group by 1"')
    command.add_argument(
        "--unsafe", action="store_true", help="allow statements that write, other files, the network and extensions of DuckDB"
    )
    add_formats(command, "print JSON, one object per row")


def audit(options: argparse.Namespace) -> int:
    """Run `thresher audit`."""
    from thresher.auditing.kept import forget
    from thresher.executors import open_executor
    from thresher.pool.run import open_run

    if (options.run is None) == (options.all is None):
        raise ThresherError("audit: give either the directory of one run, or --all DIR with a directory of runs")
    if options.all is not None:
        return _audit_all(options)
    run = open_run(options.run)
    if options.recount:
        forget(run)
    before = None if options.against is None else open_run(options.against)
    if not options.spread:
        return _audit_one(options, run, before, None)
    with open_executor(run.recipe) as executor:
        return _audit_one(options, run, before, executor.map)


def sql(options: argparse.Namespace) -> int:
    """Run `thresher sql`."""
    from thresher.auditing.query import query
    from thresher.pool.run import open_run

    print_rows(options, query(open_run(options.run), options.query, unsafe=options.unsafe))
    return 0


def _audit_one(options: argparse.Namespace, run: "Run", before: "Run | None", map_shards: "Map | None") -> int:
    """Print and write what was asked for, then fail if the audit did."""
    from thresher.auditing.audit import check
    from thresher.auditing.cache import cached_audit, cached_statistics
    from thresher.auditing.compare import since
    from thresher.auditing.review import lines_of, reviewed
    from thresher.auditing.show import audit_table, print_audit, table_of

    result = cached_audit(run, map_shards)
    comparison = None if before is None else since(run, before)
    drift = [] if comparison is None else [entry.to_dict() for entry in comparison.shares]
    review = reviewed(run)
    if options.json or options.csv:
        figures = cached_statistics(run, map_shards)
        document = result.to_dict() | {
            "statistics": figures.to_dict(),
            "drift": drift,
            "review": review.to_dict() if review else None,
            "against": None if comparison is None else comparison.words,
        }
        print_rows(options, audit_table(result, figures, drift), document)
    else:
        print_audit(result, open_console())
        for line in lines_of(review) if review else []:
            print_line(line)
        if comparison is not None:
            print_table(table_of(drift=drift))
            print_line(comparison.words)
    _write_pages(options, run, before, map_shards)
    check(result, calibration=True)
    return 0


def _write_pages(options: argparse.Namespace, run: "Run", before: "Run | None", map_shards: "Map | None") -> None:
    if options.html is not None:
        from thresher.auditing.pages.report import write_report

        print_note(options, f"report: {write_report(run, options.html or None, before=before, map_shards=map_shards)}")
    if options.review is not None:
        from thresher.auditing.pages.review_page import write_review

        print_note(options, f"to mark: {write_review(run, options.review)}")


def _audit_all(options: argparse.Namespace) -> int:
    """Print, and write if asked for, the runs of a directory side by side."""
    from thresher.auditing.pages.page import write_page
    from thresher.auditing.pages.runs_table import across, page, short_table, table

    for flag in ("against", "review", "spread"):
        if getattr(options, flag):
            raise ThresherError(f"audit: --{flag} works on one run, not with --all; give the directory of a run instead")
    rows = across(options.all)
    print_rows(options, table(rows) if options.json or options.csv else short_table(rows))
    if options.html is not None:
        print_note(options, f"report: {write_page(page(rows), options.html or options.all.rstrip('/') + '/runs.html')}")
    return 0
