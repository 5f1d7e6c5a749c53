"""Trains a tiny Llama for two steps on views, as published: python tests/helpers/train_two_steps.py DATASET VIEW..."""

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
    if view == "sft":
        return SFTTrainer(args=SFTConfig(**common), **given)
    if view == "preference":
        return DPOTrainer(args=DPOConfig(**common), **given)
    if view == "unpaired":
        return KTOTrainer(args=KTOConfig(**common), **given)
    config = GRPOConfig(**common, num_generations=2, max_completion_length=4)
    return GRPOTrainer(args=config, reward_funcs=length, **given)


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
