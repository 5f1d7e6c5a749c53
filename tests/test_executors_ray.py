"""The Ray executor on a cluster of two raylets on this machine: the same run as a local one, and lost samples are drawn again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.fake_openai import FakeOpenAI
from helpers.prefect_server import last_flow_run, task_runs
from helpers.small_run import small_run
from schemas.engines import ReplayEngine
from schemas.executors import RayExecutorSpec
from thresher.cli import main
from thresher.errors import EngineError, StoreError
from thresher.executors.ray import RayExecutor, own_sigterm
from thresher.executors.ray_replicas import Replicas
from thresher.inputs import recipe_file
from thresher.pool import judged
from thresher.pool.store import Store
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.running.warm_engine import warm
from thresher.samplers.orphans import command_line, descendants, parent_of, start_time

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),  # Ray leaves files of its sessions open
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]

Write = Callable[..., Path]
DEMO = "data/recipes/demo.yaml"
PROMPTS, SAMPLES = 120, 6
MEMORY = 100 * 2**20


class Nodes:
    """A cluster: a head, and a second raylet that can be removed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": MEMORY, "resources": {"seat": 1}}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self.cluster.address
        self.second: Any = None
        self.grow()

    def grow(self) -> None:
        if self.second is None:
            self.second = self.cluster.add_node(num_cpus=2, object_store_memory=MEMORY, resources={"second": 2, "seat": 1})
            self.cluster.wait_for_nodes()

    def lose(self) -> None:
        """kill -9 of the second raylet."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None


@pytest.fixture(scope="module")
def nodes(s3: str) -> Iterator[Nodes]:
    pytest.importorskip("ray")
    cluster = Nodes()
    yield cluster
    cluster.cluster.shutdown()  # type: ignore[no-untyped-call]  # of ray's tests


def spec(nodes: Nodes, **more: Any) -> RayExecutorSpec:
    return RayExecutorSpec(kind="ray", address=nodes.address, **{"cpus_per_replica": 0.5, **more})


def on_cluster(nodes: Nodes, replicas: int = 2, **more: Any) -> str:
    return f"executor={json.dumps(spec(nodes, replicas=replicas, **more).model_dump())}"


def tables(run: Path | str, folder: str) -> list[dict[str, Any]]:
    store = Store(run)
    return [row for name in store.names(folder, ".json") for row in store.read_table(f"{folder}/{name[:-5]}").to_pylist()]


# -- the same run -----------------------------------------------------------------------------------------------------------


def long_answers(recipe: Write) -> tuple[Path, list[str]]:
    """The small recipe with answers that repeat each other, and changes that enable near misses and find duplicates through
    files."""
    answers = ["an answer that is long enough to be told from others", "another answer, and this one has other words in it"]
    path = recipe(filters=[{"name": "finished"}])
    file = path.with_name("answers.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row | {"completion": answers[number % 2], "finish_reason": "stop"} for number, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, ["run.filter_workers=2", "run.dedupe_gib=0.000001", "dedupe={run_characters: 0, guard: none}", "near_miss={}"]


def test_a_run_on_the_cluster_equals_the_local_one(nodes: Nodes, recipe: Write, tmp_path: Path) -> None:
    """Ids, samples, verdicts, views, plan and counts of a replayed engine. Duplicates are found through files by its workers, and
    prompts of an adaptive budget are judged on filter workers while they are sampled."""
    path, changes = long_answers(recipe)
    changes += ["sampling.target_hits=2", "sampling.max_samples_per_prompt=6"]
    for name, more in {"local": [], "ray": [on_cluster(nodes)]}.items():
        begun = steps.begin(recipe_file.load(path, [*changes, *more]), tmp_path / name)
        with Progress() as progress:
            audit = steps.run_steps(begun, progress).audit
        assert audit.complete
        assert progress.samples == audit.samples + audit.anchors
    same(tmp_path / "local", tmp_path / "ray")
    assert tables(tmp_path / "ray", "corpus")


@pytest.mark.usefixtures("prefect_server")
def test_prefect_sees_one_task_run_per_shard_and_stage_of_a_run_on_the_cluster(
    nodes: Nodes, recipe: Write, tmp_path: Path
) -> None:
    """A local run has the same, and the results are equal."""
    from prefect.client.orchestration import get_client

    from flows.pipeline import pipeline

    names = {}
    for name, more in {"local": [], "ray": [on_cluster(nodes)]}.items():
        pipeline(str(recipe()), more, out=str(tmp_path / name))
        with get_client(sync_client=True) as client:
            flow_run = last_flow_run(client)
            names[name] = task_runs(client, flow_run.id, {"winnow-1", "winnow-corpus", "release"})
    assert names["local"] == names["ray"] == ["release", "sample-0", "sample-1", "winnow-0", "winnow-1", "winnow-corpus"]
    same(tmp_path / "local", tmp_path / "ray")


def same(local: Path, ray: Path) -> None:
    """Assert that samples, verdicts, plan, manifest and views are equal."""
    for folder in ("samples", "verdicts", "corpus"):
        assert tables(local, folder) == tables(ray, folder)
    assert tables(ray, "samples")
    plans = [Store(run).entry("prompts") for run in (local, ray)]
    assert plans[0] == plans[1]
    manifests = [json.loads((run / "run.json").read_text()) for run in (local, ray)]
    assert manifests[0]["sampling_key"] == manifests[1]["sampling_key"]
    for manifest in manifests:
        manifest["recipe"].pop("executor")
        manifest.pop("digest")
    assert manifests[0] == manifests[1]
    views = [{file.relative_to(run): file.read_bytes() for file in (run / "dataset").rglob("*.parquet")} for run in (local, ray)]
    assert views[0] == views[1]
    assert views[0]


def test_a_run_on_s3_grows_from_every_machine(nodes: Nodes, recipe: Write, s3: str, tmp_path: Path) -> None:
    """Actors of two machines write to one bucket, first 4 samples of each prompt and then 6, and see each other's files.
    Duplicates are found by the driver, and then by all machines through a shared folder."""
    path, changes = long_answers(recipe)
    scratch = tmp_path / "scratch"
    for name, root, more in (
        ("local", str(tmp_path / "local"), []),
        ("ray", f"{s3}/alone", [on_cluster(nodes)]),
        ("ray", f"{s3}/shared", [on_cluster(nodes), f"run.scratch={scratch}"]),
    ):
        for samples in (4, 6):
            begun = steps.begin(recipe_file.load(path, [*changes, f"sampling.samples_per_prompt={samples}", *more]), root)
            with Progress() as progress:
                audit = steps.run_steps(begun, progress).audit
            assert audit.complete, name
            assert audit.samples == 4 * samples
    for folder in ("samples", "verdicts", "corpus"):
        assert tables(tmp_path / "local", folder) == tables(f"{s3}/alone", folder) == tables(f"{s3}/shared", folder)
    assert tables(f"{s3}/shared", "corpus")
    assert not list(scratch.iterdir())


def test_a_relative_path_means_the_same_in_every_process(nodes: Nodes, recipe: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """The actors start in another working directory."""
    path = recipe()
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(path), "--out", "here/run", "--no-prefect", "--set", on_cluster(nodes, 1)]) == 0
    assert (tmp_path / "here" / "run" / "dataset" / "README.md").is_file()


# -- lost actors and machines ---------------------------------------------------------------------------------------------


def write_recipe(folder: Path, url: str, executor: dict[str, Any]) -> Path:
    numbers = {"kind": "grid", "fields": {"n": list(range(PROMPTS))}}
    document = {
        "name": "numbers",
        "prompts": [{"family": "numbers", "source": numbers, "template": "Number {{ n }}", "reference": None}],
        "model": {"name": "small"},
        "engine": {"kind": "openai_http", "base_urls": [url], "requests_in_flight": 8},
        "sampling": {"samples_per_prompt": SAMPLES, "max_tokens": 8},
        "run": {"shard_samples": 70, "shards_in_flight": 2},
        "executor": executor,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def assert_complete(run: Path) -> None:
    """Every sample exists once, and there is no journal."""
    sample_ids = [row["sample_id"] for row in tables(run, "samples")]
    assert len(sample_ids) == len(set(sample_ids)) == PROMPTS * (SAMPLES + 1)
    assert not list(run.glob("journal/*"))


class Actors:
    """Records the actors of a run in another thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pools: list[Replicas] = []
        ready = Replicas.ready

        def recorded(replicas: Replicas) -> None:
            self.pools.append(replicas)
            ready(replicas)

        monkeypatch.setattr(Replicas, "ready", recorded)

    def pids(self) -> list[int]:
        return [replica.pid for replica in self.pools[-1].members if replica.slots] if self.pools else []


