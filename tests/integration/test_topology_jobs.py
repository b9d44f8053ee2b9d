"""Submitted jobs through the deployment: both profiles, by the services of ``deploy/``."""

import json
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pyrmute_tasks.jobs.entries import Ended, JobResult, Note, Noted, Settled
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.states import LoggedState
from tests.conftest import ROOT, cannot_run, wait_until
from tests.integration.containers import can_confine
from tests.integration.topology import (
    DEPLOY,
    ENVIRONMENT,
    EXAMPLES,
    USER,
    Process,
    Topology,
    read_compose,
)
from tests.people import manager

PEOPLE = {"PYRMUTE_TASKS_MANAGER": "/migrations/people.py:manager"}
HOP = ("Person", "1.0.0", "3.0.0")
HOP_OPTIONS = ("--model", HOP[0], "--from", HOP[1], "--to", HOP[2])
PROFILES = ["worker", "worker-apart"]
STEP_S = 0.02
FAT = "x" * 2000  # so that ranges hold few records
LONG_S = 120.0


@dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        topology: The services.
        folder: Its folder.
        target: Its output, from outside.
        expected: The bytes of a loop.
    """

    topology: Topology
    folder: JobFolder
    target: Path
    expected: bytes

    @property
    def settled(self) -> list[Settled]:
        return [each.entry for each in History(self.folder.storage) if type(each.entry) is Settled]

    @property
    def state(self) -> LoggedState:
        return self.folder.view().state

    def notes(self, note: Note) -> list[str]:
        entries = [logged.entry for logged in History(self.folder.storage)]
        return [each.why for each in entries if isinstance(each, Noted) and each.note is note]

    def wait_for_ranges(self, count: int) -> None:
        wait_until(lambda: len(self.settled) >= count, f"{count} ranges are settled", LONG_S)

    def driver(self) -> Process:
        """Return the coordinator that drives it."""
        leased = self.folder.view().leased
        assert leased is not None
        pid = leased.holder["pid"]
        return next(each for each in self.topology.containers["coordinator"] if each.pid == pid)

    def check_end(self) -> None:
        """Check that it ends with the bytes of a loop, and has never failed."""
        wait_until(lambda: self.state.has_ended, "it has ended", LONG_S)
        ends = [each.entry for each in History(self.folder.storage)]
        assert [each.result for each in ends if isinstance(each, Ended)] == [JobResult.SUCCEEDED]
        assert self.target.read_bytes() == self.expected

    def check_tidy(self) -> None:
        """Check that only its history is left."""
        left = {"spec.json", "want.json", "log.1"}

        def is_tidy() -> bool:
            return {path.name for path in self.folder.path.iterdir()} == left

        wait_until(is_tidy, "\n".join(p.read_text() for p in self.folder.path.glob("log*")))


@dataclass(frozen=True)
class Service:
    """The deployment with the workers of one profile.

    Attributes:
        topology: The services.
        profile: The service that its workers are of.
    """

    topology: Topology
    profile: str

    def command(self, *arguments: str) -> str:
        """Run the command line as the producer; return what it prints."""
        result = self.topology.run(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def submit(self, name: str, count: int, *options: str, step_s: float = 0.0) -> Job:
        """Submit a job whose records take a time each."""
        folder = self.topology.folder(name)
        records = [
            {"name": f"sleep:{step_s} {FAT}{number}", "age": number % 90} for number in range(count)
        ]
        (folder / "in.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
        options += ("--chunk-size", "40") if self.profile == "worker-apart" else ()
        paths = (f"/data/{name}/in.jsonl", f"/data/{name}/out.jsonl")
        told = self.command("submit", "--json", *HOP_OPTIONS, "--name", name, *options, *paths)
        job = JobFolder(Path(json.loads(told)["folder"]))
        return Job(self.topology, job, folder / "out.jsonl", loop(records, step_s))

    def status(self, job: Job) -> dict[str, Any]:
        """Return what `status` tells."""
        found: dict[str, Any] = json.loads(self.command("status", "--json", job.folder.spec.job))
        return found


def loop(records: list[Any], step_s: float) -> bytes:
    """Return the bytes of a loop, without the time that it would take."""
    quick = [{**each, "name": each["name"].replace(f"{step_s}", "0.0", 1)} for each in records]
    models = [manager.migrate(each, *HOP).model_dump_json() for each in quick]
    slow = [text.replace("sleep:0.0", f"sleep:{step_s}", 1) for text in models]
    return "".join(f"{text}\n" for text in slow).encode()


@pytest.fixture(scope="module", params=PROFILES)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with Topology(PEOPLE, migrations=ROOT / "tests") as topology:
        topology.start_coordinators(2)
        topology.start_workers(2, request.param)
        yield Service(topology, request.param)


@pytest.mark.slow
def test_job_has_the_bytes_of_a_loop(service: Service) -> None:
    job = service.submit("small", 1000, "--why", "release 3")
    assert "succeeded" in service.command("watch", "small")
    job.check_end()
    puts = {each.put.name.partition("/")[0] for each in job.settled if each.put is not None}
    assert puts == {"parts" if service.profile == "worker" else "stream.1"}
    job.check_tidy()
    with service.topology.client() as client:
        assert client.keys("pt:{*") == []
    if can_confine():
        made = [job.target, *job.folder.path.iterdir()]
        assert {f"{path.stat().st_uid}:{path.stat().st_gid}" for path in made} == {USER}


@pytest.mark.slow
def test_coordinators_are_healthy_and_hold_no_code(service: Service) -> None:
    assert service.topology.health("coordinator").returncode == 0
    mounted = str(service.topology.services["coordinator"]["volumes"])
    assert "/migrations" not in mounted


@pytest.mark.slow
@pytest.mark.parametrize("service", ["worker-apart"], indirect=True)
def test_fleet_scaled_to_zero_and_back_suspends_a_job(service: Service) -> None:
    job = service.submit("scaled", 1000, step_s=STEP_S)
    job.wait_for_ranges(3)
    workers = service.topology.containers[service.profile]
    for worker in workers:
        worker.signal()
    for worker in workers:
        assert worker.wait() >= 0, "it ended by itself"
    wait_until(lambda: job.notes(Note.SUSPENDED), "it is suspended", LONG_S)
    status = service.status(job)
    assert status["state"] == "suspended"
    assert "no worker answers on queue 'pyrmute-tasks'" in status["reason"]
    settled = len(job.settled)
    workers[:] = []
    service.topology.start_workers(2, service.profile)
    job.wait_for_ranges(settled + 1)
    job.check_end()


@pytest.mark.slow
@pytest.mark.parametrize("service", ["worker"], indirect=True)
def test_workers_and_coordinators_are_replaced_one_by_one(service: Service) -> None:
    job = service.submit("rolled", 2500, step_s=STEP_S)
    job.wait_for_ranges(3)
    topology = service.topology
    for name, start in ((service.profile, topology.start_workers), ("coordinator", None)):
        for process in list(topology.containers[name]):
            assert not job.state.has_ended
            topology.stop(process)
            topology.containers[name].remove(process)
            if start is not None:
                start(1, service.profile)
            else:
                topology.start_coordinators(1)
    job.check_end()
    assert "the coordinator was told to end" in job.notes(Note.STOPPED)
    assert not job.notes(Note.SUSPENDED)


@pytest.mark.slow
def test_job_of_a_killed_coordinator_goes_on(service: Service) -> None:
    job = service.submit("killed", 1000, step_s=STEP_S)
    job.wait_for_ranges(3)
    driver = job.driver()
    driver.signal(signal.SIGKILL)
    driver.wait()
    service.topology.containers["coordinator"].remove(driver)
    wait_until(lambda: job.folder.view().epoch == 2, "another one drives it", LONG_S)
    job.check_end()
    service.topology.start_coordinators(1)


GROUP = 20_000
USERS = {"producer": "20001:20001", "coordinator": "20002:20002", "worker": "20003:20003"}


@pytest.mark.slow
def test_submitters_coordinators_and_workers_of_a_group_share_a_setgid_folder() -> None:
    if not can_confine():  # asked here, as it takes a process
        cannot_run("only root may become other users")
    with Topology(PEOPLE, USERS, [GROUP], migrations=ROOT / "tests") as topology:
        topology.start_workers(1)
        topology.start_coordinators(1)
        service = Service(topology, "worker")
        job = service.submit("shared", 300)
        job.check_end()
        job.check_tidy()
        assert {path.stat().st_gid for path in job.folder.path.iterdir()} == {GROUP}
        assert job.target.stat().st_gid == GROUP


# --- the runbook ------------------------------------------------------------------------------

PRODUCER = ["docker", "compose", "run", "--rm", "producer"]


def runbook(heading: str) -> list[list[str]]:
    """Return the commands of a section of the runbook, up to the next heading of any level."""
    text = (DEPLOY / "README.md").read_text().partition(f"\n{heading}\n")[2]
    section = re.split(r"^#+ [A-Z]", text, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def producer_commands(heading: str) -> list[list[str]]:
    found = [words[5:] for words in runbook(heading) if words[:5] == PRODUCER]
    assert found, heading
    return found


@pytest.mark.slow
def test_commands_of_the_runbook_work() -> None:
    with Topology() as topology:
        topology.start_coordinators(2)
        topology.start_workers(2)
        shutil.copy(EXAMPLES / "data" / "flights-sample.jsonl", topology.data)
        told = ""
        for words in producer_commands("## Submitted jobs"):
            result = topology.run(*words)
            assert result.returncode == 0, f"{words}: {result.stderr}"
            told += result.stdout
        assert "release freeze" in told or "release 3" in told
        assert len((topology.data / "flights-3.jsonl").read_text().splitlines()) == 5000
        cancelled, discarded = producer_commands("### Clean up")
        assert "has ended: succeeded" in topology.run(*cancelled).stderr
        assert topology.run(*discarded).returncode == 0
        assert [path.name for path in topology.jobs.iterdir() if path.name[0] != "."] == []


def test_services_of_the_runbook_exist() -> None:
    text = (DEPLOY / "README.md").read_text()
    services = read_compose(ENVIRONMENT)["services"]
    verbs = r"docker compose (?:stop|exec|logs --follow|ps(?: --quiet)?|run --rm) ([a-z-]+)"
    named = re.findall(verbs, text) + re.findall(r"--scale ([a-z-]+)=", text)
    assert {"worker", "coordinator", "producer", "valkey"} <= set(named) <= set(services)


STEP = """
from pydantic import BaseModel

