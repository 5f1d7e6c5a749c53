"""The recipe: one YAML file that says what to sample, from what, and who stays.

The models here make schemas/recipe.schema.json (`make schemas`), against which thresher.recipes validates a file before it
builds them. Each field's docstring is its description there.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


EVERY_FAMILY = "all"
"""What the audit calls all families together; no family has that name."""


class Part(BaseModel):
    """Frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Turn(Part):
    """One worked example, shown to the model as a user turn and an assistant turn."""

    user: str
    """What the user says, as plain text."""
    assistant: str
    """The answer to imitate."""


class JsonlSource(Part):
    """One JSON object per line."""

    kind: Literal["jsonl"]
    path: str
    """File, relative to the recipe."""


class ParquetSource(Part):
    """A Parquet or Arrow IPC file, or a directory of Parquet files."""

    kind: Literal["parquet"]
    path: str
    """File or directory, relative to the recipe."""


class DatasetSource(Part):
    """Anything `datasets.load_dataset` reads: a Hub id or a local dataset directory."""

    kind: Literal["dataset"]
    path: str
    """Hub id (`org/name`), or a directory relative to the recipe."""
    config: str | None = None
    """Config (subset) name; null takes the default one."""
    split: str = "train"
    """Split name."""
    revision: str | None = None
    """Branch, tag or commit on the Hub. Name one: `main` moves."""


class ReasoningGymSource(Part):
    """A task family of reasoning-gym; rows are generated, with `question` and `answer`."""

    kind: Literal["reasoning_gym"]
    name: str
    """Family, as in `reasoning_gym.create_dataset(name)`. The nine families that evaluate an answer as code are refused."""
    size: Annotated[int, Field(ge=1)]
    """Number of prompts."""
    seed: int = 0
    """First seed. Item i uses seed + i, so keep two sources of one family at least `size` apart."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the family."""


class GridSource(Part):
    """Every combination of the listed values, in the order written; each is one row."""

    kind: Literal["grid"]
    fields: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    """Field name to the values it takes."""


Source = Annotated[JsonlSource | ParquetSource | DatasetSource | ReasoningGymSource | GridSource, Field(discriminator="kind")]


class PromptSet(Part):
    """One family of prompts: where its rows come from and how a row becomes chat messages."""

    family: Name
    """Name of the task family: statistics are given per family, and filters may be limited to some."""
    source: Source
    """Where the rows come from."""
    template: str = "{{ question }}"
    """Sandboxed Jinja template of the user's message over the row's fields. A field that a row lacks is an error."""
    system: str | None = None
    """System message, a template over the same fields."""
    few_shot: tuple[Turn, ...] = ()
    """Worked examples, shown before the question as chat turns."""
    reference: str | tuple[str, ...] | None = "answer"
    """Field that holds the reference answer (any JSON value), or several fields, which make an object; null where the prompts
    have none. A row may lack it."""
    reference_template: str | None = None
    """Jinja template that makes the reference from the row instead; its result is text."""
    metadata: tuple[str, ...] | None = None
    """Fields kept beside each sample; null keeps all but the reference."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Take the first rows only."""
    license: str | None = None
    """Licence of the prompts, as a Hub identifier such as `mit`, for the card."""


class VllmEngine(Part):
    """vLLM in this process: the same on a GPU and on a CPU."""

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Precision of the weights."""
    max_model_len: Annotated[int, Field(ge=16)] | None = None
    """Longest prompt plus completion, in tokens; null takes the model's."""
    max_num_seqs: Annotated[int, Field(ge=1)] | None = None
    """Sequences the engine decodes at once; null takes vLLM's default."""
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    """GPUs per model."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the GPU's memory; null takes vLLM's default."""
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory for the key-value cache on a CPU, in GiB; null takes vLLM's default. No effect on a GPU."""
    enforce_eager: bool = False
    """Skip graph capture and compilation: a faster start, slower decoding on a GPU."""
    tokens_in_flight: Annotated[int, Field(ge=1)] | None = None
    """Bound on what is handed to the engine at once, in tokens as if every completion became max_tokens long; null takes
    4,194,304, or what fills the engine if that is more. Never more than twice max_num_seqs completions."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's engine, by its own names. `seed` and `generation_config` are thresher's to set."""


