"""Makes a model that thinks: the embedded one, with <think> and </think> as tokens and a template that opens the thinking."""

from pathlib import Path
from typing import Any

from thresher.inputs.models import Model, embedded_model, resolve

MARKS = ("<think>", "</think>")
_ANSWER = "{{ '<|im_start|>assistant\n' }}"
_OPENS = "{% if enable_thinking is not defined or enable_thinking %}{{ '<think>\n' }}{% endif %}"


def thinking_model(folder: Path) -> Model:
    """Write the model to a folder. It opens its thinking in the prompt, unless the argument enable_thinking is false. The mark at
    the end is about as likely as a full stop, so that it sometimes closes its thinking by itself."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = embedded_model().path
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer.add_tokens(list(MARKS), special_tokens=True)
    tokenizer.chat_template = tokenizer.chat_template.replace(_ANSWER, _ANSWER + _OPENS)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = model.get_input_embeddings().weight.data
    for mark, like in zip(MARKS, ("\n", "."), strict=True):
        [number], [source] = tokenizer.encode(mark), tokenizer.encode(like)
        rows[number] = rows[source]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return resolve(str(folder), None, base=folder)
