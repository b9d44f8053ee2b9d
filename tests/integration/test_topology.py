"""The deployment works: the commands of ``deploy/``, run as processes of this host."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.registry import load_attribute
from pyrmute_tasks.settings import ENV_PREFIX, Settings
from tests.conftest import ROOT, descendants, is_alive, wait_until
from tests.integration.topology import (
    DEPLOY,
    ENVIRONMENT,
    EXAMPLES,
    FLOWER_LOGIN,
    Flower,
    Topology,
    parse_yaml,
    read_compose,
    read_env_example,
    read_image,
)

SAMPLE = EXAMPLES / "data" / "flights-sample.jsonl"
# Planted in records: nothing but the files that go in and come out may hold it.
MARKER = "N-MARKER-7c1e"
CHUNK_SIZE = 500
LABEL = r"records ([\d,]+)–([\d,]+) · (\d+)% of 1\.43 MiB · Flight 1\.0\.0→3\.0\.0 · job (\w{16})"


@dataclass(frozen=True)
class Job:
    """A run of the producer, and Flower's view of its tasks, by chunk."""

    result: "subprocess.CompletedProcess[str]"
    target: Path
    tasks: dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Fleet:
    topology: Topology
    flower: Flower

    def migrate(self, source: Path, target: Path) -> "subprocess.CompletedProcess[str]":
        return self.topology.run(
            *("run", str(source), str(target), "--chunk-size", str(CHUNK_SIZE)),
            *("--broker", self.topology.url, "--store", self.topology.url),
            *("--model", "Flight", "--from", "1.0.0", "--to", "3.0.0"),
        )

    def tasks_of_next_job(self, before: set[str], chunks: int) -> dict[int, dict[str, Any]]:
        """Wait until Flower knows the end of all tasks but those `before`; return them by chunk."""
        tasks: dict[str, dict[str, Any]] = {}

        def all_ended() -> bool:
            known = self.flower.tasks()
            tasks.update({name: known[name] for name in known.keys() - before})
            return len(tasks) == chunks and all(t["succeeded"] for t in tasks.values())

        wait_until(all_ended, f"flower shows {chunks} tasks that ended: {tasks}")
        return {int(name.split("-")[1]): task for name, task in tasks.items()}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Topology() as topology:
        topology.start_workers(1)
        flower = topology.start_flower()
        topology.start_workers(1)  # whatever starts first, Flower shows all
        flower.wait_for_workers(2)
        yield Fleet(topology, flower)