class ReplayEngine(Part):
    """No engine: answers come from a table. For tests, and to see what filters do without a model."""

    kind: Literal["replay"]
    path: str
    """JSONL or Parquet file, relative to the recipe, with `prompt` (text of the last message) and `completion`; a prompt with
    fewer rows than samples asked for starts over from its first."""


class HttpEngine(Part):
    """One or more OpenAI-compatible servers of one model: `vllm serve` replicas, or a hosted API."""

    kind: Literal["openai_http"]
    base_urls: tuple[Annotated[str, Field(pattern=r"^https?://")], ...] = ()
    """Roots of the servers' API, such as http://127.0.0.1:8000/v1. `model.name` must be served by each. No user name, key or
    query stands in them, for a recipe is written to disk."""
    fleet: str | None = None
    """Instead of base_urls: the file, relative to the recipe, that `thresher fleet` keeps, with an address on each line. It is
    read again every few seconds, so that servers may come and go."""
    every_address: bool = False
    """Take each address that a host name stands for as a server of its own, as a headless service of Kubernetes names its
    replicas; looked up again every few seconds. The names must then be of http:// addresses."""
    api: Literal["chat", "completions"] = "chat"
    """`chat` sends messages, which the server renders by its own template; `completions` sends plain text, for a base model."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, such as OPENAI_API_KEY. The key itself is never written or logged."""
    extensions: Literal["auto", "vllm", "none"] = "auto"
    """Send vLLM's own fields (top_k, min_p, repetition_penalty, token ids) beside OpenAI's; `auto` asks each server."""
    requests_in_flight: Annotated[int, Field(ge=1)] = 256
    """Requests to one server at once, at most. It starts with 8, rises by 1 as answers come and halves when the server balks."""
    completions_per_request: Annotated[int, Field(ge=1)] = 32
    """Completions asked for in one request, at most."""
    connect_timeout_s: Annotated[float, Field(gt=0)] = 10
    """Seconds to wait for a connection. An answer is waited for however long it takes, as long as the server is there."""
    silent_s: Annotated[float, Field(gt=0)] = 60
    """Seconds without a word from a server that has requests, after which it is asked for its models. One that leaves three such
    questions unanswered for as long each is left alone until it answers, and its requests are drawn by others. More for a server
    that answers nothing while it generates."""
    give_up_after_s: Annotated[float, Field(gt=0)] = 600
    """Seconds after which a run in which no server gives any answer ends with an error; what is finished is kept."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request, by the server's own names. Those that decide what is sampled are thresher's to set."""

    @model_validator(mode="after")
    def _addresses_are_plain(self) -> "HttpEngine":
        if bool(self.base_urls) == (self.fleet is not None):
            raise ValueError("wanted base_urls, the servers' addresses, or fleet, the file of `thresher fleet`: one of the two")
        if self.every_address and any(url.startswith("https:") for url in self.base_urls):
            raise ValueError(
                "every_address and an https:// address contradict each other: a certificate is of a name, and not of what it "
                "stands for; list the servers in base_urls"
            )
        return self

    @field_validator("base_urls")
    @classmethod
    def _no_secrets(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for number, url in enumerate(urls):
            if any(mark in url for mark in "@?#"):
                raise ValueError(
                    f"base_urls[{number}] holds a user name, a query or a fragment, which would be written to disk; "
                    "give the plain address, and the key by api_key_env"
                )
        return urls


Engine = Annotated[VllmEngine | ReplayEngine | HttpEngine, Field(discriminator="kind")]


class ModelSpec(Part):
    """The model to draw from."""

    name: str = "smollm2-135m-instruct"
    """The embedded `smollm2-135m-instruct`, a directory (relative to the recipe), or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Name a commit for a run that can be repeated."""
    prompt_format: Literal["auto", "chat", "text"] = "auto"
    """`chat` renders messages by the model's chat template, `text` joins them by blank lines for a base model; `auto` takes
    `chat` where the model has a template."""


Temperature = Annotated[float, Field(gt=0, le=10)]


class CalibrationSpec(Part):
    """The test, on every run, that the samples are draws from the model's own distribution; see docs/calibration.md."""

    standard_error: Annotated[float, Field(ge=0, lt=0.5)] = 0.002
    """Take as many tokens as make the observed shares this precise; 0 leaves the test out."""
    expect: Literal["ancestral", "declared"] = "ancestral"
    """`ancestral`: the audit fails when the samples are not draws at temperature 1 without truncation. `declared`: what the
    recipe itself changes (a temperature list, a top_p) is meant, and only what it does not name is a fault."""


class Sampling(Part):
    """How completions are drawn. Everything is sent explicitly and the model's own generation_config is overruled, so the
    defaults are what they say: ancestral sampling at temperature 1."""

    samples_per_prompt: Annotated[int, Field(ge=0, le=65536)] = 16
    """Completions drawn per prompt (and temperature), besides the anchor. Raise it later to draw only the further ones; 0 draws
    the anchors alone."""
    target_hits: Annotated[int, Field(ge=1)] | None = None
    """Go on drawing for a prompt, in waves, until it has this many distinct hits; null draws samples_per_prompt and no more."""
    max_samples_per_prompt: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Stop there, with target_hits; null takes 16 times samples_per_prompt."""
    give_up_below: Annotated[float, Field(gt=0, lt=1)] | None = None
    """With target_hits: give a prompt up when nothing passed and its pass rate is above this with a probability below 5 %; null
    never gives up."""
    target_rows: Annotated[int, Field(ge=1)] | None = None
    """Begin no further shard once the run has this many hits; null samples every prompt."""
    anchor: bool = True
    """Also draw one greedy completion per prompt: the model's known solution."""
    max_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest completion, in tokens; a longer one is cut and dropped as `truncated`."""
    temperature: Temperature | Annotated[tuple[Temperature, ...], Field(min_length=1)] = 1.0
    """1 draws from the model's own distribution. Anything else is recorded on every sample and named on the card. A list draws
    samples_per_prompt at each, to study them."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus truncation; 1 is off."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Keep only the k likeliest tokens; 0 is off."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Drop tokens below this share of the likeliest; 0 is off."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """0 is off."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """0 is off."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """1 is off."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a completion; they are not part of it."""
    seeds: Literal["auto", "sample", "engine"] = "auto"
    """`sample` gives each completion a seed made from its identity, so that it is drawn again alike; `engine` seeds the engine at
    its start; `auto` is `sample` for vLLM in this process on a GPU, and `engine` on a CPU and over HTTP, where vLLM may die of a
    seed (docs/decisions.md)."""
    calibration: CalibrationSpec = CalibrationSpec()
    """The test that these are draws from the model's own distribution."""

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures, one or more."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    @property
    def most(self) -> int:
        """Completions of a prompt at one temperature, at most."""
        if self.target_hits is None:
            return self.samples_per_prompt
        return self.max_samples_per_prompt or min(65536, 16 * self.samples_per_prompt)

    @model_validator(mode="after")
    def _budget_agrees(self) -> "Sampling":
        if self.samples_per_prompt == 0 and (self.target_hits is not None or not self.anchor):
            raise ValueError("samples_per_prompt 0 draws the anchors alone: set anchor, and take target_hits out")
        if self.target_hits is None:
            for name in ("max_samples_per_prompt", "give_up_below"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} says when to stop looking for target_hits, which is not set; set it, or take {name} out"
                    )
            if len(set(self.temperatures)) < len(self.temperatures):
                raise ValueError(f"temperature names one value twice: {list(self.temperatures)}; name each once")
            return self
        if len(self.temperatures) > 1:
            raise ValueError(
                "target_hits and a list of temperatures contradict each other: temperatures are compared at equal numbers of "
                "samples; take target_hits out, or name one temperature"
            )
        if self.most < self.samples_per_prompt:
            raise ValueError(
                f"max_samples_per_prompt is {self.most}, less than samples_per_prompt {self.samples_per_prompt}; "
                "raise the one or lower the other"
            )
        if self.target_hits > self.most:
            raise ValueError(
                f"target_hits {self.target_hits} can never be reached with max_samples_per_prompt {self.most}; raise the one or "
                "lower the other"
            )
        return self


