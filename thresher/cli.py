"""The command line: thresher run | check | estimate | filter | audit | publish | releases | rollback | dedupe | index |
schedule | schedules | serve | fleet | schema."""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thresher import __version__
from thresher.errors import ScheduleError, ThresherError

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from thresher.audit.count_run import Audit, Gather
    from thresher.inputs.recipe_file import Loaded
    from thresher.pool.store import Store
    from thresher.releases.change import Changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a fault that is explained, 130 for an interrupt."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO if options.verbose else logging.WARNING)
    _quiet(options.verbose or options.command is serve)
    try:
        status: int = options.command(options)
        return status
    except ThresherError as error:
        print(f"thresher: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("thresher: interrupted; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="thresher", description="Verified datasets from temperature-1 samples.")
    parser.add_argument("--version", action="version", version=f"thresher {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("-v", "--verbose", action="store_true", help="also show what the libraries log")
        made.set_defaults(command=function)
        return made

    def recipe(made: argparse.ArgumentParser) -> None:
        made.add_argument("recipe", metavar="RECIPE", help="YAML file, such as data/recipes/demo.yaml")
        made.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="change the recipe")

    def tabular(made: argparse.ArgumentParser, what: str = "print JSON") -> None:
        either = made.add_mutually_exclusive_group()
        either.add_argument("--json", action="store_true", help=what)
        either.add_argument("--csv", action="store_true", help="print CSV")

    made = command("run", run, "Sample a recipe, filter, and write the dataset; goes on where an earlier run stopped.")
    recipe(made)
    made.add_argument("--out", metavar="RUN", help="run directory or fsspec URL (default: data/runs/NAME)")
    made.add_argument("--salt", help="draw other samples than the recipe's salt does")
    made.add_argument("--no-prefect", action="store_true", help="run the same steps without Prefect's flow")

    made = command("check", check, "Validate a recipe without sampling: prompts, filters, references.")
    recipe(made)
    tabular(made)

    made = command("estimate", estimate, "Draw a small probe and say what the whole run will bring and cost.")
    recipe(made)
    made.add_argument("--prompts", type=int, default=16, help="prompts to probe, spread over the plan (default: 16)")
    made.add_argument("--samples", type=int, default=8, help="samples of each (default: 8)")
    tabular(made)

    made = command("filter", filter_, "Filter your own samples by a recipe's filters; no engine is used.")
    recipe(made)
    made.add_argument("--samples", metavar="FILE", required=True, help="JSONL or Parquet with prompt and completion")
    made.add_argument("--out", metavar="DIR", required=True, help="run directory")

    made = command(
        "audit", audit, "Print a run's filter statistics; fails when counts do not add up or the sampler is not what it claims."
    )
    made.add_argument("run", metavar="RUN", nargs="?", help="run directory")
    made.add_argument("--all", metavar="DIR", help="instead of a run: every run in this directory, side by side")
    made.add_argument("--against", metavar="RUN", help="an earlier run to compare with: what drifted, by a test")
    made.add_argument(
        "--review", metavar="N", type=int, help="write N samples to RUN/review.jsonl, and a page on which a person marks them"
    )
    made.add_argument(
        "--spread", action="store_true", help="count on the workers of the recipe's executor: processes, or its Ray cluster"
    )
    tabular(made, "print JSON, with the statistics of docs/statistics.md")
    made.add_argument(
        "--html", metavar="FILE", nargs="?", const="", help="write a report that needs no network (RUN/report.html)"
    )

    made = command(
        "dedupe", dedupe, "Remove duplicates from any Parquet, JSONL or Hub dataset: word for word, and by similarity."
    )
    made.add_argument("data", metavar="DATA", help="Parquet file or folder, JSONL file, dataset directory, or Hub id")
    made.add_argument("--out", metavar="DIR", required=True, help="new folder: kept, duplicates, summary.json")
    made.add_argument("--text", metavar="COLUMN", help="texts or chat messages (default: completion, text, content, ...)")
    made.add_argument("--group", metavar="COLUMN", help="compare all pairs of rows that are equal here, such as a prompt")
    made.add_argument("--within-groups", action="store_true", help="do not compare rows of different groups")
    made.add_argument(
        "--guard",
        metavar="WHAT",
        default="numbers",
        help="duplicates agree in this column, in their `numbers` (default), or `none`",
    )
    made.add_argument("--score", metavar="COLUMN", help="of duplicates the one with the highest stays (default: the shortest)")
    made.add_argument("--threshold", type=float, default=0.7, help="least Jaccard similarity of word bigrams (default: 0.7)")
    made.add_argument(
        "--memory",
        type=float,
        default=4.0,
        metavar="GIB",
        help="signatures held in memory (default: 4, enough for about eight million short rows); more go to files beside DIR",
    )
    made.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="threads that work on those files (default: one per core)"
    )
    made.add_argument("--config", metavar="NAME", help="config of a dataset")
    made.add_argument("--split", metavar="NAME", help="split of a dataset (default: train)")
    tabular(made)

    where = "ORG/NAME of the Hub, a directory, or an URL such as s3://bucket/sums"
    made = command("publish", publish, "Append a run's dataset to a dataset repository, in one commit, and tag it.")
    made.add_argument("run", metavar="RUN", help="run directory")
    made.add_argument("--repo", metavar="REPO", help=f"{where} (default: publish.repo of the recipe); made if it is not there")
    made.add_argument("--views", metavar="NAME,...", help="configs to publish (default: all of the dataset)")
    made.add_argument("--private", action="store_true", help="make it private, if it is made now")
    made.add_argument("--gated", choices=["auto", "manual"], help="readers ask for access first, granted by itself or by hand")
    made.add_argument("--versions", choices=["date", "semantic"], help="v2026.11.23.1 or v1.4.0 (default: as it began; date)")
    made.add_argument("--create-pr", action="store_true", help="open a pull request instead of writing to main")
    made.add_argument("--gate", metavar="NAME=VALUE", action="append", default=[], help="change a gate: pass_rate_drop=0.5, ...")
    made.add_argument("--force", metavar="REASON", help="publish what the gates refuse, and say so on the card")
    made.add_argument("--json", action="store_true", help="print JSON")

    made = command("releases", releases, "List what a dataset repository holds, release by release.")
    made.add_argument("repo", metavar="REPO", help=where)
    tabular(made)

    made = command(
        "rollback", rollback, "Make a dataset repository hold what it held at a release; one commit, no data is moved."
    )
    made.add_argument("repo", metavar="REPO", help=where)
    made.add_argument("--to", metavar="TAG", required=True, help="version, such as v2026.11.23.1")

    made = command("compact", compact, "Merge small shards into few large ones, without what was revoked; one commit switches.")
    made.add_argument("repo", metavar="REPO", help=where)
    made.add_argument("--file-mb", type=float, default=256, metavar="MB", help="size of the merged shards (default: 256)")
    made.add_argument("--scratch", metavar="DIR", help="folder with room for a few shards (default: the system's)")
    made.add_argument("--json", action="store_true", help="print JSON")

    made = command("revoke", revoke, "Take samples back: the config `revoked` names them, until compact writes the rest anew.")
    made.add_argument("repo", metavar="REPO", help=where)
    made.add_argument(
        "samples", metavar="SAMPLE_ID", nargs="*", help="sample_id of what is taken back; ids are noted, not looked up"
    )
    made.add_argument("--file", metavar="FILE", help="file with one sample_id a line")
    made.add_argument("--reason", metavar="WHY", required=True, help="for the card and the config")
    made.add_argument("--json", action="store_true", help="print JSON")

    made = command("index", index, "Index what a dataset released, so that later runs do not repeat it (dedupe.released).")
    made.add_argument("data", metavar="DATASET", help="dataset directory or Hub id that thresher wrote")
    made.add_argument("--out", metavar="DIR", required=True, help="folder of the index")
    made.add_argument(
        "--guard",
        choices=["answer", "numbers", "none"],
        default="answer",
        help="dedupe.guard of the runs that will ask (default: answer)",
    )
    made.add_argument("--run-characters", type=int, default=200, metavar="N", help="their dedupe.run_characters (default: 200)")
    made.add_argument("--config", metavar="NAME", default="sft", help="config of the dataset (default: sft)")
    made.add_argument("--split", metavar="NAME", default="train", help="split of the dataset (default: train)")
    tabular(made)

    made = command("study", study, "Measure what temperature, and small changes of the prompts, do to a recipe's answers.")
    recipe(made)
    made.add_argument("--out", metavar="DIR", help="directory of the study (default: data/runs/NAME-study); goes on there")
    made.add_argument(
        "--temperatures",
        metavar="T,...",
        default="0,0.1,0.2,0.4,0.6,0.8,1.0,1.2,1.5",
        help="such as 0,0.1,...,1.5 (default: %(default)s); 1 must be among them, and 0 is the greedy answer",
    )
    made.add_argument("--samples", type=int, default=16, help="draws of each prompt and temperature (default: 16)")
    made.add_argument(
        "--wording",
        metavar="TEXT",
        action="append",
        default=[],
        help="put round user turns instead of the usual ones: 'Please: {}'",
    )
    made.add_argument(
        "--train",
        action="store_true",
        help="also fine-tune on one and on many answers, and on near misses (needs thresher[train])",
    )
    made.add_argument("--steps", type=int, default=60, help="steps of each training (default: 60)")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("--csv", action="store_true", help="print all tables as CSV")

    made = command("scale", scale, "Give a run that is under way on a Ray cluster another number of engines.")
    made.add_argument("run", metavar="RUN", help="run directory")
    made.add_argument("replicas", metavar="N", type=int, help="engines; they begin and end within seconds of it")

    made = command("fleet", fleet, "Keep servers of a recipe's model on a Ray cluster, for engine.fleet, until interrupted.")
    recipe(made)
    made.add_argument("--file", metavar="FILE", required=True, help="file for their addresses; the servers' users read it")

    made = command("sql", sql, "Ask a run in SQL: tables prompts, samples, verdicts, stats.")
    made.add_argument("run", metavar="RUN", help="run directory")
    made.add_argument("query", metavar="QUERY", help='such as "select reason, count(*) from verdicts group by 1"')
    tabular(made, "print JSON, an object per row")

    made = command(
        "schedule", schedule, "Run a recipe at set times, through your Prefect server; or pause, resume or remove a schedule."
    )
    made.add_argument("recipe", metavar="RECIPE|NAME", help="YAML file; with --pause, --resume or --remove a schedule's name")
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--cron", metavar="CRON", help='when, such as "0 2 * * *": every night at two')
    what.add_argument("--interval", metavar="TIME", help="how often, such as 30m, 6h or 1d; a number alone is of seconds")
    for word, does in (("pause", "begin no more runs"), ("resume", "go on"), ("remove", "forget the schedule; its runs stay")):
        what.add_argument(f"--{word}", dest="change", action="store_const", const=word, help=does)
    made.add_argument("--timezone", metavar="ZONE", help="of the schedule, such as Europe/Berlin (default: UTC)")
    made.add_argument("--name", help="of the schedule (default: the recipe's); one that is there is changed")
    made.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="change the recipe")
    made.add_argument("--out", metavar="DIR", help="folder or fsspec URL that the runs' directories go to (default: data/runs)")
    made.add_argument("--pool", help="Prefect work pool whose workers run it (default: thresher serve does)")
    made.add_argument(
        "--env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="variable of its jobs on the pool; '{{ prefect.blocks.secret.NAME }}' is what Prefect's Secret block holds",
    )

    made = command("schedules", schedules, "List the schedules on your Prefect server.")
    made.add_argument("--json", action="store_true", help="print JSON, an object per schedule")
    made.add_argument("--csv", action="store_true", help="print CSV")

    made = command("serve", serve, "Run schedules on this machine, in this process, until it is stopped; needs no work pool.")
    made.add_argument("names", metavar="NAME", nargs="*", help="schedules (default: all that were made on this machine)")
    made.add_argument("--at-once", type=int, default=1, metavar="N", help="runs side by side (default: 1, for one engine)")

    made = command("schema", schema, "Print the JSON Schema of recipes, or of one filter's parameters.")
    made.add_argument("filter", metavar="FILTER", nargs="?", help="a registered filter")
    made.add_argument("--write", action="store_true", help="write the schemas that are committed")
    made.add_argument("--check", action="store_true", help="fail when a committed schema is stale")
    return parser


