"""The model of a recipe, and the engines that run it."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.part import Name, Part


class VllmEngine(Part):
    """vLLM in this process, on a GPU or on a CPU."""

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Precision of the weights; `auto` takes the model's."""
    max_model_len: Annotated[int, Field(ge=16)] | None = None
    """Tokens of the longest prompt plus completion; null takes the model's limit."""
    max_num_seqs: Annotated[int, Field(ge=1)] | None = None
    """Number of sequences that are decoded at the same time; null takes vLLM's default."""
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    """GPUs per model."""
    data_parallel_size: Annotated[int, Field(ge=1)] = 1
    """Copies of the model that one engine runs side by side, each on tensor_parallel_size GPUs of its own. Each decodes
    max_num_seqs sequences, and all of them are kept filled."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the GPU's memory that vLLM uses, from 0 to 1; null takes vLLM's default."""
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory of the key-value cache on a CPU, in GiB; null takes vLLM's default. It has no effect on a GPU."""
    enforce_eager: bool = False
    """Skip graph capture and compilation: the engine starts faster and decodes more slowly on a GPU."""
    tokens_in_flight: Annotated[int, Field(ge=1)] | None = None
    """Most tokens handed to the engine at a time, counted as if every completion became max_tokens long. Null takes 4,194,304, or
    as many as fill the engine if that is more. The engine never holds more than twice the completions that it decodes at the
    same time: max_num_seqs times data_parallel_size."""
    silent_s: Annotated[float, Field(gt=0)] = 600
    """Seconds in which the engine has requests and makes no token, after which it counts as hung: it is ended and started again,
    and its requests are drawn again. Ten minutes are twice as long as vLLM lets one step take, and let a CPU that reads 50 tokens
    per second finish a prompt of 30,000. Lower it where prompts are short."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's engine, by their own names. `seed` and `generation_config` are set by thresher and refused
    here. Those that load code, such as `trust_remote_code`, need your consent (docs/security.md)."""

    @property
    def devices(self) -> int:
        """GPUs of the engine."""
        return self.tensor_parallel_size * int(self.options.get("data_parallel_size", self.data_parallel_size))


class ReplayEngine(Part):
    """No engine: answers come from a table. For tests, and to try filters without a model."""

    kind: Literal["replay"]
    path: str
    """JSONL or Parquet file, relative to the recipe, with the columns `prompt` (text of the last message) and `completion`. If a
    prompt has fewer rows than samples are drawn, its rows are used again from the first."""


