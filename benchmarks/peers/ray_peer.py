"""Ray Data on an OpenAI-compatible endpoint: map_batches over an actor with an async client, written as Parquet."""

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

settings: dict[str, Any] = json.loads(sys.argv[1])
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_DEDUP_LOGS": "0"}

import ray  # noqa: E402  (reads its environment when it is imported)


def request_of(instruction: str) -> dict[str, Any]:
    return {
        "model": settings["model"],
        "messages": [{"role": "user", "content": instruction}],
        "n": settings["samples"],
        "temperature": 1.0,
        "max_tokens": settings["max_tokens"],
    }


def by_stage(rows: ray.data.Dataset) -> ray.data.Dataset:
    """The HTTP stage of ray.data.llm; a row holds all choices of its prompt."""
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    config = HttpRequestProcessorConfig(
        url=settings["base_url"] + "/chat/completions", batch_size=settings["batch_size"], concurrency=1
    )
    processor = build_processor(
        config,
        preprocess=lambda row: {"payload": request_of(row["instruction"]), "instruction": row["instruction"]},
        postprocess=lambda row: {
            "instruction": row["instruction"],
            "generation": [choice["message"]["content"] for choice in row["http_response"]["choices"]],
            "finish_reason": [choice["finish_reason"] for choice in row["http_response"]["choices"]],
        },
    )
    return processor(rows)


class Answers:
    """The choices of every prompt of a batch, a row each."""

    def __init__(self) -> None:
        self.client: Any = None
        self.room = asyncio.Semaphore(settings["concurrency"])

    def connect(self) -> Any:
        if settings["client"] == "openai":
            from openai import AsyncOpenAI

            return AsyncOpenAI(base_url=settings["base_url"], api_key="none", max_retries=0)
        if settings["client"] == "httpx":
            import httpx

            return httpx.AsyncClient(base_url=settings["base_url"], timeout=600)
        import aiohttp

        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def ask(self, instruction: str) -> list[tuple[str, str]]:
        fields = request_of(instruction)
        async with self.room:
            if settings["client"] == "openai":
                answer = await self.client.chat.completions.create(**fields)
                return [(choice.message.content, choice.finish_reason) for choice in answer.choices]
            if settings["client"] == "httpx":
                body = (await self.client.post("/chat/completions", json=fields)).raise_for_status().json()
            else:
                async with self.client.post(settings["base_url"] + "/chat/completions", json=fields) as response:
                    response.raise_for_status()
                    body = await response.json()
        return [(choice["message"]["content"], choice["finish_reason"]) for choice in body["choices"]]

    async def __call__(self, batch: dict[str, Any]) -> Any:
        self.client = self.client or self.connect()  # An event loop runs here.
        answers = await asyncio.gather(*(self.ask(instruction) for instruction in batch["instruction"]))
        yield {
            "instruction": [
                instruction for instruction, choices in zip(batch["instruction"], answers, strict=True) for _ in choices
            ],
            "generation": [text for choices in answers for text, _ in choices],
            "finish_reason": [reason for choices in answers for _, reason in choices],
        }


if __name__ == "__main__":
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = ray.data.read_json(settings["prompts"], lines=True)
    if settings["client"] == "ray.data.llm":
        answers = by_stage(rows)
    else:
        answers = rows.map_batches(Answers, batch_size=settings["batch_size"], concurrency=1, max_concurrency=settings["batches"])
    answers.write_parquet(str(Path(settings["out"]) / "dataset"))
