"""Tokens per second of thresher (sampling, filtering, writing) as a share of bare `LLM.generate` on the same prompts.

    .venv/bin/python benchmarks/engine_share.py [--rounds 3] [--recipe data/recipes/demo.yaml] [--set prompts.0.limit=4]

Both engines are warm and live in this process; rounds alternate, each on the same prompts with the same parameters, and
medians are compared. Start-up is left out of both.
Three shares are printed: against LLM.generate with the log-probabilities that thresher
records, against LLM.generate without any, and what recording them costs the bare engine.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from thresher import recipes, steps
from thresher.executors.local import LocalExecutor
from thresher.progress import Progress
from thresher.prompts import prompts_of
from thresher.samplers import open_sampler
from thresher.samplers.base import anchor_parameters, draw_parameters
from thresher.samplers.vllm_offline import _dtype, _environment
from thresher.store import Store


def bare_round(llm: Any, prompts: list[list[int]], begun: steps.Begun, logprobs: int | None) -> float:
    """Tokens per second of one call of LLM.generate over all prompts, samples and anchors."""
    from vllm import SamplingParams, TokensPrompt

    sampling = begun.recipe.sampling
    kinds = [SamplingParams(n=sampling.samples_per_prompt, logprobs=logprobs, **draw_parameters(sampling))]
    if sampling.anchor:
        kinds.append(SamplingParams(n=1, logprobs=logprobs, **anchor_parameters(sampling)))
    requests = [(TokensPrompt(prompt_token_ids=prompt), kind) for prompt in prompts for kind in kinds]
    began = time.perf_counter()
    outputs = llm.generate([prompt for prompt, _ in requests], [kind for _, kind in requests], use_tqdm=False)
    tokens = sum(len(completion.token_ids) for output in outputs for completion in output.outputs)
    return tokens / (time.perf_counter() - began)


def thresher_round(loaded: recipes.Loaded, sampler: Any, executor: LocalExecutor, out: Path) -> float:
    """Tokens per second of one whole run: plan read, samples drawn and written, filters, audit and dataset."""
    shutil.rmtree(out, ignore_errors=True)
    begun = steps.begin(loaded, out)
    began = time.perf_counter()
    progress = Progress()
    steps.through(begun, sampler, progress, executor, winnow=lambda shard: executor.apart(steps.winnow_shard, begun.root, shard))
    steps.winnow_corpus(begun.root)
    seconds = time.perf_counter() - began
    steps.release(begun.root)
    return progress.tokens / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="data/recipes/demo.yaml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    loaded = recipes.load(options.recipe, options.overrides)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        begun = steps.begin(loaded, out)
        assert begun.model is not None
        spec = loaded.recipe.engine
        assert spec.kind == "vllm"
        _environment(spec)
        from vllm import LLM

        named = {name: getattr(spec, name) for name in ("max_model_len", "max_num_seqs") if getattr(spec, name) is not None}
        llm = LLM(
            begun.model.path,
            seed=1,
            generation_config="vllm",
            dtype=_dtype(spec.dtype),
            enforce_eager=spec.enforce_eager,
            **named,
            **spec.options,
        )
        store = Store(out)
        with (
            open_sampler(loaded.recipe, begun.model, base=loaded.base, seed=begun.sampler_seed) as sampler,
            LocalExecutor(loaded.recipe.run.filter_workers) as executor,
        ):
            groups = [g for shard in range(begun.shards) for g in prompts_of(store.read_group("prompts", shard))]
            prompts = [sampler._tokens(steps.Group(0, p.messages, 1, {"max_tokens": 1})) for p in groups]  # type: ignore[attr-defined]
            rates: dict[str, list[float]] = {"thresher": [], "bare with logprobs": [], "bare without": []}
            for _ in range(options.rounds + 1):
                rates["bare with logprobs"].append(bare_round(llm, prompts, begun, 0))
                rates["thresher"].append(thresher_round(loaded, sampler, executor, out))
                rates["bare without"].append(bare_round(llm, prompts, begun, None))
        medians = {name: statistics.median(values[1:]) for name, values in rates.items()}  # the first round warms up
    shares = {
        "thresher / bare with logprobs": medians["thresher"] / medians["bare with logprobs"],
        "thresher / bare without": medians["thresher"] / medians["bare without"],
        "bare with / without logprobs": medians["bare with logprobs"] / medians["bare without"],
    }
    print(json.dumps({"tokens_per_s": medians, "share": shares, "rounds": options.rounds}, indent=1))


if __name__ == "__main__":
    main()
