"""Write docs/reasoning-gym.md: what the scorer of every family of reasoning-gym does, tried on the installed version.

    python docs/make_reasoning_gym.py [--items 20] [--seconds 20]

Each family is tried in a process of its own, which is ended after --seconds for each of its two parts: the scorer, and
1,000 items.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from filters.reasoning_gym import EVALUATING, NONSENSE, UNSTABLE, spoilt  # noqa: E402

PAGE = ROOT / "docs" / "reasoning-gym.md"
REPEATED = 1_000
HEAD = """# Families of reasoning-gym

Measured with reasoning-gym {version} by docs/make_reasoning_gym.py, on {items} items of each, within {seconds:g} s each.

- **gold**: share of items whose own answer gets full marks; 0% where items have no answer of their own, only a scorer.
- **nonsense**: share of items whose scorer refuses an empty text, `I do not know`, the question, and the answer of another item
  (unless it is the same answer). The filter `reasoning_gym` shows a scorer the first three before it is believed; where it gives
  them full marks, the verdict is `bad_reference`, or the answer is compared with the item's if that is True, False, yes or no.
- **spoilt**: share of items whose scorer refuses another number, the sign turned, a word more, a negation and the first half of
  the right answer. Where it does not, the filter keeps the item's own answer only, as a text or as a number, and others that get
  full marks are `unverifiable`.
- **free text**: score of `The answer is X.` with the right X, as a mean. The filter wants full marks, and shows a
  scorer the answer also without a full stop, bold, a box or tags; the right answer among other words is `unparsed`.
- **raises**: whether the scorer raises an error for a text that it cannot read; then the verdict is `unparsed`.
- **repeats**: items among {repeated:,} whose question occurred before (seed 0, default configuration).
- **ms**: milliseconds in which the scorer judges the item's own answer.

| family | gold | nonsense | spoilt | free text | raises | repeats | ms | the filter |
|---|---|---|---|---|---|---|---|---|
"""


def scored(name: str, items: int) -> dict[str, Any]:
    """What the scorer of a family does."""
    import reasoning_gym

    dataset = reasoning_gym.create_dataset(name, seed=0, size=items)
    entries = [dataset[index] for index in range(items)]
    gold, refused, firm, free, raises, seconds = 0, 0, 0, 0.0, False, 0.0
    for place, entry in enumerate(entries):
        started = time.perf_counter()
        gold += dataset.score_answer(entry["answer"], entry) >= 1
        seconds += time.perf_counter() - started
        other = str(entries[place - 1]["answer"])
        texts = [text for text in (*NONSENSE, entry["question"], other) if text != str(entry["answer"])]
        marks = 0.0
        for text in texts:
            try:
                marks = max(marks, float(dataset.score_answer(text, entry)))
            except Exception:  # noqa: BLE001 - a scorer that raises gives no marks
                raises = True
        refused += marks < 1
        firm += not any(full_marks(dataset, entry, text) for text in spoilt(str(entry["answer"])))
        with suppress(Exception):
            free += float(dataset.score_answer(f"The answer is {entry['answer']}.", entry))
    return {
        "gold": gold / items, "nonsense": refused / items, "spoilt": firm / items, "free": free / items, "raises": raises,
        "ms": 1000 * seconds / items,
    }  # fmt: skip


def full_marks(dataset: Any, entry: dict[str, Any], text: str) -> bool:
    """Whether a scorer gives full marks to a text."""
    try:
        return bool(dataset.score_answer(text, entry) >= 1)
    except Exception:  # noqa: BLE001 - a scorer that raises gives no marks
        return False


def repeats(name: str, _items: int) -> dict[str, Any]:
    """How many of REPEATED items are repeated."""
    import reasoning_gym

    dataset = reasoning_gym.create_dataset(name, seed=0, size=REPEATED)
    return {"repeats": REPEATED - len({dataset[index]["question"] for index in range(REPEATED)})}


def within(part: Callable[[str, int], dict[str, Any]], name: str, items: int, seconds: float) -> dict[str, Any]:
    """What a part finds in a process of its own; what failed, if it did."""
    receiving, sending = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        try:
            sending.send(part(name, items))
        except Exception as error:  # noqa: BLE001 - the row says so
            sending.send({"failed": type(error).__name__})

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    found = receiving.recv() if receiving.poll(seconds) else {"failed": f"more than {seconds:g} s"}
    process.kill()
    process.join()
    return dict(found)


def row(name: str, items: int, seconds: float) -> str:
    """The row of a family."""
    if name in EVALUATING or name in UNSTABLE:
        why = "refused: its scorer runs answers as code" if name in EVALUATING else "refused: its items cannot be made again"
        return f"| `{name}` | | | | | | | | {why} |"
    found = within(scored, name, items, seconds)
    again = within(repeats, name, items, seconds)
    repeated = again.get("repeats", again.get("failed"))
    if "failed" in found:
        return f"| `{name}` | {found['failed']} | | | | | {repeated} | | |"
    judged = "" if found["spoilt"] == 1 else "believed of the item's own answer only"
    judged = judged if found["nonsense"] == 1 else "its scorer is not believed where it accepts nonsense"
    return (
        f"| `{name}` | {found['gold']:.0%} | {found['nonsense']:.0%} | {found['spoilt']:.0%} | {found['free']:.2f} | "
        f"{'yes' if found['raises'] else 'no'} | {repeated} | {found['ms']:.2g} | {judged} |"
    )


def main() -> int:
    import reasoning_gym

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    names = sorted(reasoning_gym.factory.DATASETS)
    rows = [row(name, asked.items, asked.seconds) for name in names]
    head = HEAD.format(version=version("reasoning-gym"), items=asked.items, seconds=asked.seconds, repeated=REPEATED)
    PAGE.write_text(head + "\n".join(rows) + "\n", "utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}: {len(rows)} families")
    return 0


if __name__ == "__main__":
    sys.exit(main())