@contextmanager
def running(path: Path, out: Path, *changes: str) -> Iterator[threading.Thread]:
    """Run in a thread; leaving waits for its end and raises its error."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            begun = steps.begin(recipe_file.load(path, changes), out)
            with Progress() as progress:
                steps.run_steps(begun, progress)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield thread
    thread.join(timeout=400)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    for _ in range(int(seconds * 20)):
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not true after {seconds:g} s")


def test_a_killed_actor_and_raylet_cost_only_the_requests_in_flight(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After kill -9 of an actor, and of the raylet of another, the run completes with few additional requests."""
    actors, out = Actors(monkeypatch), tmp_path / "run"
    with FakeOpenAI(delay_s=0.5) as server:
        executor = spec(nodes, replicas=2, resources_per_replica={}).model_dump()
        with running(write_recipe(tmp_path, server.url, executor), out):
            wait_for(lambda: len(server.bodies) > 20 and len(actors.pids()) == 2)
            lost = actors.pids()[0]
            os.kill(lost, signal.SIGKILL)
            wait_for(lambda: lost not in actors.pids() and len(actors.pids()) == 2)
            nodes.lose()
        asked = len(server.bodies)
    nodes.grow()
    assert_complete(out)
    assert len(actors.pools) == 1
    assert 2 * PROMPTS <= asked <= 2 * PROMPTS + 3 * 8 * 2


