"""Jobs whose log an earlier version has written go on, with the bytes of a loop."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from pyrmute_tasks.jobs.entries import FORMAT
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.spec import SPEC
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.jobs.want import WANT, Want
from tests.conftest import ROOT
from tests.integration.service import HOP, fleet_of, loop, names_in, service_of, view_of
from tests.people import manager

FORMATS = Path(__file__).parent / "formats"
BAD = [7, 45]
WAYS = ["through", "reference"]
RESTORED = {"through": 24, "reference": 33}


def restore(way: str, data: Path, path: Path, terms: Terms | None = None) -> JobFolder:
    """Put a job where it was, as if today's code were what it began with."""
    shutil.copytree(FORMATS / "1" / way / "job", path)
    spec = json.loads((path / SPEC).read_text().replace("@HERE@", str(data)))
    assert spec["format"] == 1 < FORMAT
    plan = manager.plan(*HOP)
    spec["fingerprint"] = plan.fingerprint
    spec["code"] = json.dumps(plan.fingerprint_tree.to_dict())
    if terms is not None:
        spec["terms"] = {**asdict(terms), "priority": terms.priority.value}
    (path / SPEC).write_text(json.dumps(spec))
    if terms is not None:  # a submitted job has wishes from its first moment on
        (path / WANT).write_text(json.dumps(Want().as_fields()))
    source = data / "in.jsonl"
    shutil.copyfile(FORMATS / "1" / way / "in.jsonl", source)
    written = int(spec["sources"][0]["version"])
    os.utime(source, ns=(written, written))
    return JobFolder(path)


def check(data: Path) -> None:
    records = [json.loads(line) for line in (data / "in.jsonl").read_text().splitlines()]
    good = [record for index, record in enumerate(records) if index not in BAD]
    assert (data / "out.jsonl").read_bytes() == loop(good)
    rejects = [json.loads(line) for line in (data / "rejects.jsonl").read_text().splitlines()]
    assert [each["index"] for each in rejects] == BAD
    assert ["LookupError" in json.dumps(each) for each in rejects] == [True, True]


@pytest.mark.parametrize("way", ["reference", pytest.param("through", marks=pytest.mark.slow)])
def test_killed_run_of_format_1_is_resumed(tmp_path: Path, way: str) -> None:
    restore(way, tmp_path, tmp_path / ".out.jsonl.job")
    forced = {"through": ("never", "--chunk-size", "5"), "reference": ("always",)}[way]
    names = [str(tmp_path / name) for name in ("in.jsonl", "out.jsonl")]
    result = subprocess.run(
        [
            *(sys.executable, "-m", "tests.integration.short_ranges", "run", "--json", "--resume"),
            *("--manager", "tests.people:manager", "--workers", "1"),
            *("--model", HOP[0], "--from", HOP[1], "--to", HOP[2]),
            *("--on-error", "skip", "--rejects", str(tmp_path / "rejects.jsonl")),
            *("--by-reference", *forced, *names),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert result.returncode == 3, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["restored"] == RESTORED[way]
    check(tmp_path)


@pytest.mark.slow  # a coordinator waits until a driver of another host has been silent for long
@pytest.mark.parametrize("way", WAYS)
def test_coordinator_goes_on_with_a_log_of_format_1(tmp_path: Path, way: str) -> None:
    with fleet_of(tmp_path, 1) as fleet, service_of(fleet, tmp_path / "service") as service:
        chunk_size = 5 if way == "through" else None
        terms = Terms(
            queue=fleet.settings.queue,
            chunk_size=chunk_size,
            by_reference="never" if way == "through" else "always",
        )
        job = restore(way, service.data, service.root.path / "81d16dfa", terms)
        service.coordinator()
        view = service.wait_for_end(job)
        assert view.state is LoggedState.SUCCEEDED_WITH_REJECTS, view.stopped
        assert view_of(job).epoch == 2
        check(service.data)
        history = {"spec.json", "want.json", "log.1", "log.2", "rejects.1", "rejects.2"}
        service.wait(lambda: names_in(job) == history, "only its history is left")
