"""Writes the demo's prompts: four small task families, 16 prompts each. `--check` fails when the files are stale.

python data/prompts/make.py
"""

import json
import sys
from pathlib import Path
from typing import Any

WORDS = "apple|planet|bottle|silver|orange|red|blue|dog|sun|moon|hello|tree|book|green|car|window"

CAPITALS = (
    "France Paris|Germany Berlin|Italy Rome|Spain Madrid|Portugal Lisbon|Greece Athens|Japan Tokyo|China Beijing|Russia Moscow|"
    "Egypt Cairo|Poland Warsaw|Austria Vienna|Cuba Havana|Ireland Dublin|Sweden Stockholm|Kenya Nairobi"
)

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
]  # fmt: skip
ASKED = [*DAYS[1:], *MONTHS[:2], *MONTHS[3:-1]]
"""All but the two of the worked examples, and December."""

PEOPLE = (
    "Anna 31 Paris|Tom 24 London|Maria 45 Madrid|John 52 Boston|Emma 19 Berlin|Lucas 37 Rome|Sara 28 Oslo|David 63 Chicago|"
    "Julia 22 Vienna|Peter 41 Dublin|Nina 35 Prague|Mark 58 Denver|Laura 26 Milan|James 33 Sydney|Clara 47 Lisbon|Paul 29 Dallas"
)


def families() -> dict[str, list[dict[str, Any]]]:
    """File name without its ending to rows."""
    after = {name: cycle[(at + 1) % len(cycle)] for cycle in (DAYS, MONTHS) for at, name in enumerate(cycle)}
    people = [dict(zip(("name", "age", "city"), one.split(), strict=True)) for one in PEOPLE.split("|")]
    return {
        "upper": [{"text": text, "answer": text.upper()} for text in WORDS.split("|")],
        "capital": [dict(zip(("country", "answer"), pair.split(), strict=True)) for pair in CAPITALS.split("|")],
        "next": [{"kind": "day" if name in DAYS else "month", "name": name, "answer": after[name]} for name in ASKED],
        "json_record": [{**one, "answer": {**one, "age": int(one["age"])}} for one in people],
    }


def main() -> int:
    stale = []
    for name, rows in families().items():
        path = Path(__file__).with_name(f"{name}.jsonl")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(text, "utf-8")
    for path in stale:
        print(f"{path} {'is stale; run this script' if '--check' in sys.argv else 'written'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