class FilterSpec(Part):
    """One filter. A sample that one does not keep is not shown to the next; for their order see run.filter_order."""

    name: str
    """Registered name, or `module:build` for your own."""
    families: tuple[Name, ...] | None = None
    """Judge the samples of these families only; null judges all."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The filter's own settings; see README, or `thresher schema FILTER`."""


Similarity = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class SemanticSpec(Part):
    """Duplicates in other words, by an embedding model that vLLM runs: any sentence-transformers model it knows."""

    model: ModelSpec
    """A directory, relative to the recipe, or a Hub id."""
    engine: VllmEngine = VllmEngine()
    """vLLM's settings. It takes its share of the GPU beside the sampler's, once per filter process: set gpu_memory_utilization on
    both."""
    threshold: Similarity = 0.9
    """Least cosine of the embeddings of duplicates. Texts longer than the model reads are not compared."""


class ReleasedSpec(Part):
    """What was released before, by any run that names the same index."""

    index: str
    """Folder of the index, relative to the recipe; one that is not there yet is begun. A run asks it before it writes its
    dataset, and adds its hits together with that."""
    threshold: Similarity = 0.7
    """Least similarity of duplicates of released samples, by their sketches."""


class DedupeSpec(Part):
    """Which hits repeat others, and which of them stays. Equal texts (after NFKC, in lower case, whatever the white space) always
    do; others by the Jaccard similarity of their word bigrams, or of runs of four characters below eight words."""

    within_prompt: Similarity | None = 0.7
    """Least similarity of duplicates among the samples of a prompt; null does not look for them."""
    within_run: Similarity | None = 0.7
    """Least similarity of duplicates of different prompts; null does not look for them."""
    semantic: SemanticSpec | None = None
    """Duplicates in other words among the samples of a prompt; null does not look for them."""
    released: ReleasedSpec | None = None
    """Where to look for duplicates of what was released before; null does not."""
    run_characters: Annotated[int, Field(ge=0)] = 200
    """Shorter completions are only compared with those of the same prompt: that two prompts have one short answer is no fault."""
    guard: Literal["answer", "numbers", "none"] = "answer"
    """What duplicates must agree in: the reference that a verifier accepted, and the numbers in the text where there is none
    (`answer`); the numbers always (`numbers`); nothing (`none`)."""
    keep: tuple[Literal["highest_score", "shortest", "likeliest"], ...] = ("highest_score", "shortest", "likeliest")
    """Which copy stays: the first of these that tells them apart decides, and the smallest sample_id at last."""