def run(options: argparse.Namespace) -> int:
    """thresher run"""
    from thresher.inputs import recipe_file
    from thresher.run import steps
    from thresher.run.progress import Progress

    console = _console()
    loaded = recipe_file.load(options.recipe, options.overrides)
    begun = steps.begin(loaded, options.out, salt=options.salt)
    if finished := steps.finished(begun):
        console.print(f"already finished: nothing left to sample, filter or write in {begun.root}")
        return _show(console, *finished)
    if options.no_prefect:
        with Progress() as progress:
            return _show(console, *steps.run(begun, progress))
    from flows.pipeline import run_here

    try:
        run_here(options.recipe, options.overrides, begun.root, options.salt)
    except ScheduleError as error:
        finished = steps.finished(steps.begin(loaded, options.out, salt=options.salt))
        if finished is None:
            raise
        print(f"thresher: {error}; the run itself is finished", file=sys.stderr)
        return _show(console, *finished)
    return _show(console, *steps.result(begun.root))


def check(options: argparse.Namespace) -> int:
    """thresher check"""
    from dataclasses import asdict

    from thresher.audit.show import table_of
    from thresher.inputs import recipe_file
    from thresher.judging import check as checks

    console = _console()
    loaded = recipe_file.load(options.recipe, options.overrides)
    report = checks.check_recipe(loaded)
    for fault in report.faults:
        print(f"thresher: {loaded.path}: {fault}", file=sys.stderr)
    if options.json or options.csv:
        found = asdict(report)
        families = [{"name": family, "prompts": count} for family, count in report.families.items()]
        trials = [{"name": one["label"]} | {k: v for k, v in one.items() if k != "label"} for one in found["trials"]]
        self_tests = [{"name": label, "said": said} for label, said in report.self_tests.items()]
        _print(options, table_of(families=families, trials=trials, self_tests=self_tests), found)
        return 1 if report.faults else 0
    for family, prompts in report.families.items():
        console.print(f"{family}: {prompts} prompts", highlight=False)
    for trial in report.trials:
        console.print(
            f"{trial.label}: {trial.gold_kept} of {trial.prompts} references accepted, "
            f"{trial.wrong_dropped} of {trial.wrong_tried} wrong answers refused",
            highlight=False,
        )
    for label, said in report.self_tests.items():
        console.print(f"{label}: {said}", highlight=False, markup=False)
    if not report.faults:
        console.print(f"{loaded.path}: fit to run")
    return 1 if report.faults else 0


