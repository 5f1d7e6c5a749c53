"""Commands on dataset repositories: publish, releases, rollback, revoke, compact."""

import argparse

from thresher.cli.arguments import add_command, add_formats, require_positive
from thresher.cli.output import print_json, print_line, print_rows

TYPE_CHECKING = False  # typing itself is not imported: it takes milliseconds of every command
if TYPE_CHECKING:
    from thresher.releases.change import Changed
    from thresher.releases.publish import Published

REPO = "dataset repository: ORG/NAME on the Hub, a directory, or a URL such as s3://bucket/sums"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this module."""
    _add_publish(commands)

    command = add_command(commands, "releases", releases, "List the releases of a dataset repository.")
    command.add_argument("repo", metavar="REPO", help=REPO)
    add_formats(command)

    command = add_command(
        commands, "rollback", rollback, "Restore a dataset repository to a release, in one commit and without moving data."
    )
    command.add_argument("repo", metavar="REPO", help=REPO)
    command.add_argument("--to", metavar="TAG", required=True, help="version to restore, such as v2026.11.23.1")

    command = add_command(
        commands, "revoke", revoke, "Revoke samples: list them in the config `revoked`, until compact removes their rows."
    )
    command.add_argument("repo", metavar="REPO", help=REPO)
    command.add_argument("samples", metavar="SAMPLE_ID", nargs="*", help="sample_id to revoke; the repository must hold it")
    command.add_argument("--file", metavar="FILE", help="file with one sample_id per line, in addition")
    command.add_argument("--reason", metavar="TEXT", required=True, help="reason, for the card and the config")
    command.add_argument("--json", action="store_true", help="print JSON")

    command = add_command(
        commands, "compact", compact, "Merge small shards into large ones and remove revoked rows, in one commit."
    )
    command.add_argument("repo", metavar="REPO", help=REPO)
    command.add_argument(
        "--file-mb", type=float, default=256, metavar="MB", help="size of the merged shards, in MiB (default: %(default)s)"
    )
    command.add_argument(
        "--scratch", metavar="DIR", help="directory with room for a few shards (default: the system's temporary directory)"
    )
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_publish(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands, "publish", publish, "Append a run's dataset to a dataset repository, in one commit with a version tag."
    )
    command.add_argument("run", metavar="RUN", help="run directory")
    command.add_argument("--repo", metavar="REPO", help=f"{REPO}; created if missing (default: publish.repo of the recipe)")
    command.add_argument("--views", metavar="NAME,...", help="configs to publish (default: publish.views, else all)")
    command.add_argument("--private", action="store_true", help="make the repository private if it is created")
    command.add_argument(
        "--gated", choices=["auto", "manual"], help="require readers to ask for access, granted automatically or by hand"
    )
    command.add_argument(
        "--versions",
        choices=["date", "semantic"],
        help="version scheme, v2026.11.23.1 or v1.4.0 (default: that of the last release, else date)",
    )
    command.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing to main")
    command.add_argument(
        "--gate",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="override a gate, such as pass_rate_drop=0.5; may be repeated",
    )
    command.add_argument("--force", metavar="REASON", help="publish although a gate refuses, and note the reason on the card")
    command.add_argument("--json", action="store_true", help="print JSON")


def publish(options: argparse.Namespace) -> int:
    """Run `thresher publish`."""
    from thresher.pool.run import open_run
    from thresher.releases.publish import publish as publish_run
    from thresher.releases.publish import publish_spec

    names = ("repo", "private", "gated", "versions", "create_pr")
    changes = {name: value for name in names if (value := getattr(options, name))}
    if options.views:
        changes["views"] = [name.strip() for name in options.views.split(",")]
    run = open_run(options.run)
    spec = publish_spec(run, changes, options.gate)
    return _print_commit(publish_run(run, spec, force=options.force), as_json=options.json)


def releases(options: argparse.Namespace) -> int:
    """Run `thresher releases`."""
    from thresher.auditing.show import table_of
    from thresher.releases import repository

    manifest = repository.releases(options.repo)
    if options.json or options.csv:
        print_rows(options, table_of(rows=repository.rows_of(manifest)), manifest.model_dump(mode="json"))
        return 0
    for line in repository.lines_of(manifest):
        print_line(line)
    if not manifest.releases:
        print_line(f"{options.repo}: no releases")
    return 0


def rollback(options: argparse.Namespace) -> int:
    """Run `thresher rollback`."""
    from thresher.releases import change

    return _print_commit(change.rollback(options.repo, options.to), as_json=False)


def revoke(options: argparse.Namespace) -> int:
    """Run `thresher revoke`."""
    from thresher.releases import change

    samples = [*options.samples, *(change.read_sample_ids(options.file) if options.file else [])]
    return _print_commit(change.revoke(options.repo, samples, options.reason), as_json=options.json)


def compact(options: argparse.Namespace) -> int:
    """Run `thresher compact`."""
    from thresher.releases.compact import compact as compact_shards

    require_positive(options, "file_mb")
    result = compact_shards(options.repo, file_bytes=int(options.file_mb * 2**20), folder=options.scratch)
    return _print_commit(result, as_json=options.json)


def _print_commit(result: "Changed | Published", *, as_json: bool) -> int:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(result))
    else:
        print_line(result.words)
    return 0
