"""Every command and code block in the documentation works; the README's in `test_readme.py`."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.settings import Settings
from tests.conftest import ROOT, wait_until

PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    if "```" in page.read_text()
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text()) if kind == language]


def commands(page: Path) -> list[list[str]]:
    """The command lines of the console blocks, without their comments."""
    joined = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in lines]


# The README is for those without a checkout; the other page is a project of many files.
ELSEWHERE = {"README.md": "test_readme.py", "celery-projects.md": "test_celery_projects.py"}


# Those whose blocks take more than three seconds; the quickest page of each kind is left.
SLOW = {
    "python": {"batch-processing.md", "from-pyrmute.md", "jobs.md"},
    "console": {"audit.md", "jobs.md", "plan.md"},
}


def pages(language: str) -> list[object]:
    """The pages with such blocks that are not tested elsewhere."""
    found = [page for page in PAGES if page.name not in ELSEWHERE and blocks(page, language)]
    assert SLOW[language] < {page.name for page in found}
    return [
        pytest.param(page, marks=[pytest.mark.slow] if page.name in SLOW[language] else [])
        for page in found
    ]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    known = {"python", "console", "text", "toml", "yaml"}
    assert {kind for kind, _ in FENCE.findall(page.read_text())} <= known


@pytest.mark.parametrize("page", pages("python"), ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    # One script a page, as a reader who follows along would have it. Its registry must be
    # importable, so it is a file, guarded as any script that starts processes.
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(blocks(page, "python")))
    result = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def run_on_a_sample(arguments: list[str], directory: Path, fleet: EmbeddedFleet) -> None:
    # A small one, unless the page says how large it is: the last option counts.
    run_to_its_end([arguments[0], "--sample", "100", *arguments[1:]], directory, fleet)


def run_to_its_end(arguments: list[str], directory: Path, fleet: EmbeddedFleet) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pyrmute_tasks", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def start_a_worker(arguments: list[str], directory: Path, fleet: EmbeddedFleet) -> None:
    url = fleet.settings.broker_url
    arguments = [url if part.startswith("redis://") else part for part in arguments]
    store = Store(fleet.settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "pyrmute_tasks", *arguments],
        cwd=directory,
        env=os.environ | {"TMPDIR": str(directory)},  # what a killed worker leaves goes with it
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        mark = f":{process.pid}-"
        wait_until(lambda: any(mark in each.name for each in store.workers()), "it is ready")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        store.close()


def run_until_idle(arguments: list[str], directory: Path, fleet: EmbeddedFleet) -> None:
    """Let a coordinator look at the jobs once: there is no worker."""
    url = fleet.settings.broker_url
    arguments = [url if part.startswith("redis://") else part for part in arguments]
    run_to_its_end([*arguments, "--until-idle"], directory, fleet)


def make_a_folder(arguments: list[str], directory: Path, fleet: EmbeddedFleet) -> None:
    for name in arguments:
        (directory / name).mkdir()


def exists_in_the_makefile(arguments: list[str], directory: Path, fleet: EmbeddedFleet) -> None:
    for target in arguments:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


STEERING = ("submit", "pause", "resume", "cancel", "set")
SEEING = ("jobs", "status", "rejects", "report")
RUNNERS: dict[tuple[str, ...], Callable[[list[str], Path, EmbeddedFleet], None]] = {
    ("pyrmute-tasks", "run"): run_to_its_end,
    ("pyrmute-tasks", "audit"): run_on_a_sample,
    ("pyrmute-tasks", "plan"): run_on_a_sample,
    ("pyrmute-tasks", "worker"): start_a_worker,
    ("pyrmute-tasks", "coordinator"): run_until_idle,
    **{("pyrmute-tasks", each): run_to_its_end for each in (*STEERING, *SEEING)},
    ("mkdir",): make_a_folder,
    ("make",): exists_in_the_makefile,
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[EmbeddedFleet]:
    """The shared fleet of the documented commands."""
    with EmbeddedFleet(f"{ROOT}/examples/flights.py:manager", 0, Settings()) as fleet:
        yield fleet


@pytest.mark.parametrize("page", pages("console"), ids=name)
def test_commands_work(page: Path, tmp_path: Path, fleet: EmbeddedFleet) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for words in commands(page):
        prefix = next(prefix for prefix in RUNNERS if tuple(words[: len(prefix)]) == prefix)
        RUNNERS[prefix](words[1:], tmp_path, fleet)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")))
def test_links_have_targets(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page}: {target}"
