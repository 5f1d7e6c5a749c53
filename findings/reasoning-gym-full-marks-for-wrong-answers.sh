#!/usr/bin/env bash
# reasoning-gym 0.1.25: scorers of several families give full marks to answers that are wrong.
#
# Expected: score_answer gives 1.0 to the gold answer and to others that are right, and less to a wrong one.
# Happens: coin_flip takes "0" for 0.3125; complex_arithmetic takes "nan" for any number; gsm_symbolic takes an answer with the sign
#   flipped; number_sorting takes a list in which a number is 0.9 larger; word_sorting takes the list with a word more at its end.
# Hurts: a policy is rewarded for these answers, and a dataset of "verified" samples holds them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3.11 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install -qq --disable-pip-version-check reasoning-gym==0.1.25 2>"$work/pip" || {
        cat "$work/pip" >&2
        exit 1
    }
fi

"$python" -W ignore - 2>"$work/stderr" <<'PY' || { status=$?; tail -n 5 "$work/stderr" >&2; exit "$status"; }
import ast
import sys

import reasoning_gym


def larger(answer):
    numbers = ast.literal_eval(answer)
    return str([str(round(float(numbers[0]) + 0.9, 2)), *numbers[1:]])


WRONG = {
    "coin_flip": lambda answer: "0",
    "complex_arithmetic": lambda answer: "nan",
    "gsm_symbolic": lambda answer: f"-{answer}",
    "number_sorting": larger,
    "word_sorting": lambda answer: f"{answer}, zebra",
}
changed = []
for family, spoil in WRONG.items():
    dataset = reasoning_gym.create_dataset(family, size=1, seed=1)
    item = dataset[0]
    wrong = spoil(item["answer"])
    scores = [dataset.score_answer(answer, item) for answer in (item["answer"], wrong)]
    print(f"{family:20} gold {item['answer'][:44]!r}: {scores[0]}; {wrong[:52]!r}: {scores[1]}")
    if scores != [1.0, 1.0] or wrong == item["answer"]:
        changed.append(family)
if changed:
    sys.exit(f"Changed: {', '.join(changed)}.")
print("As described: wrong answers get full marks.")
PY
