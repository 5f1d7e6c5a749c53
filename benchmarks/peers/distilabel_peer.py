"""distilabel on an OpenAI-compatible endpoint: LoadDataFromDicts >> TextGeneration(OpenAILLM), saved as an Arrow dataset."""

import json
import os
import sys
from pathlib import Path
from typing import Any

settings: dict[str, Any] = json.loads(sys.argv[1])
os.environ["DISTILABEL_LOG_LEVEL"] = "ERROR"

if __name__ == "__main__":  # Its steps are processes that import this file.
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    rows = [json.loads(line) for line in Path(settings["prompts"]).read_text().splitlines()]
    out = Path(settings["out"])
    with Pipeline("null", cache_dir=out / "cache") as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=settings["batch_size"])
        generate = TextGeneration(
            llm=OpenAILLM(
                model=settings["model"],
                base_url=settings["base_url"],
                api_key="none",
                generation_kwargs={"temperature": 1.0, "max_new_tokens": settings["max_tokens"]},
            ),
            input_batch_size=settings["batch_size"],
            num_generations=settings["samples"],
            group_generations=True,
            add_raw_input=False,
            add_raw_output=False,
        )
        load >> generate
    distiset = pipeline.run(use_cache=False)
    distiset.save_to_disk(out / "dataset", save_card=False, save_pipeline_config=False, save_pipeline_log=False)