class NearMissSpec(Part):
    """Which misses are near misses: those a few words away from a hit of the same prompt, or from its anchor if that passed."""

    edits: Annotated[int, Field(ge=0)] = 3
    """Words or signs put in, taken out or exchanged, at most; or `share` of the longer text's, if that is more."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the words that may differ in a longer text."""
    common: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the words that must be the same, which matters below six words."""


class PreferenceSpec(Part):
    """Which pairs the view `preference` holds: near misses, each against its nearest hit, fewest edits first."""

    pairs_per_prompt: Annotated[int, Field(ge=1)] = 4
    """Pairs of a prompt, at most."""
    length_ratio: Annotated[float, Field(ge=1)] = 1.5
    """The longer half is at most so many times as long as the other, in characters: a trainer shall not learn length."""
    form: bool = False
    """Also pairs whose halves differ only in case, white space and signs."""


class UnpairedSpec(Part):
    """Which samples the view `unpaired` holds: hits, and misses of different texts, near ones first."""

    balance: bool = False
    """As many misses as hits of each prompt, at most, and the other way round; a prompt with only one sort has none."""


View = Literal["sft", "preference", "unpaired", "prompts", "rollouts"]


class Dataset(Part):
    """What is written, and what its card says."""

    views: Annotated[tuple[View, ...], Field(min_length=1)] = (
        "sft",
        "preference",
        "unpaired",
        "prompts",
        "rollouts",
    )
    """Configs of the dataset."""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts that are held out: all their rows are in the split `test` of every view. Which ones depends on the
    prompts alone, so a prompt stays where it is in every later release; 0 has no such split."""
    preference: PreferenceSpec = PreferenceSpec()
    """What makes a pair of the view `preference`."""
    unpaired: UnpairedSpec = UnpairedSpec()
    """What the view `unpaired` holds."""
    pretty_name: str | None = None
    """Title of the card; null takes the recipe's name."""
    description: str = ""
    """A paragraph for the card."""
    license: str | None = None
    """Licence of the dataset, as a Hub identifier such as `apache-2.0`."""
    language: tuple[str, ...] = ("en",)
    """ISO 639-1 codes."""
    tags: tuple[str, ...] = ()
    """Further tags for the card."""


