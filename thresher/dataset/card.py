"""The dataset card: README.md, whose front matter describes the configs to `datasets` and the Hub."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml

from schemas.manifest import RunManifest
from schemas.prompt_sets import PromptSet
from schemas.recipe import Recipe
from schemas.sample import to_json
from schemas.sampling import Sampling
from thresher import __version__
from thresher.auditing.audit import Audit
from thresher.auditing.compare import Since
from thresher.auditing.markdown import code, inline, without_marks
from thresher.auditing.review import Review, lines_of
from thresher.auditing.show import calibration_lines, canary_words, markdown, model_row, number, percent
from thresher.dataset import views
from thresher.dataset.messages import JSON
from thresher.disclosure import public_name, public_settings, public_source, public_text
from thresher.samplers.declared import declared_words

if TYPE_CHECKING:
    from jinja2 import Template

ABOUT = {
    "sft": "One row per hit, as prompt and completion: the config to fine-tune on.",
    "preference": "One row per pair: a near miss (rejected) and the hit it is nearest to (chosen), for DPO.",
    "unpaired": "One row per hit or miss, with a label, for KTO.",
    "prompts": "One row per prompt, with how often the model got it right.",
    "rollouts": "One row per sample, whatever its outcome, with tokens, log-probabilities and all verdicts.",
    "distill": "One row per hit, with the likeliest tokens of each position: for distillation.",
    "tokens": "One row per hit, as the tokens that were sampled, with labels: to fine-tune on exactly these.",
    "revoked": "One row per revoked sample; its rows stay in the other configs until the releases are merged.",
}
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"))  # fmt: skip
CONTENTS, CONTENTS_END = "<!-- thresher: contents -->", "<!-- thresher: end of contents -->"
_LEAVE_OUT = """
Some samples were revoked; the config `revoked` lists them. To leave them out:

```python
from datasets import load_dataset

revoked = set(load_dataset("{repo}", "revoked", split="train")["sample_id"])
{view} = load_dataset("{repo}", "{view}", split="train").filter(lambda row: row["sample_id"] not in revoked)
```
"""
NEUTRAL = {
    name: Sampling.model_fields[name].default
    for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
}
"""Parameters of ancestral sampling, which are the recipe's defaults."""


@dataclass(frozen=True)
class ViewSize:
    """The size of a view or split: rows, bytes in Arrow memory, bytes of its Parquet files."""

    rows: int
    memory_bytes: int
    file_bytes: int

    def __add__(self, other: "ViewSize") -> "ViewSize":
        sums = (self.rows + other.rows, self.memory_bytes + other.memory_bytes, self.file_bytes + other.file_bytes)
        return ViewSize(*sums)


Sizes = Mapping[str, Mapping[str, ViewSize]]
"""The sizes of the splits of each view; the default view is first."""


def card(
    manifest: RunManifest,
    audit: Audit,
    sizes: Sizes,
    *,
    prompt_format: str,
    repo: str = "ORG/NAME",
    review: Review | None = None,
    drift: Since | None = None,
) -> str:
    """The card of a dataset with these views. `repo` is the name by which it is loaded, `review` the result of a review by
    hand, `drift` the comparison with the run before."""
    recipe = manifest.recipe
    funnel, families = markdown(audit).split("\n\n")
    details = recipe.dataset.engine_details
    shown = {name: value for name, value in recipe.model_dump(mode="json").items() if name != "publish"}
    text = yaml.safe_dump(shown if details else public_settings(shown), sort_keys=False, allow_unicode=True, width=120)
    named: Callable[[str], str] = str if details else public_name
    repo = public_repo(repo)
    model = {"name": None, "revision": None, "licence": None, "samples": None, "prompt_format": "chat"}
    model |= {"adapter": None}
    models = [
        model | _named(noted, named) | {"engine_settings": _settings_words(noted.get("settings"), details=details)}
        for noted in manifest.model.get("models", [manifest.model])
    ]
    rendered = _template().render(
        front_matter=front_matter(manifest, sizes, prompt_format),
        audit=audit.to_dict(),
        budget=budget_words(recipe.sampling),
        number=number,
        sampled=manifest.origin == "sampled",
        model=model | _named(manifest.model, named),
        models=models,
        model_rows=[[inline(named(cell)) for cell in model_row(row)] for row in audit.models],
        sampling=recipe.sampling,
        sampling_words=sampling_words(recipe.sampling),
        version=__version__,
        funnel=funnel + "\n",
        judges=[f"`{stats.name}`: {'; '.join(words)}" for stats in audit.filters if (words := canary_words(stats))],
        families=families,
        views=list(sizes),
        about=ABOUT,
        contents=contents(sizes, repo=repo),
        repo=repo,
        empty=[view for view, splits in sizes.items() if not sum(size.rows for size in splits.values())],
        percent=percent,
        decontamination=_decontamination(audit),
        drift=drift,
        **_words(recipe, audit, review, drift),
        test_share=recipe.dataset.test_share,
        columns={view: _columns(view, prompt_format) for view in sizes},
        license=recipe.dataset.license,
        fence="`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))]),
        recipe=without_marks(text),
    )
    return re.sub(r"\n{3,}", "\n\n", rendered)