class HttpEngine(Part):
    """One or more OpenAI-compatible servers of one model: `vllm serve` replicas, or a hosted API."""

    kind: Literal["openai_http"]
    base_urls: tuple[Annotated[str, Field(pattern=r"^https?://")], ...] = ()
    """Roots of the servers' APIs, such as http://127.0.0.1:8000/v1. Each must serve `model.name`. A recipe is written to disk, so
    an address with a user name, a key or a query is refused."""
    fleet: str | None = None
    """Instead of base_urls: the file that `thresher fleet` maintains, relative to the recipe, with one address per line. It is
    read again every few seconds, so servers may join and leave during a run."""
    every_address: bool = False
    """Treat every address that a host name resolves to as a server of its own, as for a headless service of Kubernetes. Names are
    resolved again every few seconds, and must belong to http:// addresses."""
    api: Literal["chat", "completions"] = "chat"
    """`chat` sends messages, which the server renders by its own template; `completions` sends plain text, for a base model."""
    api_key_env: str | None = None
    """Name of the environment variable with the key, such as OPENAI_API_KEY. The key itself is never written or logged. For a
    server elsewhere, a name that does not end in API_KEY needs your consent: a recipe of others could name any secret
    (docs/security.md)."""
    extensions: Literal["auto", "vllm", "none"] = "auto"
    """Whether to send vLLM's own fields (top_k, min_p, repetition_penalty, token ids) in addition to OpenAI's; `auto` asks each
    server."""
    check: Literal["models", "completion", "none"] = "models"
    """How a server is greeted: `models` reads its list of models at /models, which must name the model; `completion` asks for one
    short completion, for a server without such a list or whose list lacks the model's alias; `none` asks nothing. Only the list
    tells which model and which server it is; see docs/servers.md."""
    requests_in_flight: Annotated[int, Field(ge=1)] = 256
    """Most requests to one server at a time. The number starts at 8, grows by 1 as answers arrive, and is halved when the server
    refuses or slows down."""
    completions_per_request: Annotated[int, Field(ge=1)] = 32
    """Most completions in one request."""
    connect_timeout_s: Annotated[float, Field(gt=0)] = 10
    """Seconds to wait for a connection. There is no limit on the time of an answer as long as the server responds."""
    silent_s: Annotated[float, Field(gt=0)] = 60
    """Seconds in which a server has requests and shows no work, after which it is left: other servers draw its requests. vLLM
    counts tokens at /metrics, so it is left if it neither makes nor reads a token for that long, whatever else it answers, until
    it makes one again. A server without such counters is asked for its list of models, and left if it does not answer three
    questions of the same duration. Raise it for a server that answers nothing while it generates."""
    give_up_after_s: Annotated[float, Field(gt=0)] = 600
    """Seconds without an answer from any server after which the run ends with an error. Finished work is kept."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request, by the server's own names. Fields that decide what is sampled are set by thresher and
    refused here."""

    @model_validator(mode="after")
    def _addresses_are_plain(self) -> "HttpEngine":
        if bool(self.base_urls) == (self.fleet is not None):
            raise ValueError("wanted base_urls, the servers' addresses, or fleet, the file of `thresher fleet`: one of the two")
        if self.every_address and any(url.startswith("https:") for url in self.base_urls):
            raise ValueError(
                "every_address and an https:// address contradict each other: a certificate belongs to a host name, not to its "
                "addresses; list the servers in base_urls"
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


class Marks(Part):
    """The marks between which a model thinks."""

    start: Annotated[str, Field(min_length=1)]
    """Text that opens the thinking, such as <think>."""
    end: Annotated[str, Field(min_length=1)]
    """Text that closes it, such as </think>."""


class ModelSpec(Part):
    """The model to draw from."""

    name: str = "smollm2-135m-instruct"
    """The embedded `smollm2-135m-instruct`, a directory (relative to the recipe), or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Name a commit for a run that can be repeated."""
    adapter: str | None = None
    """A LoRA adapter of this model to draw with: a directory (relative to the recipe) or a Hub id, `org/name` or
    `org/name@commit`. With servers it is the name under which they serve the adapter, and `name` stays that of its base
    model."""
    prompt_format: Literal["auto", "chat", "text"] = "auto"
    """`chat` renders messages by the model's chat template; `text` joins them by blank lines, for a base model; `auto` takes
    `chat` if the model has a template."""
    reasoning: str | Marks | None = "auto"
    """How reasoning is told from the answer. `auto` takes the marks that the chat template or the tokenizer names, and otherwise
    those in common use, where a completion starts with them; or the name of a reasoning parser of vLLM, or the marks themselves;
    null takes nothing apart. Filters, duplicates and near misses read the answer. See docs/models.md."""
    tool_parser: str | None = None
    """Name of the parser of vLLM that finds tool calls in the completions of this model, such as hermes; null parses none. A
    server parses them itself (--tool-call-parser), so a recipe for a server names none. See docs/models.md."""


class ModelEntry(ModelSpec):
    """One of several models of a recipe: the model, what runs it, and which prompts it answers."""

    engine: Engine | None = None
    """What runs this model; null takes the recipe's engine."""
    families: tuple[Name, ...] | None = None
    """Families of prompts that this model answers; null answers all."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the prompts that this model answers, from 0 to 1; null answers all. The hash of a prompt chooses, so models with
    the same share answer the same prompts, and a larger share only adds prompts."""
