"""Zygotes: started in a layer, ended with all that they started, and an error that quotes the machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from filters.sandbox import Job, Limits, bubblewrap
from filters.sandbox.jobs import ran
from filters.sandbox.launch import Layer, StartError, Zygote, descendants


def test_a_zygote_runs_jobs_until_it_is_killed(layer: Layer) -> None:
    zygote = Zygote(layer, Limits())
    job = Job("import os", ("6 * 7",))
    answer = ran(job, *zygote.ask(5.0, False, job.message(), b"", 10.0))
    pids = {zygote.process.pid, *descendants(zygote.process.pid)}
    zygote.kill()

    assert answer.frames[0].value == 42
    assert zygote.served == 1
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_a_zygote_serves_many_jobs(layer: Layer) -> None:
    """The process ids of its supervisors pass 256, whose low byte is 0; under Landlock they are the machine's."""
    if layer.name != "bwrap":
        pytest.skip("no process ids of its own")
    zygote = Zygote(layer, Limits())
    message = Job("", ("1",)).message()
    heads = [zygote.ask(5.0, False, message, b"", 10.0)[0]["end"] for _ in range(270)]
    zygote.kill()

    assert set(heads) == {"exit"}


def test_a_layer_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the output of the program, or how its channel broke."""
    monkeypatch.setattr(bubblewrap, "_reachable", lambda path, uid: path)

    with pytest.raises(StartError, match=r"bwrap \(/bin/false, of this system\): "):
        Zygote(Layer("bwrap", "/bin/false"), Limits())


def test_descendants_are_found_through_several_generations() -> None:
    program = "import subprocess, sys\nsubprocess.run(['sleep', '60'])"
    with subprocess.Popen([sys.executable, "-c", f"import os\nif os.fork(): os.wait()\nelse: exec({program!r})"]) as process:
        below: set[int] = set()
        while len(below) < 2 and process.poll() is None:
            below = descendants(process.pid)
        names = sorted(Path(f"/proc/{pid}/comm").read_text().strip()[:6] for pid in below)
        for pid in [process.pid, *below]:
            subprocess.run(["kill", "-9", str(pid)], check=False)

    assert len(names) == 2