def _words(recipe: Recipe, audit: Audit, review: Review | None, drift: Since | None) -> dict[str, Any]:
    """What people, models and servers wrote, so that nothing in it acts on the card or names a server."""
    details = recipe.dataset.engine_details
    said: Callable[[str], str] = str if details else public_text
    return {
        "title": inline(_title(recipe)),
        "description": without_marks(recipe.dataset.description.strip()),
        "calibration": [inline(said(line)) for line in _calibration(audit, details=details)],
        "faults": [inline(said(_hosts_left_out(audit, fault, details=details))) for fault in audit.calibration_faults],
        "drifted": [] if drift is None else [inline(line) for line in drift.drifted],
        "review": [] if review is None else [inline(line) for line in lines_of(review)],
        "stop": ", ".join(f"`{code(repr(text))}`" for text in recipe.sampling.stop),
        "salt": code(recipe.run.salt),
        "origins": [(prompts.family, _origin(prompts), inline(prompts.license or "")) for prompts in recipe.prompts],
    }


def public_repo(repo: str) -> str:
    """The name by which a card says that its dataset is loaded; ORG/NAME for a directory or a bucket."""
    return "ORG/NAME" if "://" in repo or repo.startswith(("/", "~", ".")) else code(repo)


def _named(noted: Mapping[str, Any], named: Callable[[str], str]) -> dict[str, Any]:
    """The notes on a model, as they stand in code spans, tables and programs."""
    texts: dict[str, Any] = {name: code(named(value)) for name, value in noted.items() if isinstance(value, str)}
    if noted.get("licence"):
        texts["licence"] = inline(str(noted["licence"]))
    if noted.get("adapter"):
        texts["adapter"] = {name: code(named(str(value))) if value else value for name, value in noted["adapter"].items()}
    return {**noted, **texts}


def _calibration(audit: Audit, *, details: bool) -> list[str]:
    tests = audit.calibration if details else tuple(replace(t, source=public_source(t.source)) for t in audit.calibration)
    return calibration_lines(replace(audit, calibration=tests))


def _hosts_left_out(audit: Audit, line: str, *, details: bool) -> str:
    """A line about the calibration without the addresses of the servers."""
    for test in () if details else audit.calibration:
        line = line.replace(test.source, public_source(test.source))
    return line


def _settings_words(settings: Any, *, details: bool) -> str:
    shown = to_json(settings if details else public_settings(settings)) if settings else ""
    return shown.replace("`", "'").replace("|", "\\|").replace("<!--", "<! --")


def front_matter(manifest: RunManifest, sizes: Sizes, prompt_format: str) -> str:
    """The YAML at the top of the card, which the Hub and `datasets` read."""
    recipe = manifest.recipe
    matter: dict[str, Any] = {
        **({"license": recipe.dataset.license} if recipe.dataset.license else {}),
        "language": list(recipe.dataset.language),
        "pretty_name": _title(recipe),
        "size_categories": [size_category(sizes)],
        "task_categories": ["text-generation"],
        "annotations_creators": ["machine-generated"],
        "tags": list(dict.fromkeys(["synthetic", "thresher", "trl", "datasets", *recipe.dataset.tags])),
        **configs(sizes, prompt_format),
    }
    text: str = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=120)
    return text


def configs(sizes: Sizes, prompt_format: str, files: Mapping[str, Mapping[str, list[str]]] | None = None) -> dict[str, Any]:
    """The keys of the front matter that `datasets` reads: configs and dataset_info. The files of a split are given by a
    pattern, or by the names in `files`."""
    from datasets import Features

    matter: dict[str, Any] = {"configs": [], "dataset_info": []}
    for view, splits in sizes.items():
        default = {} if matter["configs"] else {"default": True}
        paths = {split: f"{view}/{split}/*.parquet" if files is None else files[view][split] for split in splits}
        data_files = [{"split": split, "path": path} for split, path in paths.items()]
        matter["configs"].append({"config_name": view, **default, "data_files": data_files})
        features = Features.from_arrow_schema(views.schema(view, prompt_format))
        matter["dataset_info"].append(
            {
                "config_name": view,
                "features": features._to_yaml_list(),
                "splits": [
                    {"name": split, "num_bytes": size.memory_bytes, "num_examples": size.rows} for split, size in splits.items()
                ],
                "download_size": sum(size.file_bytes for size in splits.values()),
                "dataset_size": sum(size.memory_bytes for size in splits.values()),
            }
        )
    return matter


