"""Commands on a recipe: run, check, preview, estimate, study."""

import argparse

from thresher.cli.arguments import add_command, add_formats, add_recipe, require_at_least
from thresher.cli.output import print_csv, print_error, print_json, print_line, print_rows, print_table
from thresher.errors import ScheduleError
from thresher.terminal import open_console, visible

TYPE_CHECKING = False  # typing itself is not imported: it takes milliseconds of every command
if TYPE_CHECKING:
    from collections.abc import Callable

    from thresher.pool.run import Run
    from thresher.running.steps import Finished


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this module."""
    command = add_command(
        commands, "run", run, "Sample a recipe, filter the samples and write the dataset; an interrupted run is resumed."
    )
    add_recipe(command)
    command.add_argument(
        "--out", metavar="RUN", help="run directory or fsspec URL (default: data/runs/NAME, by the recipe's name)"
    )
    command.add_argument("--salt", help="text; each salt draws different samples (default: run.salt of the recipe)")
    command.add_argument("--no-prefect", action="store_true", help="run the same steps without Prefect")
    add_allow_empty(command)

    command = add_command(
        commands, "check", check, "Check a recipe without sampling: its prompts as the model reads them, its filters, its models."
    )
    add_recipe(command)
    add_formats(command)

    command = add_command(
        commands, "preview", preview, "Draw a few samples of each family, and print them taken apart and judged; nothing is kept."
    )
    add_recipe(command)
    command.add_argument(
        "-n",
        "--samples",
        type=int,
        default=3,
        metavar="N",
        help="samples of the first prompt of each family (default: %(default)s)",
    )
    command.add_argument("--family", metavar="FAMILY", help="only this family (default: all)")
    add_formats(command)

    command = add_command(commands, "estimate", estimate, "Sample a small probe and estimate yield and cost of the whole run.")
    add_recipe(command)
    command.add_argument(
        "--prompts",
        type=int,
        default=16,
        metavar="N",
        help="number of prompts in the probe, spread evenly (default: %(default)s)",
    )
    command.add_argument("--samples", type=int, default=8, metavar="N", help="samples per prompt (default: %(default)s)")
    add_formats(command)
    _add_study(commands)


def _add_study(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands, "study", study, "Measure how temperature and small changes of the prompts affect a recipe's answers."
    )
    add_recipe(command)
    command.add_argument(
        "--out", metavar="DIR", help="local directory of the study, resumed if it exists (default: data/runs/NAME-study)"
    )
    command.add_argument(
        "--temperatures",
        metavar="T,...",
        default="0,0.1,0.2,0.4,0.6,0.8,1.0,1.2,1.5",
        help="temperatures, as a list or as 0,0.1,...,1.5; must include 1, and 0 is greedy decoding (default: %(default)s)",
    )
    command.add_argument(
        "--samples", type=int, default=16, metavar="N", help="samples per prompt and temperature (default: %(default)s)"
    )
    command.add_argument(
        "--wording",
        metavar="TEXT",
        action="append",
        default=[],
        help="rewording of the user's turns, with {} for the turn, as in 'Please: {}'; may be repeated (default: three wordings)",
    )
    command.add_argument(
        "--train",
        action="store_true",
        help="also fine-tune on one answer, on many answers and on near misses, and compare (needs thresher[train])",
    )
    command.add_argument(
        "--steps", type=int, default=60, metavar="N", help="optimizer steps of each fine-tuning (default: %(default)s)"
    )
    add_formats(command, csv_help="print all tables as CSV")


def run(options: argparse.Namespace) -> int:
    """Run `thresher run`."""
    from thresher.auditing.cache import cached_audit
    from thresher.inputs import recipe_file
    from thresher.running import steps
    from thresher.running.progress import Progress

    loaded = recipe_file.load(options.recipe, options.overrides)
    begun = steps.begin(loaded, options.out, salt=options.salt)
    if finished := steps.finished(begun):
        print_line(f"already finished: {begun.root} has nothing left to sample, filter or write")
        return print_result(finished, begun.run, allow_empty=options.allow_empty)
    run_here = None if options.no_prefect else _run_under_prefect()
    if run_here is None:
        with Progress() as progress:
            finished = steps.run_steps(begun, progress)
        return print_result(finished, begun.run, allow_empty=options.allow_empty)
    try:
        run_here(options.recipe, options.overrides, begun.root, options.salt, print_error)
    except ScheduleError as error:
        finished = steps.finished(steps.begin(loaded, options.out, salt=options.salt))
        if finished is None:
            raise
        print_error(f"{error}; the run itself is finished")
        return print_result(finished, begun.run, allow_empty=options.allow_empty)
    finished = steps.Finished(cached_audit(begun.run), f"{begun.root}/dataset")
    return print_result(finished, begun.run, allow_empty=options.allow_empty)


def _run_under_prefect() -> "Callable[..., None] | None":
    """Import the flows; None, and a line that says why, where Prefect refuses its own settings."""
    try:
        from flows.pipeline import run_here
    except Exception as error:  # noqa: BLE001 - of a file or a variable that any library may read
        reason = " ".join(str(error).split())[:300]
        print_error(f"going on without Prefect: it cannot be imported: {reason}; see PREFECT_HOME and the PREFECT_ variables")
        return None
    return run_here


def check(options: argparse.Namespace) -> int:
    """Run `thresher check`."""
    from dataclasses import asdict

    from thresher.auditing.show import table_of
    from thresher.inputs import recipe_file
    from thresher.judging.check import check_recipe

    loaded = recipe_file.load(options.recipe, options.overrides)
    report = check_recipe(loaded)
    if options.json or options.csv:
        print_rows(options, table_of(**report.tables()), asdict(report))
    else:
        for line in report.lines():
            print_line(line)
        if not report.faults:
            print_line(f"{loaded.path}: ready to run")
    for fault in report.faults:
        print_error(f"{loaded.path}: {fault}")
    return 1 if report.faults else 0


def preview(options: argparse.Namespace) -> int:
    """Run `thresher preview`."""
    from thresher.auditing.show import table_of
    from thresher.inputs import recipe_file
    from thresher.running.preview import preview as draw

    require_at_least(options, "samples", 1)
    previewed = draw(recipe_file.load(options.recipe, options.overrides), samples=options.samples, family=options.family)
    if options.json or options.csv:
        print_rows(options, table_of(rows=previewed.rows()), previewed.to_dict())
    else:
        console = open_console()
        for line in previewed.lines():
            style = "dim" if line.is_reasoning else None
            console.print(visible(line.text), style=style, markup=False, highlight=False, soft_wrap=True)
    return 1 if previewed.failed else 0


def estimate(options: argparse.Namespace) -> int:
    """Run `thresher estimate`."""
    from thresher.auditing.show import table_of
    from thresher.inputs import recipe_file
    from thresher.running import estimate as estimates

    require_at_least(options, "prompts", 2)
    require_at_least(options, "samples", 1)
    loaded = recipe_file.load(options.recipe, options.overrides)
    each = estimates.estimate_each(loaded, prompts=options.prompts, samples=options.samples)
    if options.json or options.csv:
        rows = [{**({"model": model} if model else {}), **row} for model, result in each.items() for row in result.rows()]
        document = each[""].to_dict() if "" in each else {model: result.to_dict() for model, result in each.items()}
        print_rows(options, table_of(rows=rows), document)
    else:
        for model, result in each.items():
            for line in [*([model] if model else []), *result.lines()]:
                print_line(line)
        if len(each) > 1:
            print_line(estimates.in_total(each))
    return 0


def study(options: argparse.Namespace) -> int:
    """Run `thresher study`."""
    from thresher.inputs import recipe_file
    from thresher.study.design import Design, temperatures_of
    from thresher.study.prompt_variants import checked_wordings
    from thresher.study.run_study import run_study
    from thresher.study.study_tables import short_table, training_table, whole_table

    require_at_least(options, "steps", 1)
    design = Design(temperatures_of(options.temperatures), options.samples, checked_wordings(options.wording))
    loaded = recipe_file.load(options.recipe, options.overrides)
    out = options.out or f"data/runs/{loaded.recipe.name}-study"
    result = run_study(loaded, out, design, train_steps=options.steps if options.train else None)
    if options.json:
        print_json(result.to_dict())
    elif options.csv:
        print_csv(whole_table(result.study, result.training))
    else:
        print_table(short_table(result.study))
        if result.training:
            print_table(training_table(result.training))
        for line in result.lines():
            print_line(line)
    return 0


def print_result(finished: "Finished", run: "Run", *, allow_empty: bool) -> int:
    """Print the audit of a finished run and how to read its dataset; return the exit code: 1 where the run is not to be relied on
    (no hits, a view without rows, an alarm), unless that is allowed. The last line says why."""
    from thresher.auditing.show import print_audit
    from thresher.running.shortfalls import notes, shortfalls, views_of

    dataset, audit = finished.dataset, finished.audit
    print_audit(audit, open_console())
    view = next(iter(views_of(run)), "sft")
    for note in notes(run, audit):
        print_line(note)
    print_line(f"dataset: {dataset}")
    print_line(f"""read it: python -c "from datasets import load_dataset; print(load_dataset('{dataset}', '{view}'))\"""")
    if not (faults := shortfalls(run, audit)):
        return 0
    allowed = " (allowed by --allow-empty)" if allow_empty else "; --allow-empty exits with 0 all the same"
    print_error("; ".join(faults) + allowed)
    return 0 if allow_empty else 1


def add_allow_empty(command: argparse.ArgumentParser) -> None:
    """Add the flag that `run` and `filter` share."""
    command.add_argument(
        "--allow-empty",
        action="store_true",
        help="exit with 0 also if there are no hits, a view has no rows, or an alarm is raised",
    )
