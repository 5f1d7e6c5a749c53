"""bespokelabs-curator on an OpenAI-compatible endpoint: an LLM with prompt and parse; its dataset is an Arrow file."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

settings: dict[str, Any] = json.loads(sys.argv[1])
os.environ |= {"TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_CACHE": "1", "CURATOR_DISABLE_RICH_DISPLAY": "1"}
os.environ |= {"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
litellm = importlib.util.find_spec("litellm")
if litellm is not None and litellm.origin is not None:  # It contains the token table that curator would download.
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers")

from bespokelabs import curator  # noqa: E402  (reads its environment when it is imported)


class Answers(curator.LLM):  # type: ignore[misc]  # untyped, where it is not installed
    """All choices of a request, a row each; by default curator keeps only the first."""

    return_completions_object = True

    def prompt(self, row: dict[str, Any]) -> str:
        return str(row["instruction"])

    def parse(self, row: dict[str, Any], response: dict[str, Any]) -> list[dict[str, Any]]:
        question = {"instruction": row["instruction"]}
        return [
            {**question, "generation": choice["message"]["content"], "finish_reason": choice["finish_reason"]}
            for choice in response["choices"]
        ]


if __name__ == "__main__":
    rows = [json.loads(line) for line in Path(settings["prompts"]).read_text().splitlines()]
    limits: dict[str, Any] = {"max_requests_per_minute": 10_000_000, "max_tokens_per_minute": 10_000_000_000}
    answers = Answers(
        model_name=settings["model"],
        backend="openai",
        generation_params={"n": settings["samples"], "temperature": 1.0, "max_tokens": settings["max_tokens"]},
        backend_params={
            "base_url": settings["base_url"],
            "max_concurrent_requests": settings["concurrency"],
            "max_retries": 0,
            "invalid_finish_reasons": [],
            **limits,
        },
    )
    answers(rows, working_dir=settings["out"])
