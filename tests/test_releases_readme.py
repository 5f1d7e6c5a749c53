"""The README of a repository: text that a person wrote is kept."""

import yaml

from schemas.release import RepositoryManifest
from thresher.releases.readme import END, readme


def test_text_below_the_generated_card_is_kept() -> None:
    made = "---\nlicense: mit\nconfigs: []\n---\n\n# Sums\n\nNew words.\n"
    manifest = RepositoryManifest(columns={}, releases=(), changes=("v2: added", "v1: added"))
    matter = "license: apache-2.0\nextra_gated_prompt: Say why.\n"
    old = f"---\n{matter}---\n# Sums\n\nOld words.\n\n{END}\n\n## Known faults\n\nNone.\n"

    text = readme(made, manifest, old)

    matter, body = text.split("---\n")[1:3]
    assert yaml.safe_load(matter) == {"license": "mit", "configs": [], "extra_gated_prompt": "Say why."}
    assert "New words." in body
    assert "Old words." not in body
    assert body.endswith(f"### Changes\n\n- v2: added\n- v1: added\n\n{END}\n## Known faults\n\nNone.\n")
    assert readme(made, manifest, text) == text
    theirs = "---\nviewer: false\n---\n# Mine\n\nBefore thresher came.\n"
    first = readme(made, manifest, theirs)
    assert first.endswith(f"{END}\n# Mine\n\nBefore thresher came.\n")
    assert yaml.safe_load(first.split("---\n")[1])["viewer"] is False
    unmarked = text.replace(END, "")
    assert readme(unmarked, manifest, unmarked).count("New words.") == 1
