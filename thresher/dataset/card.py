"""The dataset card: README.md, whose front matter tells `datasets` and the Hub what the configs are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml

from schemas.manifest import RunManifest
from schemas.prompt_sets import PromptSet
from schemas.recipe import Recipe
from schemas.sampling import Sampling
from thresher import __version__
from thresher.audit.audit import Audit
from thresher.audit.compare import Since
from thresher.audit.review import Review, lines_of
from thresher.audit.show import calibration_lines, markdown, number, percent
from thresher.dataset import views

if TYPE_CHECKING:
    from jinja2 import Template

ABOUT = {
    "sft": "One row per hit, as prompt and completion: the config to fine-tune on.",
    "preference": "One row per pair: a near miss (rejected) and the hit it is nearest to (chosen), for DPO.",
    "unpaired": "One row per hit or miss, with a label, for KTO.",
    "prompts": "One row per prompt, with how often the model got it right.",
    "rollouts": "One row per sample, whatever became of it, with tokens, log-probabilities and every verdict.",
    "revoked": "One row per sample that was taken back; its rows stay in the other configs until they are merged anew.",
}
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"))  # fmt: skip
FRONT_MATTER = (
    "license", "language", "pretty_name", "size_categories", "task_categories", "annotations_creators", "tags", "configs",
    "dataset_info",
)  # fmt: skip
"""Keys that `front_matter` writes; all others are a person's."""
CONTENTS, CONTENTS_END = "<!-- thresher: contents -->", "<!-- thresher: end of contents -->"
_LEAVE_OUT = """
Some samples were taken back, and are named in the config `revoked`. Leave them out:

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
"""Ancestral sampling, as the recipe's own defaults have it."""


@dataclass(frozen=True)
class ViewSize:
    """How large a view came out: rows, bytes in Arrow memory, bytes of its Parquet files."""

    rows: int
    memory_bytes: int
    file_bytes: int

    def __add__(self, other: "ViewSize") -> "ViewSize":
        sums = (self.rows + other.rows, self.memory_bytes + other.memory_bytes, self.file_bytes + other.file_bytes)
        return ViewSize(*sums)


Sizes = Mapping[str, Mapping[str, ViewSize]]
"""Of each view, the default one first, how large its splits are."""


def card(
    manifest: RunManifest,
    audit: Audit,
    sizes: Sizes,
    *,
    repo: str = "ORG/NAME",
    review: Review | None = None,
    drift: Since | None = None,
) -> str:
    """The card of a dataset with these views. `repo` is the name by which it is loaded; `review` what a person's marks say;
    `drift` what differs from the run before."""
    recipe = manifest.recipe
    funnel, families = markdown(audit).split("\n\n")
    shown = {name: value for name, value in recipe.model_dump(mode="json").items() if name != "publish"}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120)
    model = {"name": None, "revision": None, "licence": None, "samples": None, "prompt_format": "chat"}
    rendered = _template().render(
        front_matter=front_matter(manifest, sizes),
        title=_title(recipe),
        description=recipe.dataset.description.strip(),
        audit=audit.to_dict(),
        budget=budget_words(recipe.sampling),
        calibration=calibration_lines(audit),
        number=number,
        sampled=manifest.origin == "sampled",
        model=model | manifest.model,
        sampling=recipe.sampling,
        sampling_words=sampling_words(recipe.sampling),
        stop=", ".join(f"`{text!r}`" for text in recipe.sampling.stop),
        version=__version__,
        funnel=funnel + "\n",
        families=families,
        views=list(sizes),
        about=ABOUT,
        contents=contents(sizes, repo=repo),
        repo=repo,
        empty=[view for view, splits in sizes.items() if not sum(size.rows for size in splits.values())],
        percent=percent,
        origins=[(one.family, _origin(one), one.license) for one in recipe.prompts],
        decontamination=_decontamination(audit),
        salt=recipe.run.salt,
        drift=drift,
        review=[] if review is None else lines_of(review),
        test_share=recipe.dataset.test_share,
        columns={view: _columns(view, manifest.model["prompt_format"]) for view in sizes},
        license=recipe.dataset.license,
        fence="`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))]),
        recipe=text,
    )
    return re.sub(r"\n{3,}", "\n\n", rendered)


def front_matter(manifest: RunManifest, sizes: Sizes) -> str:
    """The card's YAML: what the Hub lists and `datasets` reads."""

    recipe = manifest.recipe
    found: dict[str, Any] = {
        **({"license": recipe.dataset.license} if recipe.dataset.license else {}),
        "language": list(recipe.dataset.language),
        "pretty_name": _title(recipe),
        "size_categories": [size_category(sizes)],
        "task_categories": ["text-generation"],
        "annotations_creators": ["machine-generated"],
        "tags": list(dict.fromkeys(["synthetic", "thresher", "trl", "datasets", *recipe.dataset.tags])),
        **configs(sizes, manifest.model["prompt_format"]),
    }
    text: str = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)
    return text