from pyrmute_tasks import ModelManager

manager = ModelManager()


@manager.model("Thing", "1.0.0")
class ThingV1(BaseModel):
    size: str


@manager.model("Thing", "2.0.0")
class ThingV2(BaseModel):
    size: int


@manager.migration("Thing", "1.0.0", "2.0.0")
def to_number(data):
    return {"size": MENDED}
"""


@pytest.mark.slow
def test_failed_job_goes_on_with_mended_code() -> None:
    with TemporaryDirectory() as directory:
        migrations = Path(directory)
        migrations.chmod(0o755)
        module = migrations / "things.py"
        module.write_text(STEP.replace("MENDED", 'int(data["size"])'))
        variables = {"PYRMUTE_TASKS_MANAGER": "/migrations/things.py:manager"}
        with Topology(variables, migrations=migrations) as topology:
            topology.start_coordinators(1)
            (worker,) = topology.start_workers(1)
            sizes = [*map(str, range(200)), "7 cm"]
            (topology.data / "in").write_text("".join(f'{{"size":"{each}"}}\n' for each in sizes))
            hop = ("--model", "Thing", "--from", "1.0.0", "--to", "2.0.0", "--chunk-size", "50")
            paths = ("/data/in", "/data/out")
            told = topology.run("submit", "--name", "flights", *hop, *paths)
            assert told.returncode == 0, told.stderr
            assert topology.run("watch", "flights").returncode == 1
            assert "record 200" in topology.run("status", "flights").stdout
            topology.stop(worker)
            module.write_text(STEP.replace("MENDED", 'int(data["size"].split()[0])'))
            topology.start_workers(1)
            (resumed,) = producer_commands("### When a job does not go on")
            assert "--accept-code" in resumed
            result = topology.run(*resumed)
            assert result.returncode == 0, result.stderr
            assert topology.run("watch", "flights").returncode == 0
            lines = (topology.data / "out").read_text().splitlines()
            assert lines == [f'{{"size":{each.split()[0]}}}' for each in sizes]
