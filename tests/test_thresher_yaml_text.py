"""YAML is read the same way, whatever other libraries do to PyYAML."""

import subprocess
import sys

import pytest
import yaml

from thresher import yaml_text

PROGRAM = """
import datetime, sys, yaml
if sys.argv[1] == "before":
    import lmformatenforcer.external.jsonschemaobjectutil
from thresher import yaml_text
if sys.argv[1] == "after":
    import lmformatenforcer.external.jsonschemaobjectutil
loaders = (yaml.SafeLoader, yaml_text.SafeLoader, yaml_text.FastLoader)
print(*(type(yaml.load("2026-11-30", loader)).__name__ for loader in loaders))
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_date_is_a_date_where_another_library_has_changed_the_loaders(when: str) -> None:
    pytest.importorskip("lmformatenforcer")
    done = subprocess.run([sys.executable, "-c", PROGRAM, when], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["str", "date", "date"]


@pytest.mark.parametrize("text", ["2026-99-99", "[" * 5000, "a: [b", "a: 1\nb\n"])
def test_text_that_is_no_yaml_is_one_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        yaml_text.load(text)