@pytest.fixture(scope="module")
def job(fleet: Fleet) -> Job:
    directory = fleet.topology.folder("job")
    lines = SAMPLE.read_text().splitlines(keepends=True)
    lines[1700] = re.sub(r'"tailnum":"\w+"', f'"tailnum":"{MARKER}"', lines[1700])
    source = directory / "in.jsonl"
    source.write_text("".join(lines))
    before = set(fleet.flower.tasks())
    result = fleet.migrate(source, directory / "out.jsonl")
    assert result.returncode == 0, result.stderr
    tasks = fleet.tasks_of_next_job(before, len(lines) // CHUNK_SIZE)
    return Job(result, directory / "out.jsonl", tasks)


# --- a job through the deployed fleet -------------------------------------------------------


def test_output_equals_the_sequential_loop(job: Job) -> None:
    manager: Any = load_attribute(f"{EXAMPLES / 'flights.py'}:manager")
    source = job.target.with_name("in.jsonl").read_text()
    expected = "".join(
        manager.migrate(json.loads(line), "Flight", "1.0.0", "3.0.0").model_dump_json() + "\n"
        for line in source.splitlines()
    )
    output = job.target.read_text()
    assert output == expected
    assert MARKER in output


def test_flower_shows_each_chunk_with_its_records(job: Job) -> None:
    assert sorted(job.tasks) == list(range(10))
    seen = []
    for chunk, task in job.tasks.items():
        label = re.fullmatch(LABEL, task["args"])
        assert label is not None, task["args"]
        first = chunk * CHUNK_SIZE
        assert label.groups()[:2] == (f"{first:,}", f"{first + 499:,}")
        assert abs(int(label[3]) - 10 * (chunk + 1)) <= 1  # lines are about as long
        assert re.fullmatch(r"500 records, 0 failed, [\d.]+ m?s", task["result"])
        seen.append((label[4], task["name"], task["state"], task["kwargs"]))
    (shown,) = set(seen)
    assert shown[1:] == ("pyrmute_tasks.migrate_chunk", "SUCCESS", "{}")
    assert f"job {shown[0]}" in job.result.stdout
    assert job.tasks[9]["args"].startswith("records 4,500–4,999 · 100% of ")


def test_flower_lists_queue_and_workers_whatever_started_first(fleet: Fleet) -> None:
    assert re.search(r">\s*pyrmute-tasks\s*<", fleet.flower.get("/broker")[1])
    workers = json.loads(fleet.flower.get("/workers?json=1")[1])["data"]
    host = socket.gethostname()
    assert {each["hostname"]: each["status"] for each in workers} == {
        f"worker-1@{host}": True,
        f"worker-2@{host}": True,
    }


def test_both_workers_ran_chunks(job: Job) -> None:
    host = socket.gethostname()
    workers = {task["worker"] for task in job.tasks.values()}
    assert workers == {f"worker-1@{host}", f"worker-2@{host}"}
    assert re.search(r"^workers +2 ", job.result.stdout, re.M)


def test_no_record_reaches_flower_or_a_log(fleet: Fleet, job: Job) -> None:
    told = [fleet.flower.get(f"/api/task/info/{task['uuid']}")[1] for task in job.tasks.values()]
    told += [fleet.flower.get(path)[1] for path in ("/api/tasks", "/api/workers", "/metrics")]
    told += [fleet.flower.process.log, *(worker.log for worker in fleet.topology.workers)]
    told += [job.result.stdout, job.result.stderr]
    assert [text for text in told if MARKER in text] == []


def test_error_names_the_record_without_its_contents(fleet: Fleet) -> None:
    folder = fleet.topology.folder("failing")
    lines = SAMPLE.read_text().splitlines(keepends=True)[:1000]
    lines[700] = re.sub(r'"origin":"\w+"', f'"origin":"{MARKER}"', lines[700])
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(lines))
    before = set(fleet.flower.tasks())
    result = fleet.migrate(source, target)
    assert result.returncode == 1
    assert "record 700" in result.stderr
    assert "Traceback" not in result.stderr
    assert not target.exists()
    # To Celery a chunk with a bad record is done; its result and the tasks page tell more.
    tasks = fleet.tasks_of_next_job(before, 2)
    assert tasks[0]["result"].startswith("500 records, 0 failed, ")
    trouble = r"✗ bad record 700: \w+ · 201 records, 1 failed, [\d.]+ m?s · step Flight .*"
    assert re.fullmatch(trouble, tasks[1]["result"]), tasks[1]["result"]
    assert tasks[1]["state"] == "SUCCESS"
    assert fleet.flower.shown_states()[tasks[1]["uuid"]] == "✗ BAD RECORD"
    told = [json.dumps(tasks, ensure_ascii=False), result.stdout, result.stderr]
    told += [fleet.flower.process.log, *(worker.log for worker in fleet.topology.workers)]
    assert [text for text in told if MARKER in text] == []


@pytest.mark.parametrize("path", ["/", "/tasks", "/broker", "/api/tasks", "/api/workers"])
@pytest.mark.parametrize("login", [None, ("watcher", "guess")])
def test_flower_wants_its_password(fleet: Fleet, path: str, login: tuple[str, str] | None) -> None:
    assert fleet.flower.get(path, login)[0] == 401


def test_flower_accepts_its_credentials(fleet: Fleet) -> None:
    assert fleet.flower.get("/tasks", FLOWER_LOGIN)[0] == 200
    assert fleet.flower.get("/healthcheck", None) == (200, "OK")


def test_flower_can_send_no_tasks(fleet: Fleet) -> None:
    assert fleet.flower.post("/api/task/send-task/pyrmute_tasks.migrate_chunk")[0] == 403


def test_nothing_of_a_job_is_left_in_the_store(fleet: Fleet, job: Job) -> None:
    with fleet.topology.client() as client:
        assert client.keys("pt:{*") == []
        assert client.llen("pyrmute-tasks") == 0
        options = client.config_get("maxmemory*", "append*")
    assert options["maxmemory-policy"] == "noeviction"
    assert options["appendonly"] == "yes"
    assert options["maxmemory"] == str(2**30)


# --- the life of workers ------------------------------------------------------------------


@pytest.mark.slow
def test_health_and_termination() -> None:
    with Topology() as topology:
        unhealthy = topology.health()
        assert unhealthy.returncode == 1
        first, second = topology.start_workers(2)
        healthy = topology.health()
        assert (healthy.returncode, healthy.stderr) == (0, "")

        processes = [first.pid, second.pid, *descendants(first.pid), *descendants(second.pid)]
        assert len(processes) == 4
        first.signal(read_image("worker").stop_signal)
        assert first.wait() >= 0, "it ended by itself"
        assert topology.health().returncode == 0, "the host's other worker lives"
        second.signal(read_image("worker").stop_signal)
        assert second.wait() >= 0, "it ended by itself"
        wait_until(lambda: not any(map(is_alive, processes)), "their children have ended")

        unhealthy = topology.health()
        assert unhealthy.returncode == 1
        assert unhealthy.stderr.startswith(f"unhealthy: no worker of host {socket.gethostname()}")
        assert unhealthy.stderr.count("\n") == 1


