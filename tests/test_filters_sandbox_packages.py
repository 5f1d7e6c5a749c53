"""Packages inside the sandbox: those that are named, and no others."""

import shutil
import tempfile
from importlib.metadata import PackagePath, distribution
from pathlib import Path

import pytest

from filters.sandbox import Job, Limits, NoPackageError, Sandbox, packages
from filters.sandbox.jobs import Ran, ran
from filters.sandbox.launch import Layer, Zygote


def run_with(layer: Layer, names: tuple[str, ...], program: str, *calls: str) -> Ran:
    zygote = Zygote(layer, Limits(), packages.shown(names))
    job = Job(program, calls)
    try:
        return ran(job, *zygote.ask(10.0, False, job.message(), b"", 10.0))
    finally:
        zygote.kill()


@pytest.mark.slow
def test_named_packages_can_be_imported_and_no_others(layer: Layer) -> None:
    answer = run_with(
        layer,
        ("numpy", "pandas"),
        "import numpy as np, pandas as pd, dateutil",
        "np.arange(3).sum().item()",
        "pd.DataFrame({'a': [1, 3]})['a'].mean().item()",
        "__import__('pyarrow')",
        "open(np.__file__, 'a')",
        "np.linalg.det(np.eye(300)).item()",
    )

    assert [frame.value for frame in answer.frames if frame.raised is None] == [3, 2.0, 1.0]
    assert answer.frames[2].raised == ("ModuleNotFoundError", "No module named 'pyarrow'")
    assert answer.frames[3].raised is not None and answer.frames[3].raised[0] in ("OSError", "PermissionError")


@pytest.mark.slow
def test_packages_count_in_the_memory_of_a_program(layer: Layer) -> None:
    answer = run_with(layer, ("numpy",), "import numpy as np", "np.ones(1 << 27).sum().item()", "np.ones(1 << 20).sum().item()")

    assert answer.frames[0].raised is not None and "MemoryError" in answer.frames[0].raised[0]
    assert answer.frames[1].value == 1 << 20


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(NoPackageError, match=r"packages: no-such-thing is not installed; pip install no-such-thing"):
        packages.installed(("numpy", "no-such-thing"))


def test_modules_are_those_of_the_packages_and_of_what_they_require() -> None:
    assert {"pandas", "numpy", "dateutil", "six"} <= packages.modules(["pandas"])
    assert "pyarrow" not in packages.modules(["pandas"])


def test_versions_are_those_of_the_names_given() -> None:
    assert packages.installed(("NumPy",)) == {"NumPy": distribution("numpy").version}


def test_a_copy_is_made_once_and_only_its_owner_can_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    packages.shown.cache_clear()
    first = Path(packages.shown(("six",)).folder)
    before = first.stat().st_mtime_ns
    packages.shown.cache_clear()
    second = Path(packages.shown(("six",)).folder)
    packages.shown.cache_clear()

    assert first == second and second.stat().st_mtime_ns == before
    assert (first / "six.py").read_text() == Path(str(distribution("six").locate_file(PackagePath("six.py")))).read_text()
    assert not [path for path in first.rglob("*") if path.stat().st_mode & 0o022]
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    shutil.rmtree(first)


@pytest.mark.slow
def test_programs_with_and_without_packages_run_in_one_sandbox() -> None:
    program = Job("import six", ("six.PY3",))
    with Sandbox(1) as sandbox:
        [without] = sandbox.run([program])
        [with_six] = sandbox.run([program], ("six",))
        pids = sandbox.pids()

    assert without.failed == ("ModuleNotFoundError", "No module named 'six'")
    assert with_six.frames[0].value is True
    assert pids and not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