def estimate(options: argparse.Namespace) -> int:
    """thresher estimate"""
    from dataclasses import asdict

    from thresher.audit.show import table_of
    from thresher.inputs import recipe_file
    from thresher.run import estimate as estimates

    if options.prompts < 2 or options.samples < 1:
        raise ThresherError("--prompts wants 2 or more and --samples 1 or more: from less nothing can be told of a whole run")
    loaded = recipe_file.load(options.recipe, options.overrides)
    found = estimates.estimate(loaded, prompts=options.prompts, samples=options.samples)
    rows = {
        "samples": (found.samples, ",.0f"),
        "tokens": (found.tokens, ",.0f"),
        "seconds of sampling": (found.seconds, ",.0f"),
        "pass rate": (found.pass_rate, ".3f"),
        "hits, at most": (found.hits, ",.0f"),
        "hits per 1,000 tokens": (found.hits_per_1000_tokens, ".2f"),
    }
    if options.json or options.csv:
        _print(options, table_of(rows=[{"of": name} | asdict(one) for name, (one, _) in rows.items()]), found.to_dict())
        return 0
    console = _console()
    console.print(
        f"probe: {found.probe_samples} samples of {found.probe_prompts} prompts in {found.probe_s:.1f} s, "
        f"{found.tokens_per_s:,.0f} tokens/s, after {found.start_s:.1f} s for the engine to start",
        highlight=False,
    )
    console.print(f"the whole run, {found.prompts} prompts (95 % interval over prompts):", highlight=False)
    for name, (one, how) in rows.items():
        console.print(f"  {name:22} {one.value:{how}} [{one.low:{how}}, {one.high:{how}}]", highlight=False, markup=False)
    return 0


