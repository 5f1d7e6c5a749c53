"""Trains a tiny Llama for two steps on views, as published: python tests/helpers/train_two_steps.py DATASET VIEW..."""

import json
import queue
import sys
import tempfile
from typing import Any

from datasets import disable_progress_bars, load_dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, and one that ends a turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={"</s>": 0, **{letter: 1 + at for at, letter in enumerate(alphabet)}}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def trainer(view: str, dataset: Any, folder: str) -> Any:
    """The trainer of the view, set to two steps of two rows."""
    tokenizer = bytes_tokenizer()
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=0, bos_token_id=0, **shape))
    common = {
        "output_dir": folder, "max_steps": 2, "per_device_train_batch_size": 2, "report_to": [], "use_cpu": True,
        "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "bf16": False, "gradient_checkpointing": False,
    }  # fmt: skip
    model.save_pretrained(f"{folder}/model")  # DPO and KTO load it a second time, as the reference
    given = {"model": f"{folder}/model", "processing_class": tokenizer, "train_dataset": dataset}
    if view == "distill":
        return distillation(dataset, f"{folder}/model", tokenizer, common)
    if view in ("sft", "tokens"):
        return SFTTrainer(args=SFTConfig(**common), **given)
    if view == "preference":
        return DPOTrainer(args=DPOConfig(**common), **given)
    if view == "unpaired":
        return KTOTrainer(args=KTOConfig(**common), **given)
    config = GRPOConfig(**common, num_generations=2, max_completion_length=4)
    return GRPOTrainer(args=config, reward_funcs=length, **given)


def distillation(dataset: Any, model: str, tokenizer: Any, common: dict[str, Any]) -> Any:
    """The trainer whose teacher is the view: its rollout worker hands out rows instead of asking two servers."""
    from trl.experimental.async_distillation import AsyncDistillationConfig, AsyncDistillationTrainer
    from trl.experimental.async_distillation import async_distillation_trainer as module

    module.get_peak_flops_per_device = lambda *_: None  # it names the GPU, for a metric
    attention = {"attn_implementation": "eager"}  # one row at a time: the packed form needs a GPU
    config = AsyncDistillationConfig(
        **{**common, "per_device_train_batch_size": 1, "logging_strategy": "steps"},
        logging_steps=1,
        token_budget=0,
        max_staleness=1_000_000,
        beta=0.0,
        model_init_kwargs=attention,
        teacher_server_urls={"view": "http://127.0.0.1:1"},
    )
    return AsyncDistillationTrainer(
        model,
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        rollout_worker=RowsAsRollouts(dataset),
        weight_transfer=NoTransfer(),
    )


class RowsAsRollouts:
    """The rows of the view, each as a scored rollout."""

    def __init__(self, dataset: Any) -> None:
        from trl.experimental.async_distillation.async_rollout_worker import RolloutSample

        self.rollout_buffer: queue.Queue[Any] = queue.Queue()
        self.metrics_queue: queue.Queue[Any] = queue.Queue()
        columns = ["input_ids", "completion_mask", "teacher_topk_ids", "teacher_topk_logprobs"]
        for number, row in enumerate(dataset.with_format("numpy")):
            tensors = {name: row[name] for name in columns}
            sample = RolloutSample(
                prompt=[], completion=[], **tensors, model_version=0, metrics={}, teacher_id="view", prompt_id=number
            )
            self.rollout_buffer.put(sample)

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def update_model_version(self, model_version: int) -> None: ...
    def check_health(self, stale_after_s: float) -> None: ...


class NoTransfer:
    """Nothing serves the student, so its weights go nowhere."""

    def init_weight_transfer(self) -> None: ...
    def pause(self) -> None: ...
    def send_weights(self, iterator: Any) -> None: ...
    def resume(self) -> None: ...
    def destroy(self) -> None: ...


def length(completions: list[Any], **_: Any) -> list[float]:
    """A reward: the length of the answer."""
    return [float(len(one[0]["content"])) for one in completions]


if __name__ == "__main__":
    disable_progress_bars()
    for view in sys.argv[2:]:
        with tempfile.TemporaryDirectory() as folder:
            done = trainer(view, load_dataset(sys.argv[1], view, split="train"), folder)
            done.train()
            print(f"{type(done).__name__}: {done.state.global_step} steps")
            if view == "tokens":
                batch = next(iter(done.get_train_dataloader()))
                print(json.dumps({name: batch[name].tolist() for name in ("input_ids", "labels")}))
            if view == "distill":
                print([entry["loss"] for entry in done.state.log_history if "loss" in entry])
