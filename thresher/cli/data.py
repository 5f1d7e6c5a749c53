"""Commands on data of your own: filter, dedupe, index."""

import argparse
import os

from thresher.cli.arguments import add_command, add_formats, add_recipe, require_positive
from thresher.cli.output import print_line, print_rows
from thresher.cli.recipes import add_allow_empty, print_result


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this module."""
    command = add_command(commands, "filter", filter_, "Filter your own samples with a recipe's filters; nothing is sampled.")
    add_recipe(command)
    command.add_argument(
        "--samples",
        metavar="PATH",
        action="append",
        required=True,
        help="JSONL, Parquet or Arrow file, a folder of them, or a quoted pattern such as 'own/*.jsonl.gz', with the columns "
        "prompt and completion, or with conversations in the column messages; may be repeated",
    )
    command.add_argument("--out", metavar="DIR", required=True, help="run directory to write")
    add_allow_empty(command)
    _add_dedupe(commands)

    command = add_command(
        commands, "index", index, "Index a released dataset, so that later runs drop what repeats it (dedupe.released)."
    )
    command.add_argument("data", metavar="DATASET", help="dataset directory or Hub id that thresher wrote")
    command.add_argument("--out", metavar="DIR", required=True, help="directory of the index to write")
    command.add_argument(
        "--guard",
        choices=["answer", "numbers", "none"],
        default="answer",
        help="dedupe.guard of the runs that will use the index (default: %(default)s)",
    )
    command.add_argument(
        "--run-characters",
        type=int,
        default=200,
        metavar="N",
        help="dedupe.run_characters of those runs, in characters (default: %(default)s)",
    )
    command.add_argument("--config", metavar="NAME", default="sft", help="config of the dataset (default: %(default)s)")
    command.add_argument("--split", metavar="NAME", default="train", help="split of the dataset (default: %(default)s)")
    add_formats(command)


def _add_dedupe(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(commands, "dedupe", dedupe, "Remove exact and near duplicates from a Parquet, JSONL or Hub dataset.")
    command.add_argument(
        "data",
        metavar="DATA",
        help="Parquet, Arrow or JSONL files (one, a folder, a pattern), dataset directory, or Hub id",
    )
    command.add_argument(
        "--out", metavar="DIR", required=True, help="new directory for kept rows, duplicates and summary.json; must not exist"
    )
    command.add_argument(
        "--text", metavar="COLUMN", help="column of texts or chat messages (default: the first of completion, text, content, ...)"
    )
    command.add_argument(
        "--group",
        metavar="COLUMN",
        help="compare every pair of rows with the same value here, such as a prompt (default: no groups)",
    )
    command.add_argument("--within-groups", action="store_true", help="compare only rows of the same group")
    command.add_argument(
        "--guard",
        metavar="WHAT",
        default="numbers",
        help="what duplicates must agree in: a column, the `numbers` of the text, or `none` (default: %(default)s)",
    )
    command.add_argument(
        "--score", metavar="COLUMN", help="keep the duplicate with the highest number here (default: keep the shortest)"
    )
    command.add_argument(
        "--threshold",
        type=float,
        default=0.7,
        help="smallest Jaccard similarity of word bigrams, from 0 to 1, that makes two rows duplicates (default: %(default)s)",
    )
    command.add_argument(
        "--memory",
        type=float,
        default=4.0,
        metavar="GIB",
        help="memory for signatures, in GiB (default: 4, about eight million short rows); beyond it they go to files beside DIR",
    )
    command.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="threads for those files (default: one per core)"
    )
    command.add_argument("--config", metavar="NAME", help="config of a dataset (default: the dataset's default config)")
    command.add_argument("--split", metavar="NAME", help="split of a dataset (default: train)")
    add_formats(command)


def filter_(options: argparse.Namespace) -> int:
    """Run `thresher filter`."""
    from thresher.inputs import recipe_file
    from thresher.running import steps
    from thresher.running.progress import Progress

    loaded = recipe_file.load(options.recipe, options.overrides)
    begun = steps.begin_brought(loaded, options.samples, options.out, allow_empty=options.allow_empty)
    with Progress() as progress:
        finished = steps.run_steps(begun, progress)
    return print_result(finished, begun.run, allow_empty=options.allow_empty)


def dedupe(options: argparse.Namespace) -> int:
    """Run `thresher dedupe`."""
    from pathlib import Path

    from thresher.auditing.show import table_of
    from thresher.dedupe import table
    from thresher.dedupe.row_signatures import Resources

    require_positive(options, "memory")
    require_positive(options, "workers")
    choice = table.Choice(options.text, options.group, not options.within_groups, options.guard, options.score, options.threshold)
    resources = Resources(int(options.memory * 2**30), options.workers)
    result = table.dedupe(options.data, Path(options.out), choice, resources, config=options.config, split=options.split)
    if options.json or options.csv:
        print_rows(options, table_of(rows=[result.to_dict()]), result.to_dict())
        return 0
    for line in result.lines():
        print_line(line)
    print_line(f"{options.out}/kept, {options.out}/duplicates (each with the row it repeats), {options.out}/summary.json")
    return 0


def index(options: argparse.Namespace) -> int:
    """Run `thresher index`."""
    from pathlib import Path

    from schemas.repeats import DedupeSpec
    from thresher.auditing.show import table_of
    from thresher.dedupe.released import index_dataset

    spec = DedupeSpec(guard=options.guard, run_characters=options.run_characters)
    rows = index_dataset(options.data, Path(options.out), spec, config=options.config, split=options.split).rows
    if options.json or options.csv:
        row = {"index": options.out, "data": options.data, "rows": rows}
        print_rows(options, table_of(rows=[row]), row)
    else:
        print_line(f"{options.out}: {rows:,} released samples; to use it, set dedupe.released.index in a recipe")
    return 0
