"""Fine-tunes a model with TRL, in a process of its own: `python -m thresher.study.training.trl_trainer JOB.json`.

thresher.study.training.train writes the job and starts the process.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def main(path: str) -> None:
    """Run the job in the file `path`, save model and tokenizer to job["out"], and print the log of the training as JSON."""
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    disable_progress_bars()
    job: dict[str, Any] = json.loads(Path(path).read_text())
    gpu = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(job["model"], trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], trust_remote_code=False, dtype=torch.bfloat16 if gpu else torch.float32
    )
    # Several rows of a batch may belong to one prompt; only the seed decides which rows share a batch.
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "output_dir": folder, "max_steps": job["steps"], "per_device_train_batch_size": job["batch"], "seed": 0,
            "learning_rate": job["rate"], "lr_scheduler_type": "cosine", "warmup_steps": job["steps"] // 10,
            "use_cpu": not gpu, "bf16": gpu, "gradient_checkpointing": False, "logging_steps": 5, "report_to": [],
            "save_strategy": "no", "disable_tqdm": True,
        }  # fmt: skip
        rows = Dataset.from_parquet(job["rows"], cache_dir=folder)
        rows = rows.select_columns(["prompt", "completion"] if job["kind"] == "sft" else ["prompt", "chosen", "rejected"])
        arguments = {"model": model, "processing_class": tokenizer, "train_dataset": rows}
        trainer = (
            SFTTrainer(args=SFTConfig(**common), **arguments)
            if job["kind"] == "sft"
            else DPOTrainer(args=DPOConfig(**common, beta=job["beta"]), **arguments)
        )
        trainer.train()
        trainer.model.to(torch.bfloat16).save_pretrained(job["out"])
        tokenizer.save_pretrained(job["out"])
        print(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    main(sys.argv[1])