def filter_(options: argparse.Namespace) -> int:
    """thresher filter"""
    from thresher.inputs import recipe_file
    from thresher.run import steps
    from thresher.run.progress import Progress

    console = _console()
    loaded: Loaded = recipe_file.load(options.recipe, options.overrides)
    begun = steps.begin_brought(loaded, Path(options.samples), options.out)
    with Progress() as progress:
        return _show(console, *steps.run(begun, progress))


def audit(options: argparse.Namespace) -> int:
    """thresher audit"""
    from schemas.recipe import Recipe
    from thresher.audit.count_run import here
    from thresher.audit.older_runs import opened
    from thresher.executors import open_executor
    from thresher.pool.store import Store

    if (options.run is None) == (options.all is None):
        raise ThresherError("audit: wanted the directory of a run, or --all DIR with a directory of runs")
    if options.all is not None:
        for name in ("against", "review", "spread"):
            if getattr(options, name):
                raise ThresherError(f"audit: --{name} is for one run, and --all for many; give the directory of a run instead")
        return _across(options)
    store = Store(options.run)
    before = None if options.against is None else Store(options.against)
    for one in (store, before):
        if one is not None:
            opened(one)
    if not options.spread:
        return _audited(options, store, before, here)
    with open_executor(Recipe.model_validate(opened(store).recipe)) as executor:
        return _audited(options, store, before, executor.gather)