def configs(sizes: Sizes, prompt_format: str, files: Mapping[str, Mapping[str, list[str]]] | None = None) -> dict[str, Any]:
    """What `datasets` reads of the front matter: configs and dataset_info. Each split is a pattern, or the `files` by name."""
    from datasets import Features

    found: dict[str, Any] = {"configs": [], "dataset_info": []}
    for view, splits in sizes.items():
        default = {} if found["configs"] else {"default": True}
        paths = {split: f"{view}/{split}/*.parquet" if files is None else files[view][split] for split in splits}
        data_files = [{"split": split, "path": path} for split, path in paths.items()]
        found["configs"].append({"config_name": view, **default, "data_files": data_files})
        features = Features.from_arrow_schema(views.schema(view, prompt_format))
        found["dataset_info"].append(
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
    return found


def size_category(sizes: Sizes) -> str:
    """How the Hub calls a dataset of so many rows, those of the first view."""
    rows = sum(size.rows for size in next(iter(sizes.values())).values())
    return next((name for limit, name in SIZES if rows < limit), "100B<n<1T")


def contents(sizes: Sizes, releases: int = 0, repo: str = "ORG/NAME") -> str:
    """The table of what there is, and how to leave out what was taken back, between marks, so that it can be written anew without
    the rest."""
    rows = [
        f"| `{view}` | {split} | {number(size.rows)} | {_megabytes(size.file_bytes)} |"
        for view, splits in sizes.items()
        for split, size in splits.items()
    ]
    said = f"{number(releases)} releases; the figures below are those of the last one.\n\n" if releases > 1 else ""
    table = "\n".join(["| config | split | rows | Parquet |", "|---|---|---:|---:|", *rows])
    view = next((view for view in sizes if view in ("sft", "unpaired", "rollouts")), None)
    left_out = _LEAVE_OUT.format(repo=repo, view=view) if "revoked" in sizes and view is not None else ""
    return f"{CONTENTS}\n{said}{table}\n{left_out}{CONTENTS_END}"


def sampling_words(sampling: Sampling) -> str:
    """Say which parameters changed the model's own distribution; every one that did is named."""
    values = {name: getattr(sampling, name) for name in NEUTRAL} | {"temperature": sampling.temperatures}
    other = [
        f"{name} {' and '.join(f'{one:g}' for one in value) if isinstance(value, tuple) else f'{value:g}'}"
        for name, value in values.items()
        if value not in (NEUTRAL[name], (NEUTRAL[name],))
    ]
    if not other:
        return "the model's own: temperature 1, top_p 1, no top_k or min_p, no penalties"
    return f"changed by {', '.join(other)}; everything else neutral"


def budget_words(sampling: Sampling) -> str:
    """Say how many samples each prompt got."""
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
    """Where a family's prompts come from, in words; of a file on this machine no more than its name."""
    source = prompts.source.model_dump(mode="json")
    name = str(source.get("path") or source.get("name") or "")
    if source["kind"] != "dataset" or name.count("/") != 1 or name.startswith((".", "/")):
        name = name.rsplit("/", 1)[-1]
    return f"{source['kind']} `{name}`" if name else str(source["kind"])


def _decontamination(audit: Audit) -> list[str]:
    """What was looked for in benchmarks, and found."""
    said = []
    for one in audit.filters:
        if one.name.split(":")[0] != "decontaminate":
            continue
        dropped = sum(one.dropped.values())
        which = "".join(f"; {number(count)} by {benchmark}" for benchmark, count in one.benchmarks.items())
        said.append(f"`{one.name}` compared {number(one.seen)} samples with its benchmarks and dropped {number(dropped)}{which}.")
    return said


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.1f} kB"


def _title(recipe: Recipe) -> str:
    return " ".join((recipe.dataset.pretty_name or recipe.name).split())


def _columns(view: str, prompt_format: str) -> list[tuple[str, str, str]]:
    meanings = {name: meaning for name, _, meaning in views.COLUMNS[view]}
    return [(f.name, type_name(f.type), meanings[f.name]) for f in views.schema(view, prompt_format)]


def type_name(kind: pa.DataType) -> str:
    """A column's type in words."""
    if kind.equals(views.CHAT):
        return "messages (role, content)"
    if pa.types.is_list(kind):
        return f"list of {type_name(kind.value_type)}"
    if pa.types.is_struct(kind):
        return f"({', '.join(field.name for field in kind)})"
    names = {views.JSON: "json", pa.float32(): "float32", pa.float64(): "float64"}
    return names.get(kind, str(kind))
