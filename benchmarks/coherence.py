"""How many of six corruptions `coherence` and `coherence_model` find, and how often they flag clean paragraphs, by kind.

python benchmarks/coherence.py [model] [--corrupted N] [--part test|calibrate]

The paragraphs are those of coherence_corpus.py: 2,000 clean ones, and N (default 200) of each corruption. With `model` the
embedded SmolLM2-135M reads them with vLLM (about 4 minutes on two cores). Intervals are Wilson's, 95 %. The last table is the
seed text: what a model wrote at temperature 1, as far as it is on record, in sentences made for it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import coherence_corpus
import pyarrow as pa
import verifiers

import filters
from filters.tools import Tools
from schemas.engines import VllmEngine
from thresher.estimators.intervals import wilson
from thresher.judging.model_engines import ModelEngines

SEED = {
    "noise": 'The next thing that we have to look at is the thhhhsYV"Cp!}"=OEtm! of the people who live in these towns.',
    "beginning of a word cut": (
        "If nobody acts, the problem will become much worse rious social goals will never be reached by this government."
    ),
    "glued word": "Most people want to decide what is best for their ownYou're free to choose how you spend the day.",
    "case flip": "Solar panels on the roof are a good way to support the generatiOn of clean power for the whole street.",
    "end of a word cut": (
        "Wash the apples and cut them into pieces. Put anot is for the people who do not like their cake too sweet."
    ),
    "inserted passage": (
        "You can find more on this in the [report](https://www.qzkwhdtrv.xyz/Zk3vbQ9xLw?aff=482913) of the town, which came "
        "out last year."
    ),
}
"""The six corruptions of the seed text. Its words around them are not on record; the others are ours."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", nargs="?", choices=("model",), help="measure coherence_model too")
    parser.add_argument("--corrupted", type=int, default=200, help="paragraphs of each corruption")
    parser.add_argument("--part", choices=("test", "calibrate"), default="test")
    options = parser.parse_args(arguments)
    clean = [(kind, text) for kind, texts in coherence_corpus.paragraphs(options.part).items() for text in texts]
    corrupted = [(kind, text) for kind, _, text in coherence_corpus.corruptions(options.part, options.corrupted)]
    with ModelEngines() as engines, Tools(base=Path(), models=engines) as tools:
        for name in ("coherence", *(["coherence_model"] if options.model else [])):
            parameters = {"engine": engine().model_dump(mode="json")} if name == "coherence_model" else {}
            built = filters.build(name, parameters, tools)
            found, alarms, seed = (reasons(built, [text for _, text in rows]) for rows in (corrupted, clean, list(SEED.items())))
            print(f"== {name}: {len(clean):,} clean paragraphs, {len(corrupted):,} corrupted ones")
            verifiers.table(shares("corruption", "found", [kind for kind, _ in corrupted], found))
            verifiers.table(shares("clean", "flagged", [*(kind for kind, _ in clean), *["all"] * len(clean)], [*alarms, *alarms]))
            verifiers.table([{"seed text": kind, "reason": why or "-"} for kind, why in zip(SEED, seed, strict=True)])
    return 0


def engine() -> VllmEngine:
    """Settings for a machine without a GPU."""
    return VllmEngine(max_model_len=2048, enforce_eager=True, kv_cache_gib=2)


def reasons(built: Any, texts: list[str]) -> list[str]:
    """The reason for which a filter drops each text; empty for a kept one."""
    table = cast("pa.Table", built.judge(pa.table({"completion": texts})))
    return cast("list[str]", table["reason"].to_pylist())


def shares(label: str, verb: str, kinds: list[str], whys: list[str]) -> list[dict[str, Any]]:
    """A row for each kind: how many texts, the share with a reason, and its interval, in percent."""
    rows = []
    for kind in dict.fromkeys(kinds):
        hits = [bool(why) for of, why in zip(kinds, whys, strict=True) if of == kind]
        low, high = wilson(sum(hits) / len(hits), len(hits))
        share = f"{100 * sum(hits) / len(hits):.2f} ({100 * low:.2f} to {100 * high:.2f})"
        rows.append({label: kind, "paragraphs": len(hits), verb: sum(hits), "%": share})
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