def _audited(options: argparse.Namespace, store: "Store", before: "Store | None", gather: "Gather") -> int:
    from thresher.audit.compare import since
    from thresher.audit.count_run import audit as audited
    from thresher.audit.count_run import check as checked
    from thresher.audit.review import lines_of, reviewed
    from thresher.audit.show import audit_table, print_audit, table_of
    from thresher.audit.statistics import statistics

    result = audited(store, gather)
    compared = None if before is None else since(store, before)
    drifts = [] if compared is None else [one.to_dict() for one in compared.found]
    marks = reviewed(store)
    if options.json or options.csv:
        said = statistics(store, gather)
        more: dict[str, Any] = {"statistics": said.to_dict(), "drift": drifts, "review": marks.to_dict() if marks else None}
        more |= {"against": None if compared is None else compared.words}
        _print(options, audit_table(result, said, drifts), result.to_dict() | more)
    else:
        print_audit(result, _console())
        if marks:
            _console().print(*lines_of(marks), highlight=False, markup=False)
        if compared is not None:
            _print(options, table_of(drift=drifts))
            _console().print(compared.words, highlight=False, markup=False)
    if options.html is not None:
        from thresher.audit.report import write_report

        place = write_report(store, options.html or None, before=before, gather=gather)
        print(f"report: {place}", file=sys.stderr if options.json or options.csv else sys.stdout)
    if options.review is not None:
        from thresher.audit.review import write_review

        print(f"to mark: {write_review(store, options.review)}", file=sys.stderr if options.json or options.csv else sys.stdout)
    checked(result, calibration=True)
    return 0


def _across(options: argparse.Namespace) -> int:
    from thresher.audit.page import write_page
    from thresher.audit.runs_table import across, page, short_table, table

    rows = across(options.all)
    _print(options, table(rows) if options.json or options.csv else short_table(rows))
    if options.html is not None:
        place = write_page(page(rows), options.html or f"{options.all.rstrip('/')}/runs.html")
        print(f"report: {place}", file=sys.stderr if options.json or options.csv else sys.stdout)
    return 0


