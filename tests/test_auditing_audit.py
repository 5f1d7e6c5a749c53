"""The result of an audit as JSON, and as an error."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.small_run import small_run
from thresher.auditing.audit import Audit, check
from thresher.auditing.count_run import count
from thresher.errors import AuditError


def test_an_audit_is_json_with_the_names_of_its_fields(tmp_path: Path) -> None:
    document = count(small_run(tmp_path)).to_dict()

    assert list(document) == list(Audit.__dataclass_fields__)
    assert json.loads(json.dumps(document)) == document


def test_problems_are_an_error_and_calibration_faults_if_asked_for(tmp_path: Path) -> None:
    audit = count(small_run(tmp_path))
    check(audit, calibration=True)

    with pytest.raises(AuditError, match=r"the audit found 1 problem\(s\):\n  something is missing"):
        check(replace(audit, problems=("something is missing",)))
    faulty = replace(audit, calibration_faults=("not the model's own distribution",))
    check(faulty)
    with pytest.raises(AuditError, match="not the model's own distribution"):
        check(faulty, calibration=True)