def size_category(sizes: Sizes) -> str:
    """The Hub's size category for the number of rows of the first view."""
    rows = sum(size.rows for size in next(iter(sizes.values()), {}).values())
    return next((name for limit, name in SIZES if rows < limit), "100B<n<1T")


def contents(sizes: Sizes, releases: int = 0, repo: str = "ORG/NAME") -> str:
    """The table of configs, and how to leave out revoked samples; between marks, so that this part of a card can be replaced."""
    rows = [
        f"| `{view}` | {split} | {number(size.rows)} | {_megabytes(size.file_bytes)} |"
        for view, splits in sizes.items()
        for split, size in splits.items()
    ]
    remark = f"{number(releases)} releases; the figures below are those of the last one.\n\n" if releases > 1 else ""
    table = "\n".join(["| config | split | rows | Parquet |", "|---|---|---:|---:|", *rows])
    view = next((view for view in sizes if view in ("sft", "unpaired", "rollouts")), None)
    left_out = _LEAVE_OUT.format(repo=public_repo(repo), view=view) if "revoked" in sizes and view is not None else ""
    return f"{CONTENTS}\n{remark}{table}\n{left_out}{CONTENTS_END}"


def sampling_words(sampling: Sampling) -> str:
    """Name all parameters that changed the model's own distribution."""
    values = {name: getattr(sampling, name) for name in NEUTRAL} | {"temperature": sampling.temperatures}
    changed = [
        f"{name} {' and '.join(f'{item:g}' for item in value) if isinstance(value, tuple) else f'{value:g}'}"
        for name, value in values.items()
        if value not in (NEUTRAL[name], (NEUTRAL[name],))
    ]
    changed += declared_words(sampling.declared)
    if not changed:
        return "the model's own: temperature 1, top_p 1, no top_k or min_p, no penalties"
    return f"changed by {', '.join(changed)}; everything else neutral"


def budget_words(sampling: Sampling) -> str:
    """Describe how many samples each prompt got."""
    each = f"{sampling.samples_per_prompt} per prompt" + (" and temperature" if len(sampling.temperatures) > 1 else "")
    if sampling.target_hits is None:
        return each
    given_up = f", given up below a pass rate of {sampling.give_up_below:g}" if sampling.give_up_below is not None else ""
    return f"{each}, and more until {sampling.target_hits} distinct hits or {sampling.most} samples{given_up}"


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(  # noqa: S701  (markdown: nothing is escaped for HTML)
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    return environment.from_string(files("thresher.dataset").joinpath("card.md.j2").read_text(encoding="utf-8"))


def _origin(prompts: PromptSet) -> str:
    """The source of a family's prompts, in words; of a local file only its name."""
    source = prompts.source.model_dump(mode="json")
    name = str(source.get("path") or source.get("name") or "")
    if source["kind"] != "dataset" or name.count("/") != 1 or name.startswith((".", "/")):
        name = name.rsplit("/", 1)[-1]
    return f"{source['kind']} `{code(name)}`" if name else str(source["kind"])


def _decontamination(audit: Audit) -> list[str]:
    """For each filter that compares samples with benchmarks, how many it dropped."""
    lines = []
    for stats in audit.filters:
        if stats.name.split(":")[0] != "decontaminate":
            continue
        dropped = sum(stats.dropped.values())
        which = "".join(f"; {number(count)} by {inline(benchmark)}" for benchmark, count in stats.benchmarks.items())
        name, seen = code(stats.name), number(stats.seen)
        lines.append(f"`{name}` compared {seen} samples with its benchmarks and dropped {number(dropped)}{which}.")
    return lines


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.1f} kB"


def _title(recipe: Recipe) -> str:
    return " ".join((recipe.dataset.pretty_name or recipe.name).split())


def _columns(view: str, prompt_format: str) -> list[tuple[str, str, str]]:
    meanings = {name: meaning for name, _, meaning in views.COLUMNS[view]}
    return [(f.name, type_name(f.type), meanings[f.name]) for f in views.schema(view, prompt_format)]


def type_name(kind: pa.DataType) -> str:
    """A column's type in words."""
    if kind == pa.list_(JSON):
        return "messages (json)"
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) and kind.value_type.get_field_index("role") == 0:
        return f"messages ({', '.join(field.name for field in kind.value_type)})"
    if pa.types.is_list(kind):
        return f"list of {type_name(kind.value_type)}"
    if pa.types.is_struct(kind):
        return f"({', '.join(field.name for field in kind)})"
    names = {JSON: "json", pa.float32(): "float32", pa.float64(): "float64"}
    return names.get(kind, str(kind))