def test_a_running_run_is_scaled_up_and_down(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One, then two by `thresher scale`, then one again."""
    actors, out = Actors(monkeypatch), tmp_path / "run"
    with FakeOpenAI(delay_s=1.0) as server, running(write_recipe(tmp_path, server.url, spec(nodes).model_dump()), out):
        wait_for(lambda: len(actors.pids()) == 1 and len(server.bodies) > 8)
        assert main(["scale", str(out), "2"]) == 0
        wait_for(lambda: len(actors.pids()) == 2)
        assert main(["scale", str(out), "1"]) == 0
        wait_for(lambda: len(actors.pids()) == 1)
    assert_complete(out)
    assert main(["scale", str(out), "2"]) == 1
    assert "it is fully sampled and has no engine" in capsys.readouterr().err


def test_a_killed_driver_ends_its_actors_and_is_resumed(nodes: Nodes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with FakeOpenAI(delay_s=0.5) as server:
        path = write_recipe(tmp_path, server.url, spec(nodes, replicas=2).model_dump())
        command = [sys.executable, "-m", "thresher.cli", "run", str(path), "--out", str(out), "--no-prefect"]
        with (tmp_path / "log").open("wb") as log:
            first = subprocess.Popen(command, stdout=log, stderr=log)
            wait_for(lambda: len(server.bodies) > 30 or first.poll() is not None)
            first.kill()
            first.wait()
            done = len(list(out.glob("samples/*.json")))
            time.sleep(2.0)  # Requests in flight are answered.
            before = len(server.bodies)
            time.sleep(1.5)
            assert len(server.bodies) == before, "an actor still samples"
            assert subprocess.run(command, stdout=log, stderr=log, check=False).returncode == 0, (tmp_path / "log").read_text()
        asked = len(server.bodies)
    assert done < len(list(out.glob("samples/*.json")))
    assert_complete(out)
    assert asked <= 2 * PROMPTS + 2 * 2 * 8 * 2


# -- real engines ---------------------------------------------------------------------------------------------------------------


def test_smollm2_on_two_machines_survives_a_killed_engine(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the demo, sampled by vLLM in an actor on each raylet. After kill -9 of one actor its engine ends, the run
    completes without repeated samples, and no two engines share a seed. The replayed samples give equal runs here and on the
    cluster."""
    actors, out = Actors(monkeypatch), tmp_path / "run"
    small = ["sampling.samples_per_prompt=8", "run.shard_samples=16", *(f"prompts.{family}.limit=4" for family in range(5))]
    one_process = "engine.options.distributed_executor_backend=vllm.v1.executor.uniproc_executor.UniProcExecutor"
    with running(Path(DEMO), out, *small, one_process, on_cluster(nodes, 2, resources_per_replica={"seat": 1})):
        lost = wait_for(lambda: len(actors.pids()) == 2 and list(out.glob("samples/*.json")) and actors.pids()[0], 300)
        raylets = {parent_of(pid) for pid in actors.pids()}
        engine = [(pid, start) for pid, start in descendants(lost) if b"VLLM::EngineCore" in command_line(pid)]
        os.kill(lost, signal.SIGKILL)
    rows = tables(out, "samples")
    assert len(rows) == len({row["sample_id"] for row in rows}) == 20 * 9
    starts = [json.loads(path.read_text())["engine_seed"] for path in out.glob("starts/*.json")]
    assert len(starts) == len(set(starts)) >= 2
    assert {row["source"] for row in rows} <= {f"start {number + 1}" for number in range(len(starts))}
    assert len(engine) == 1
    wait_for(lambda: all(start_time(pid) != start for pid, start in engine), 30)
    assert len(raylets) == 2

    answers = [
        {"prompt": row["messages"][-1]["content"], "completion": row["completion"], "finish_reason": row["finish_reason"]}
        for row in rows
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    replay = f"engine={json.dumps({'kind': 'replay', 'path': str(tmp_path / 'answers.jsonl')})}"
    for name, more in {"local": [], "ray": [on_cluster(nodes, 2)]}.items():
        with running(Path(DEMO), tmp_path / name, *small, replay, *more):
            pass
    same(tmp_path / "local", tmp_path / "ray")


# -- actors without a run ---------------------------------------------------------------------------------------------------


@contextmanager
def idle_engine() -> Iterator[str]:
    yield "engine"


def failing_engine() -> AbstractContextManager[str]:
    raise EngineError("no room on the GPU")


def one_slot(_engine: str) -> int:
    return 1


def work(_engine: str, _call: Any, kind: str) -> str:
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "raises":
        raise StoreError("the disk is full")
    if kind == "slow":
        time.sleep(0.5)
    return f"{kind} done"


@pytest.fixture
def executor(nodes: Nodes) -> Iterator[RayExecutor]:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    with RayExecutor(spec(nodes, replicas=2), 1, engine=ReplayEngine(kind="replay", path="")) as ray_executor:
        yield ray_executor


def test_a_call_that_kills_its_engine_is_given_up_and_the_calls_beside_it_are_not(executor: RayExecutor) -> None:
    with executor.engines(idle_engine, slots=one_slot, wanted=lambda: None) as engines:
        results: list[str] = []
        others = [threading.Thread(target=lambda: results.append(engines.call(work, "slow"))) for _ in range(6)]
        for thread in others:
            thread.start()
        with pytest.raises(EngineError, match=r"died of it 3 times, the last time with\s+nothing else to do"):
            engines.call(work, "dies")
        for thread in others:
            thread.join()
        assert results == ["slow done"] * 6
        with pytest.raises(StoreError, match="the disk is full"):
            engines.call(work, "raises")
        assert engines.call(work, "well") == "well done"
    with pytest.raises(EngineError, match="closed"):
        engines.call(work, "well")


def test_the_error_of_engines_that_do_not_start_is_raised(executor: RayExecutor, nodes: Nodes) -> None:
    with (
        pytest.raises(EngineError, match="no room on the GPU"),
        executor.engines(failing_engine, slots=one_slot, wanted=lambda: None),
    ):
        pass
    assert executor.call(len, [1, 2]) == 2
    with pytest.raises(ZeroDivisionError):
        executor.call(divmod, 1, 0)


def test_a_run_directory_that_is_not_shared_is_named(nodes: Nodes, tmp_path: Path) -> None:
    run = small_run(tmp_path / "elsewhere")
    shutil.rmtree(run.root)
    with (
        RayExecutor(spec(nodes), 1, engine=ReplayEngine(kind="replay", path="")) as executor,
        pytest.raises(StoreError, match=r"not visible from .* storage that all machines reach"),
        executor.engines(partial(warm, run, Progress()), slots=one_slot, wanted=lambda: None),
    ):
        pass


def test_a_cluster_without_room_is_refused_before_anything_starts(nodes: Nodes, tmp_path: Path) -> None:
    """More GPUs or CPUs than the cluster has, and all CPUs, which would let filters wait forever."""
    cpus = {**spec(nodes).model_dump(), "cpus_per_replica": 2, "replicas": 2}
    for changes, cause in (
        ({"gpus_per_replica": 2}, "2 of 0.5 CPU, 2 GPU each.* 4 CPU, 0 GPU on 2 machines: it has room for 0"),
        ({"replicas": 9}, "9 of 0.5 CPU each.* it has room for 8"),
        ({"cpus_per_replica": 2}, "no CPU would be left for filters"),
        ({"resources_per_replica": {"second": 2}}, "it has room for 1"),
    ):
        requested = RayExecutorSpec(**{**cpus, "cpus_per_replica": 0.5, **changes})
        with (
            RayExecutor(requested, 1, engine=ReplayEngine(kind="replay", path="")) as executor,
            pytest.raises(EngineError, match=cause),
        ):
            executor.check(str(tmp_path))
        with RayExecutor(
            requested.model_copy(update={"autoscaling": True}), 1, engine=ReplayEngine(kind="replay", path="")
        ) as executor:
            executor.check(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_storage_that_machines_do_not_share_is_refused(executor: RayExecutor) -> None:
    """The memory of a process is such storage."""
    with pytest.raises(StoreError, match=r"memory://run: .* do not see what the other wrote.*storage that all machines reach"):
        executor.check("memory://run")


def test_a_machine_with_another_thresher_or_a_wrong_clock_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    """Processes of a third raylet import a changed copy of thresher, and its clock is an hour ahead."""
    copy = tmp_path / "copy"
    for package in ("thresher", "filters", "schemas", "flows"):
        shutil.copytree(Path(__file__).parents[1] / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "thresher/ids.py").open("a") as file:
        file.write("# changed\n")
    wrong = "import time\nreal = time.time\ntime.time = lambda: real() + 3600\nimport thresher\n"  # Before Ray changes the path.
    (copy / "sitecustomize.py").write_text(wrong)
    environment = {"PYTHONPATH": str(copy)}
    third = nodes.cluster.add_node(num_cpus=1, object_store_memory=MEMORY, env_vars=environment)
    nodes.cluster.wait_for_nodes()
    try:
        with RayExecutor(spec(nodes), 1, engine=ReplayEngine(kind="replay", path="")) as executor:
            with pytest.raises(EngineError) as caught:
                executor.check(str(tmp_path / "run"))
            assert re.search(r"has thresher .* \(source \w+\), .* install the same on all machines", str(caught.value))
            assert re.search(r"the clock of \S+ is 3\d\d\d s ahead; set it", str(caught.value))
    finally:
        nodes.cluster.remove_node(third)


def test_shards_are_counted_as_they_end(nodes: Nodes, recipe: Write, tmp_path: Path) -> None:
    """A run that is extended counts only the new samples."""
    path = recipe()
    for samples, counted in ((4, 20), (6, 8)):
        changed = recipe_file.load(path, [on_cluster(nodes, 1), f"sampling.samples_per_prompt={samples}"])
        begun = steps.begin(changed, tmp_path / "run")
        with Progress() as progress:
            steps.run_steps(begun, progress)
        assert progress.samples == counted
    assert len(judged.sampled(Store(tmp_path / "run"))) == 2


def test_ray_does_not_take_the_sigterm_of_a_process_that_handles_it() -> None:
    """As the command line does, which then says how to resume."""

    def own(_number: int, _frame: object) -> None:
        """Not called."""

    before = signal.signal(signal.SIGTERM, own)
    try:
        with own_sigterm():
            signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