WRONG = [
    ({"PYRMUTE_TASKS_MANAGER": ""}, "a worker needs to know its manager"),
    ({"PYRMUTE_TASKS_MANAGER": "absent:manager"}, "cannot import 'absent:manager'"),
    ({"PYRMUTE_TASKS_OUTAGE_S": "long"}, "PYRMUTE_TASKS_OUTAGE_S must be a number"),
    ({"PYRMUTE_TASKS_QUEU": "typo"}, "there is no setting PYRMUTE_TASKS_QUEU"),
]


@pytest.mark.parametrize(
    ("target", "variables", "said"),
    [
        ("workers.app", *WRONG[1]),
        ("pyrmute_tasks.worker", *WRONG[0]),
        # `tests/unit/test_worker_target.py` has such errors without a process.
        *(pytest.param("workers.app", *WRONG[at], marks=pytest.mark.slow) for at in (0, 2, 3)),
    ],
)
def test_wrong_settings_end_with_one_sentence(
    target: str, variables: dict[str, str], said: str
) -> None:
    path = {"PATH": str(Path(sys.executable).parent)}
    deployed = read_image("worker").command
    command = [target if part == "workers.app" else part for part in deployed]
    result = subprocess.run(
        command,
        env=path | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


# --- what the files say -------------------------------------------------------------------


# Not the defaults of the package: folders of the containers.
MOUNTED = {"PYRMUTE_TASKS_ROOTS": "/data:/jobs", "PYRMUTE_TASKS_JOBS_ROOT": "/jobs"}


def test_every_setting_is_in_the_example_and_reaches_the_containers() -> None:
    settings = {f"{ENV_PREFIX}{option.name.upper()}" for option in fields(Settings)}
    example = read_env_example()
    assert {name for name in example if name.startswith(ENV_PREFIX)} == settings
    compose = read_compose(ENVIRONMENT | {name: f"<{name}>" for name in settings})
    for service in ("coordinator", "worker", "producer"):
        given = compose["services"][service]["environment"]
        assert given == {name: f"<{name}>" for name in settings}
    apart = compose["services"]["worker-apart"]["environment"]
    assert apart == given | {"PYRMUTE_TASKS_ROOTS": ""}


def test_the_example_shows_the_defaults() -> None:
    shown = {name: value for name, value in read_env_example().items() if value}
    for name in ENVIRONMENT:
        shown.pop(name, None)
    settings = {name: value for name, value in shown.items() if name.startswith(ENV_PREFIX)}
    mounted = {name: settings.pop(name) for name in MOUNTED}
    assert mounted == MOUNTED
    assert Settings.from_env(settings) == Settings()
    # Nothing else changes either when a line that shows a default is made to set it.
    assert read_compose(ENVIRONMENT | shown) == read_compose(ENVIRONMENT | settings)


@pytest.mark.parametrize("missing", [*ENVIRONMENT])
def test_compose_starts_nothing_without_secrets(missing: str) -> None:
    with pytest.raises(AssertionError, match=f"{missing}: set it in .env"):
        read_compose({name: value for name, value in ENVIRONMENT.items() if name != missing})


def test_only_flower_is_published_and_only_to_this_host() -> None:
    services = read_compose(ENVIRONMENT)["services"]
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"flower": ["127.0.0.1:5555:5555"]}


def test_images_do_not_run_as_root() -> None:
    assert {read_image(stage).user for stage in ("worker", "flower")} == {"10001"}


def test_what_images_copy_reaches_docker() -> None:
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {
        source for stage in ("worker", "flower") for source in read_image(stage).copies.values()
    }
    assert {"workers", "deploy/flowerconfig.py"} <= copied
    assert {f"!{source}" for source in copied} <= set(let_in)


def test_workers_have_time_to_end() -> None:
    services = read_compose(ENVIRONMENT)["services"]
    graces = {name: each.get("stop_grace_period") for name, each in services.items()}
    assert graces["worker"] == graces["worker-apart"] == "60s"
    assert graces["coordinator"] == "30s"
    assert read_image("worker").variables["REMAP_SIGTERM"] == "SIGQUIT"


@pytest.mark.parametrize(
    "text",
    ["a: b: c", "a: [1", "a: 'x'", "a: >\n  x", "a:\n  - b\n c: d", "a: yes # no", "a: 1\na: 2"],
)
def test_unknown_yaml_is_an_error(text: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        parse_yaml(text)
