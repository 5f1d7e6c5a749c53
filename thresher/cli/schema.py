"""The command schema: JSON Schemas of recipes and filters."""

import argparse

from thresher.cli.arguments import add_command
from thresher.cli.output import print_error, print_json
from thresher.errors import ThresherError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command of this module."""
    command = add_command(commands, "schema", schema, "Print the JSON Schema of recipes, or of the parameters of one filter.")
    command.add_argument("filter", metavar="FILTER", nargs="?", help="name of a built-in filter (default: the schema of recipes)")
    command.add_argument("--write", action="store_true", help="write the generated schemas under schemas/")
    command.add_argument("--check", action="store_true", help="fail if a generated schema under schemas/ is stale")


def schema(options: argparse.Namespace) -> int:
    """Run `thresher schema`."""
    import filters
    from filters.base import FilterError
    from thresher.dataset import schema_files
    from thresher.inputs import recipe_file

    if options.write or options.check:
        stale = schema_files.write() if options.write else schema_files.stale()
        for path in stale:
            print_error(f"wrote {path}" if options.write else f"{path} is stale; run `make schemas`")
        return 1 if stale and options.check else 0
    try:
        document = filters.parameters_schema(options.filter) if options.filter else recipe_file.recipe_schema()
    except FilterError as error:
        raise ThresherError(str(error)) from error
    print_json(document)
    return 0