class GatesSpec(Part):
    """When a run is not released."""

    undecided: Share = 0.1
    """Most of the samples, as a share, that filters could not judge."""
    pass_rate_drop: Share = 0.3
    """Most that the pass rate may have fallen since the last release of this recipe, as a share of it."""
    diversity_drop: Share = 0.3
    """The same of the effective number of solutions of a prompt."""
    calibration: bool = True
    """Whether samples that are proved not to be draws from the model's own distribution are refused."""
    self_check: bool = True
    """Whether the verifiers must accept references of the run's own prompts once more, run.check_golds of them, and not raise an
    alarm."""
    drift: Literal["allow", "refuse"] = "allow"
    """Whether a run is refused whose pass rate, or the share that a filter dropped, drifted since the last complete run of the
    same name in the same folder, by the test of docs/statistics.md. Drift is not decline: what gets better drifts too."""


class PublishSpec(Part):
    """Where the dataset goes, and when it does not. `thresher publish` reads it, and scheduled runs do."""

    repo: str | None = None
    """ORG/NAME of the Hub, a directory, or an fsspec URL such as s3://bucket/sums; null leaves publishing to
    `thresher publish`."""
    views: Annotated[tuple[View, ...], Field(min_length=1)] | None = None
    """Configs that go there; null takes all of dataset.views. What is left out stays in the run."""
    private: bool = False
    """Make the repository private, if it is made now."""
    gated: Literal["auto", "manual"] | None = None
    """Let readers of the Hub ask for access first, granted by itself or by hand; null leaves it as it is."""
    create_pr: bool = False
    """Open a pull request instead of writing to main."""
    versions: Literal["date", "semantic"] | None = None
    """`date`: vYYYY.MM.DD.N; `semantic`: v1.MINOR.PATCH, where rows added raise MINOR, and rows replaced, merged or taken back
    raise PATCH; null goes on as the repository began, with `date` if it is new."""
    gates: GatesSpec = GatesSpec()
    """When a run is not released."""


class RunSpec(Part):
    """How a run is cut up. Nothing here changes what is sampled, but for `salt`."""

    salt: str = ""
    """Another salt draws other samples; a scheduled run brings its own."""
    shard_samples: Annotated[int, Field(ge=1)] = 2048
    """Samples per shard, in whole prompts: the unit of work that is written, retried and resumed."""
    shards_in_flight: Annotated[int, Field(ge=1)] | None = None
    """Shards sampled side by side, so that the engine is busy across their borders; null takes enough to fill the engine."""
    filter_workers: Annotated[int, Field(ge=0)] = 1
    """Processes that filter while sampling goes on; 0 filters in this process."""
    verifier_workers: Annotated[int, Field(ge=1)] | None = None
    """Supervised processes of each filter that parses or runs what a model wrote; null takes one per core."""
    dedupe_gib: Annotated[float, Field(gt=0)] = 4
    """Memory for finding duplicates within the run, in GiB; what takes more is done through files."""
    scratch: str | None = None
    """Folder for those files, relative to the recipe, which all machines of the executor reach; null takes RUN/scratch, or the
    temporary folder of the machine that drives the run where that is on an object store: on a Ray cluster it then works alone."""
    check_golds: Annotated[int, Field(ge=0)] = 256
    """Prompts, spread over the plan, whose references the verifiers must accept before anything is sampled; 0 leaves it out."""
    filter_order: Literal["cheapest", "written"] = "cheapest"
    """`cheapest`: filters that stand side by side and judge samples by themselves run cheapest first, which changes the reason
    that is noted but not who stays; `written`: in the recipe's order."""


