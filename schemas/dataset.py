"""The dataset that a recipe writes: its views, its card, and where and when it is published."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.part import Part, Share

View = Literal["sft", "preference", "unpaired", "prompts", "rollouts", "distill", "tokens"]


class PreferenceSpec(Part):
    """Which pairs the view `preference` has: near misses, each with its nearest hit, fewest edits first."""

    pairs_per_prompt: Annotated[int, Field(ge=1)] = 4
    """Most pairs of a prompt."""
    length_ratio: Annotated[float, Field(ge=1)] = 1.5
    """Most times that the longer half may be as long as the shorter, in characters, so that a trainer does not learn length."""
    form: bool = False
    """Include pairs whose halves differ only in case, white space and signs."""


class UnpairedSpec(Part):
    """Which samples the view `unpaired` has: hits, and misses with different texts, near misses first."""

    balance: bool = False
    """Take at most as many misses as hits of each prompt and at most as many hits as misses; a prompt with only hits or only
    misses has no rows."""


class Dataset(Part):
    """What is written to the dataset and its card."""

    views: Annotated[tuple[View, ...], Field(min_length=1)] = (
        "sft",
        "preference",
        "unpaired",
        "prompts",
        "rollouts",
    )
    """Configs of the dataset."""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts that are held out. All their rows are in the split `test` of every view. The choice depends only on
    the prompts, so a prompt stays in its split in every later release; 0 writes no such split."""
    preference: PreferenceSpec = PreferenceSpec()
    """Which pairs the view `preference` has."""
    unpaired: UnpairedSpec = UnpairedSpec()
    """Which samples the view `unpaired` has."""
    reasoning: Literal["keep", "drop", "inline"] = "keep"
    """What the views show of a model's reasoning: `keep` writes it as `reasoning_content` of the assistant's message, `drop`
    leaves it out, `inline` writes the completion as it was sampled, marks included."""
    prompt: Literal["as_sampled", "bare"] = "as_sampled"
    """What the view `sft` shows of the prompt: `as_sampled` all of it, `bare` without the worked examples in `few_shot` of the
    recipe, so that the trained model learns to answer without them."""
    engine_details: bool = False
    """Show, in the card and in the view `rollouts`, also addresses of servers, further request fields (`extra_body`) and
    directories of the machine. They are left out otherwise."""
    pretty_name: str | None = None
    """Title of the card; null takes the recipe's name."""
    description: str = ""
    """A paragraph for the card."""
    license: str | None = None
    """Licence of the dataset, as a Hub identifier such as `apache-2.0`."""
    language: tuple[str, ...] = ("en",)
    """ISO 639-1 codes of the languages."""
    tags: tuple[str, ...] = ()
    """Further tags for the card."""


class GatesSpec(Part):
    """When a run is not released."""

    hits: Annotated[int, Field(ge=0)] = 1
    """Fewest hits of a run; 0 releases a run without hits too."""
    undecided: Share = 0.1
    """Most samples that filters could not judge, as a share."""
    pass_rate_drop: Share = 0.3
    """Largest fall of the pass rate since the last release of this recipe, as a share of the earlier rate."""
    diversity_drop: Share = 0.3
    """Largest fall of the effective number of solutions per prompt since the last release of this recipe, as a share of the
    earlier number."""
    calibration: bool | Literal["tested"] = True
    """Refuse samples that are proved not to be draws from the model's own distribution; `tested`: and those of a source of which
    too few tokens were tested to tell."""
    self_check: bool = True
    """Check once more that the verifiers accept references of the run's own prompts (run.check_golds of them), and refuse a run
    whose verifiers raise an alarm."""
    drift: Literal["allow", "refuse"] = "allow"
    """Whether to refuse a run whose pass rate, or the share that a filter dropped, drifted since the last complete run of the
    same name in the same folder, by the test of docs/statistics.md. Improvement is drift too."""


class PublishSpec(Part):
    """Where the dataset is published, and when it is not. `thresher publish` and scheduled runs read it."""

    repo: str | None = None
    """ORG/NAME on the Hub, a directory, or an fsspec URL such as s3://bucket/sums; null leaves publishing to `thresher
    publish`."""
    views: Annotated[tuple[View, ...], Field(min_length=1)] | None = None
    """Configs that are published; null takes all of dataset.views. The others stay in the run."""
    private: bool = False
    """Make the repository private if publishing creates it."""
    gated: Literal["auto", "manual"] | None = None
    """Require readers on the Hub to request access, granted automatically or by hand; null leaves the setting unchanged."""
    create_pr: bool = False
    """Open a pull request instead of writing to main."""
    versions: Literal["date", "semantic"] | None = None
    """`date`: vYYYY.MM.DD.N. `semantic`: v1.MINOR.PATCH, where added rows raise MINOR, and replaced, merged or revoked rows raise
    PATCH. Null continues as the repository started, with `date` for a new one."""
    gates: GatesSpec = GatesSpec()
    """When a run is not released."""
