"""Writes LoRA adapters in PEFT's format, with random matrices."""

import json
from pathlib import Path
from typing import Any

import numpy as np

OUTPUTS = {"q_proj": 576, "v_proj": 192}
"""Outputs of the modules of SmolLM2-135M that the adapters change; their inputs are 576 numbers."""
ALPHA = 16


def write_adapter(
    folder: Path, *, layers: int = 30, inputs: int = 576, rank: int = 8, seed: int = 0, **config: Any
) -> dict[str, np.ndarray[Any, Any]]:
    """Write an adapter of q_proj and v_proj; returns its matrices by name. `config` changes adapter_config.json."""
    from safetensors.numpy import save_file

    draw = np.random.default_rng(seed)
    matrices = {}
    for layer in range(layers):
        for module, outputs in OUTPUTS.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            matrices[f"{name}.lora_A.weight"] = draw.normal(0, 0.05, (rank, inputs)).astype(np.float32)
            matrices[f"{name}.lora_B.weight"] = draw.normal(0, 0.05, (outputs, rank)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(matrices, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
    }
    settings |= {"target_modules": list(OUTPUTS), "base_model_name_or_path": "/home/me/smollm2", "use_dora": False, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return matrices


def write_model(folder: Path, *, layers: int = 2, hidden: int = 576) -> Path:
    """Write the weights of a tiny Llama with the modules that these adapters change, and nothing else."""
    from safetensors.numpy import save_file

    tensors = {
        f"model.layers.{layer}.self_attn.{module}.weight": np.zeros((outputs, hidden), np.float16)
        for layer in range(layers)
        for module, outputs in OUTPUTS.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return folder