class LocalExecutorSpec(Part):
    """This machine: one engine, and filters in processes beside it."""

    kind: Literal["local"] = "local"


class RayExecutorSpec(Part):
    """A Ray cluster: an actor for each replica of the engine, filters as tasks on its CPUs. The run directory, and the files that
    the recipe names, must be on storage that all its machines reach under the same name."""

    kind: Literal["ray"]
    address: str | None = "auto"
    """The cluster: `auto` is the one that this machine belongs to, or ray://HOST:10001; null begins one on this machine."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Engines, each in an actor of its own; `thresher scale RUN N` changes their number."""
    autoscaling: bool = False
    """Machines come when they are wanted: begin with as many replicas as there is room for. Otherwise a cluster without room for
    all of them is refused."""
    gpus_per_replica: Annotated[float, Field(ge=0)] | None = None
    """GPUs of one; null takes engine.tensor_parallel_size where the cluster has GPUs, else none."""
    cpus_per_replica: Annotated[float, Field(ge=0)] = 1
    """CPUs of one. Filters take one each, beside them."""
    resources_per_replica: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Custom resources of one, as machines were given by `ray start --resources`."""


ExecutorSpec = Annotated[LocalExecutorSpec | RayExecutorSpec, Field(discriminator="kind")]


class AuditSpec(Part):
    """What is done so that the filters can be audited."""

    exhaustive: bool = False
    """Show every sample to every filter that judges samples by themselves, so that their overlaps can be seen; a sample's outcome
    is still that of the first that did not keep it. Costs what the filters cost."""


class Recipe(Part):
    """A recipe of thresher: prompts, model, sampling, filters, dataset."""

    name: Name
    """Name of the run and of its directory."""
    prompts: tuple[PromptSet, ...] = ()
    """Families of prompts. Needed to sample; `thresher filter` brings its own."""
    model: ModelSpec = ModelSpec()
    """The model to draw from."""
    engine: Engine = VllmEngine()
    """What runs the model."""
    sampling: Sampling = Sampling()
    """How completions are drawn."""
    filters: tuple[FilterSpec, ...] = (FilterSpec(name="finished"),)
    """Who stays, in order. Duplicates are told after them."""
    dedupe: DedupeSpec | None = DedupeSpec()
    """Which hits repeat others; null finds none but those of the filters."""
    near_miss: NearMissSpec | None = NearMissSpec()
    """Which misses are near misses; null calls them all misses."""
    dataset: Dataset = Dataset()
    """What is written."""
    publish: PublishSpec = PublishSpec()
    """Where it goes."""
    run: RunSpec = RunSpec()
    """How the run is cut up."""
    executor: ExecutorSpec = LocalExecutorSpec()
    """Where it runs."""
    audit: AuditSpec = AuditSpec()
    """What is done so that the filters can be audited."""

    @model_validator(mode="after")
    def _names_agree(self) -> "Recipe":
        families = [prompts.family for prompts in self.prompts]
        if EVERY_FAMILY in families:
            raise ValueError(
                f"prompts: {EVERY_FAMILY!r} stands for all families together in the audit; give the family another name"
            )
        if len(set(families)) < len(families):
            twice = sorted({family for family in families if families.count(family) > 1})
            raise ValueError(f"prompts: two sets are named {', '.join(twice)}; give each family one name")
        for spec in self.filters:
            unknown = sorted(set(spec.families or ()) - set(families))
            if unknown and families:
                raise ValueError(f"filters: {spec.name} names the family {unknown[0]}, but prompts has only {families}")
        return self