def dedupe(options: argparse.Namespace) -> int:
    """thresher dedupe"""
    from thresher.audit.show import number, share, table_of
    from thresher.dedupe import table as tool
    from thresher.errors import SourceError

    choice = tool.Choice(options.text, options.group, not options.within_groups, options.guard, options.score, options.threshold)
    for name in ("memory", "workers"):
        if getattr(options, name) <= 0:
            raise SourceError(f"--{name}: wanted a number above 0, found {getattr(options, name)}")
    means = tool.Means(int(options.memory * 2**30), options.workers)
    found = tool.dedupe(options.data, Path(options.out), choice, means, config=options.config, split=options.split)
    if options.json or options.csv:
        _print(options, table_of(rows=[found.to_dict()]), found.to_dict())
        return 0
    console = _console()
    drops = f"{number(found.exact)} exact and {number(found.near)} near duplicates dropped"
    largest = ", ".join(number(size) for size in found.largest)
    steps = ", ".join(f"{seconds:.1f} s {step}" for step, seconds in found.seconds.items())
    lines = [
        f"{number(found.rows)} rows: {number(found.kept)} kept ({share(found.kept, found.rows)}), {drops}",
        f"largest clusters: {largest}; as different as {number(round(found.effective))} texts that come equally often",
        steps,
        f"{options.out}/kept, {options.out}/duplicates (each with the row it repeats), {options.out}/summary.json",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def publish(options: argparse.Namespace) -> int:
    """thresher publish"""
    from dataclasses import asdict

    from thresher.releases.publish import publish as published
    from thresher.releases.publish import publish_spec
    from thresher.releases.repository import counted

    names = ("repo", "private", "gated", "versions", "create_pr")
    changes = {name: value for name in names if (value := getattr(options, name))}
    if options.views:
        changes["views"] = [name.strip() for name in options.views.split(",")]
    made = published(options.run, publish_spec(options.run, changes, options.gate), force=options.force)
    if options.json:
        print(json.dumps(asdict(made), indent=1))
        return 0
    if made.commit is None:
        print(f"{made.repo}: {made.version} is there already ({counted(made.rows)}); nothing to do")
    else:
        print(f"{made.repo}: {made.request or made.version} ({counted(made.rows)}), commit {made.commit[:12]}")
    return 0


def releases(options: argparse.Namespace) -> int:
    """thresher releases"""
    from thresher.audit.show import table_of
    from thresher.releases.repository import counted
    from thresher.releases.repository import releases as there

    found = there(options.repo)
    if options.json or options.csv:
        every = [
            (one, into) for last in found.releases for one, into in (*((m, last.version) for m in last.merged), (last, None))
        ]
        rows = [
            {"version": one.version, "name": one.name, "at": one.at, "merged_into": into, "forced": bool(one.forced)}
            | {f"rows_{view}": count for view, count in one.rows.items()}
            for one, into in every
        ]
        _print(options, table_of(rows=rows), found.model_dump(mode="json"))
        return 0
    for one in found.releases:
        for merged in one.merged:
            print(f"{merged.version}  {merged.name}: {counted(merged.rows)} (merged into {one.version})")
        print(f"{one.version}  {'merged' if one.merged else one.name}: {counted(one.rows)}{' (forced)' if one.forced else ''}")
    if found.revoked:
        print(f"{sum(shard.rows for shard in found.revoked)} samples are revoked")
    if not found.releases:
        print(f"{options.repo}: no releases")
    return 0


def rollback(options: argparse.Namespace) -> int:
    """thresher rollback"""
    from thresher.releases.change import rollback as back

    return _changed(back(options.repo, options.to), as_json=False)


def compact(options: argparse.Namespace) -> int:
    """thresher compact"""
    from thresher.releases.change import compact as compacted

    if options.file_mb <= 0:
        raise ThresherError(f"--file-mb: wanted a size above 0, found {options.file_mb:g}")
    made = compacted(options.repo, file_bytes=int(options.file_mb * 2**20), folder=options.scratch)
    return _changed(made, as_json=options.json)


def revoke(options: argparse.Namespace) -> int:
    """thresher revoke"""
    from thresher.releases.change import revoke as revoked

    samples = list(options.samples)
    if options.file:
        try:
            samples += Path(options.file).read_text("utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ThresherError(f"{options.file}: cannot be read: {error}; wanted a file with one sample_id a line") from error
    return _changed(revoked(options.repo, samples, options.reason), as_json=options.json)


def _changed(made: "Changed", *, as_json: bool) -> int:
    from dataclasses import asdict

    if as_json:
        print(json.dumps(asdict(made), indent=1))
    else:
        print(f"{made.repo}: {made.version + ': ' if made.version else ''}{made.said}")
    return 0


def index(options: argparse.Namespace) -> int:
    """thresher index"""
    from schemas.recipe import DedupeSpec
    from thresher.audit.show import number, table_of
    from thresher.dedupe.released import index_dataset

    spec = DedupeSpec(guard=options.guard, run_characters=options.run_characters)
    made = index_dataset(options.data, Path(options.out), spec, config=options.config, split=options.split)
    if options.json or options.csv:
        row = {"index": options.out, "data": options.data, "rows": made.rows}
        _print(options, table_of(rows=[row]), row)
        return 0
    print(f"{options.out}: {number(made.rows)} released samples; name it in a recipe: dedupe.released.index")
    return 0


def study(options: argparse.Namespace) -> int:
    """thresher study"""
    from thresher.audit.show import print_table
    from thresher.inputs import recipe_file
    from thresher.study.draw_runs import Design, temperatures_of
    from thresher.study.study_page import lines_of, short_table, training_table, whole_table
    from thresher.study.prompt_variants import checked_wordings
    from thresher.study.run_study import run_study

    if options.steps < 1:
        raise ThresherError(f"--steps: wanted 1 or more, found {options.steps}")
    design = Design(temperatures_of(options.temperatures), options.samples, checked_wordings(options.wording))
    loaded = recipe_file.load(options.recipe, options.overrides)
    out = options.out or f"data/runs/{loaded.recipe.name}-study"
    done = run_study(loaded, out, design, train_steps=options.steps if options.train else None)
    if options.json:
        print(json.dumps(done.to_dict(), indent=1))
        return 0
    console = _console()
    if options.csv:
        print_table(whole_table(done.study, done.training), console, as_csv=True)
        return 0
    print_table(short_table(done.study), console)
    lines = lines_of(done.study)
    if done.training:
        print_table(training_table(done.training), console)
        lines.append(done.training.says)
    settings = " ".join(f"--set {key}={value}" for key, value in done.study.recommended.items()) or "nothing"
    for line in [*lines, f"recommended: {settings}", f"  {done.study.reason}", f"report: {done.page}"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def scale(options: argparse.Namespace) -> int:
    """thresher scale"""
    from thresher.pool.store import Store
    from thresher.run import steps

    if options.replicas < 1:
        raise ThresherError(f"scale: wanted 1 engine or more, found {options.replicas}; to stop a run, interrupt it")
    steps.scale(Store(options.run), options.replicas)
    print(f"{options.run}: {options.replicas} engines are wanted; the run looks every five seconds")
    return 0


def fleet(options: argparse.Namespace) -> int:
    """thresher fleet"""
    from thresher.executors import fleet as there
    from thresher.inputs import recipe_file

    loaded: Loaded = recipe_file.load(options.recipe, options.overrides)
    try:
        with there.begin(loaded.recipe, loaded.base, Path(options.file)) as servers:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # after Ray, which takes it for itself
            servers.keep(partial(print, flush=True))
    except KeyboardInterrupt:
        print("thresher: the fleet is ended", file=sys.stderr)
    return 0


def sql(options: argparse.Namespace) -> int:
    """thresher sql"""
    from thresher.audit.query import query
    from thresher.pool.store import Store

    _print(options, query(Store(options.run), options.query))
    return 0


def schedule(options: argparse.Namespace) -> int:
    """thresher schedule"""
    from flows import schedules as there

    if options.change:
        there.change(options.recipe, options.change)
        print(f"{options.recipe}: {options.change}d")
        return 0
    made = there.schedule(
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
    start = f"prefect worker start --pool {made['pool']}" if made["pool"] else f"thresher serve {made['name']}"
    print(f"{made['name']}: {made['schedule']}{', paused' if made['paused'] else ''}; its runs go to {made['out']}")
    if made["next"]:
        print(f"the next begins at {made['next']}, where this runs: {start}")
    elif not made["paused"]:
        print(
            f"thresher: the Prefect server has planned no run of {made['name']} yet, and begins none before it does. Its log "
            "says why; Prefect 3.7 cannot with SQLAlchemy 2.1: pip install 'sqlalchemy<2.1' where the server runs, and start it "
            "again",
            file=sys.stderr,
        )
    return 0


def schedules(options: argparse.Namespace) -> int:
    """thresher schedules"""
    import pyarrow as pa

    from flows import schedules as there
    from thresher.audit.show import print_table

    found = there.schedules()
    if not found and not options.json and not options.csv:
        print("no schedules; make one: thresher schedule RECIPE --cron ...")
        return 0
    short = [
        {
            "name": one["name"],
            "schedule": one["schedule"],
            "next (UTC)": "paused" if one["paused"] else _minutes(one["next"]),
            "last (UTC)": _minutes(one["last"]),
            "ended": one["last_state"],
        }
        for one in found
    ]
    rows = pa.Table.from_pylist(found if options.json or options.csv else short)
    print_table(rows, _console(), as_json=options.json, as_csv=options.csv)
    return 0


def _minutes(time: str | None) -> str | None:
    return None if time is None else time[:16].replace("T", " ")


def serve(options: argparse.Namespace) -> int:
    """thresher serve"""
    from flows import serving

    if options.at_once < 1:
        raise ThresherError(f"--at-once: wanted 1 or more, found {options.at_once}")
    serving.serve(options.names, at_once=options.at_once)
    return 0


def schema(options: argparse.Namespace) -> int:
    """thresher schema"""
    import filters
    from filters.base import FilterError
    from thresher.dataset import schema_files
    from thresher.inputs import recipe_file

    if options.write or options.check:
        stale = schema_files.write() if options.write else schema_files.stale()
        for path in stale:
            print(f"wrote {path}" if options.write else f"thresher: {path} is stale; run `make schemas`", file=sys.stderr)
        return 1 if stale and options.check else 0
    try:
        found = filters.parameters_schema(options.filter) if options.filter else recipe_file.recipe_schema()
    except FilterError as error:
        raise ThresherError(str(error)) from error
    print(json.dumps(found, indent=1))
    return 0


def _show(console: "Console", result: "Audit", dataset: str) -> int:
    from thresher.audit.show import print_audit

    print_audit(result, console)
    view = "sft" if result.to_dict()["outcomes"]["keep"] else "rollouts"  # datasets loads no config without rows
    console.print(f"dataset: {dataset}", highlight=False, soft_wrap=True)
    console.print(
        f"""read it: python -c "from datasets import load_dataset; print(load_dataset('{dataset}', '{view}'))\"""",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


def _print(options: argparse.Namespace, table: "pa.Table", whole: Mapping[str, Any] | None = None) -> None:
    """Print rows as asked: for people, --csv, or --json, which may show the `whole` that they are taken from."""
    from thresher.audit.show import print_table

    print_table(table, _console(), as_json=options.json, as_csv=options.csv, whole=whole)


def _console() -> "Console":
    from rich.console import Console

    return Console(emoji=False)


def _quiet(verbose: bool) -> None:
    """Leave the terminal to thresher: Prefect's console log repeats what is shown anyway. Set before Prefect is imported."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    if not verbose:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


if __name__ == "__main__":
    sys.exit(main())
