"""Tokens per second of thresher (sampling, journal, filters, pool) as a share of bare `LLM.generate` on the same prompts.

    .venv/bin/python benchmarks/engine_share.py [--rounds 3] [--recipe data/recipes/demo.yaml] [--set prompts.0.limit=4]

Both engines are warm and in this process. Rounds alternate, with the same prompts and parameters, and medians are compared. The
start and the dataset are not measured. The output has thresher's share of LLM.generate with the log-probabilities that it
records; separately what recording them costs the bare engine; and what it costs thresher to calibrate every token of a round. A
run calibrates only the first tokens of each start of the engine (thresher.estimators.calibration.STANDARD_ERROR).
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __name__ == "__main__":  # vLLM's workers import this file too, and fail where numba is loaded.
    from thresher.estimators.calibration import Quota
    from thresher.executors.local import LocalEngine, LocalExecutor
    from thresher.inputs import recipe_file
    from thresher.pool.store import Store
    from thresher.running import steps
    from thresher.running.progress import Progress
    from thresher.running.warm_engine import Warm, note_start
    from thresher.samplers.sampler import anchor_parameters, draw_parameters
    from thresher.samplers.vllm_offline import VllmSampler
    from thresher.samplers.vllm_process import dtype_for, set_environment


def bare_round(llm: Any, prompts: list[list[int]], begun: "steps.Begun", logprobs: int | None) -> float:
    """Tokens per second of one call of LLM.generate over all prompts, samples and anchors."""
    from vllm import SamplingParams, TokensPrompt

    sampling = begun.run.recipe.sampling
    flat = logprobs is not None
    kinds = [
        SamplingParams(
            n=sampling.samples_per_prompt, logprobs=logprobs, flat_logprobs=flat, **draw_parameters(sampling, temperature)
        )
        for temperature in sampling.temperatures
    ]
    if sampling.anchor:
        kinds.append(SamplingParams(n=1, logprobs=logprobs, flat_logprobs=flat, **anchor_parameters(sampling)))
    requests = [(TokensPrompt(prompt_token_ids=prompt), kind) for prompt in prompts for kind in kinds]
    start = time.perf_counter()
    outputs = llm.generate([prompt for prompt, _ in requests], [kind for _, kind in requests], use_tqdm=False)
    tokens = sum(len(completion.token_ids) for output in outputs for completion in output.outputs)
    return tokens / (time.perf_counter() - start)


def thresher_round(
    loaded: "recipe_file.Loaded", sampler: "VllmSampler", executor: "LocalExecutor", out: Path, standard_error: float
) -> float:
    """Tokens per second of one run: samples drawn, journalled and written, and filters over samples, prompts and the corpus."""
    shutil.rmtree(out, ignore_errors=True)
    begun = steps.begin(loaded, out)
    sampler.quota = Quota(standard_error)
    progress = Progress()
    engines = LocalEngine(Warm(sampler, progress), executor.call)
    start = time.perf_counter()
    steps.sample_through(begun, engines, steps.Plain(begun.run, progress, executor), progress, executor)
    return progress.tokens / (time.perf_counter() - start)


def prompts_of(out: Path) -> list[list[int]]:
    """The tokens of every prompt, as thresher passed them to the engine."""
    store = Store(out)
    tables = [
        store.read_table(f"samples/{name[:-8]}", ["prompt_id", "prompt_ids"]) for name in store.names("samples", ".parquet")
    ]
    by_prompt = {row["prompt_id"]: row["prompt_ids"] for table in tables for row in table.to_pylist()}
    return list(by_prompt.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="data/recipes/demo.yaml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    loaded = recipe_file.load(options.recipe, options.overrides)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        begun = steps.begin(loaded, out)
        model = begun.run.model
        assert model is not None
        spec = loaded.recipe.engine
        assert spec.kind == "vllm"
        set_environment(spec)
        from vllm import LLM

        settings = {name: getattr(spec, name) for name in ("max_model_len", "max_num_seqs") if getattr(spec, name) is not None}
        llm = LLM(
            model.path,
            seed=1,
            generation_config="vllm",
            dtype=dtype_for(spec.dtype),
            enforce_eager=spec.enforce_eager,
            **settings,
            **spec.options,
        )
        sampler = VllmSampler(
            spec,
            model,
            prompt_format=loaded.recipe.model.prompt_format,
            quota=Quota(0),
            seeds=loaded.recipe.sampling.seeds,
            start=partial(note_start, begun.run),
        )
        with sampler, LocalExecutor(loaded.recipe.run.filter_workers) as executor:
            thresher_round(loaded, sampler, executor, out, 0)  # Warms up, and yields the prompts.
            prompts = prompts_of(out)
            bare_round(llm, prompts, begun, 0)
            rates: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                for name, rate in (
                    ("bare, logprobs=0", partial(bare_round, llm, prompts, begun, 0)),
                    ("thresher, not calibrated", partial(thresher_round, loaded, sampler, executor, out, 0)),
                    ("bare, no logprobs", partial(bare_round, llm, prompts, begun, None)),
                    ("thresher, all calibrated", partial(thresher_round, loaded, sampler, executor, out, 1e-9)),
                ):
                    rates.setdefault(name, []).append(rate())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    shares = {
        "thresher, not calibrated / bare, logprobs=0": medians["thresher, not calibrated"] / medians["bare, logprobs=0"],
        "bare, logprobs=0 / bare, no logprobs": medians["bare, logprobs=0"] / medians["bare, no logprobs"],
        "thresher, all calibrated / not calibrated": medians["thresher, all calibrated"] / medians["thresher, not calibrated"],
    }
    print(json.dumps({"tokens_per_s": medians, "rounds": rates, "share": shares}, indent=1))


if __name__ == "__main__":
    main()
