"""The README, word for word: a newcomer with the wheel, in an empty folder.

The wheel is built and installed into an environment of its own. What it depends on is taken from
the environment of the tests, so nothing is downloaded; the package itself must be the wheel's.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.settings import Settings
from tests.conftest import ROOT, wait_until

README: Final = ROOT / "README.md"
FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVER: Final = "redis://redis.internal:6379/0"
# Read by pip, hatchling and the package; the rest of the repository stays where it is.
SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE", "pyrmute_tasks")
CELERY: Final = "#!{python}\nfrom celery.__main__ import main\n\nmain()\n"


@dataclass(frozen=True)
class Newcomer:
    """A newcomer: an environment with the wheel, and an empty folder."""

    scripts: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join((str(self.scripts), "/usr/bin", "/bin"))
        return {"PATH": path, "HOME": str(self.folder), "TMPDIR": str(self.folder.parent)}

    def run(self, line: str) -> str:
        """Run a line in a shell; return its output."""
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def running(self, line: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a line in the background; yields its process."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {line}" if "\n" not in line else line],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    directory = tmp_path_factory.mktemp("newcomer")
    source = directory / "source"
    source.mkdir()
    for name in SOURCES:  # a copy, so that building leaves nothing in the repository
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(directory), str(source))
    (wheel,) = directory.glob("*.whl")
    home = directory / "environment"
    venv.create(home, with_pip=False)
    scripts = home / "bin"
    pip("--python", str(scripts / "python"), "install", str(wheel))
    (packages,) = home.glob("lib/python*/site-packages")
    # Behind the environment's own packages, and without running its .pth files: those would
    # lead to the editable install.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    celery = scripts / "celery"  # as pip makes it
    celery.write_text(CELERY.format(python=scripts / "python"))
    celery.chmod(0o755)
    folder = directory / "empty"
    folder.mkdir()
    return Newcomer(scripts, folder)


def blocks(language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(README.read_text()) if kind == language]


def dialogue(body: str) -> list[tuple[str, str]]:
    """The commands of a console block, and the output of each."""
    commands: list[tuple[str, str]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], ""))
        else:
            command, printed = commands.pop()
            commands.append((command, f"{printed}{line}\n"))
    return commands


def is_for_a_checkout(command: str) -> bool:
    return command.startswith(("make ", "python -m pip install ."))


def save_files(newcomer: Newcomer) -> None:
    for body in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", body)
        assert name is not None, "a block begins with the name of its file"
        (newcomer.folder / name[1]).write_text(body)


def test_installing_comes_first() -> None:
    headings = re.findall(r"^## (.+)$", README.read_text(), re.MULTILINE)
    assert headings[0] == "Install"
    (install,) = dialogue(blocks("console")[0])
    assert install == ("python -m pip install .", "")


def test_package_is_the_wheels(newcomer: Newcomer) -> None:
    code = "import pyrmute_tasks, celery; print(pyrmute_tasks.__file__); print(celery.__file__)"
    ours, theirs = newcomer.run(f'python -c "{code}"').splitlines()
    assert Path(ours).is_relative_to(newcomer.scripts.parent)
    assert not Path(theirs).is_relative_to(newcomer.scripts.parent)
    assert (Path(ours).parent / "py.typed").exists()
    assert "pyrmute-tasks, version" in newcomer.run("pyrmute-tasks --version")


def test_wheel_holds_the_package_and_nothing_else(newcomer: Newcomer) -> None:
    (wheel,) = newcomer.folder.parent.glob("*.whl")
    listed = newcomer.run(f"python -m zipfile -l {wheel}").splitlines()[1:]
    names = {line.split()[0].split("/")[0] for line in listed}
    assert len(names) == 2
    assert "pyrmute_tasks" in names
    missing = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "pyrmute_tasks").rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not any(str(path.relative_to(ROOT)) in line for line in listed)
    ]
    assert missing == []


@pytest.mark.slow
def test_commands_print_the_documented_output(newcomer: Newcomer) -> None:
    save_files(newcomer)
    assert run_all(newcomer, blocks("console")) >= 5


def test_first_commands_on_a_file_print_the_documented_output(newcomer: Newcomer) -> None:
    save_files(newcomer)
    first = next(body for body in blocks("console") if "pyrmute-tasks run" in body)
    (newcomer.folder / "users-2.0.0.jsonl").unlink(missing_ok=True)  # of the test above
    assert run_all(newcomer, [first]) == 3
    (newcomer.folder / "users-2.0.0.jsonl").unlink()


def run_all(newcomer: Newcomer, bodies: list[str]) -> int:
    """Run the commands of console blocks and compare what they print; return their number."""
    ran = 0
    for body in bodies:
        if SERVER in body:
            continue
        for command, printed in dialogue(body):
            if is_for_a_checkout(command):
                continue
            told = newcomer.run(command)
            ran += 1
            if printed:
                assert told == printed, command
    return ran


def test_failing_record_is_reported_as_in_the_readme(newcomer: Newcomer) -> None:
    save_files(newcomer)
    lines = ['{"name": "Ada Lovelace"}'] * 1336 + ["{}"]
    (newcomer.folder / "in.jsonl").write_text("\n".join(lines))
    (shown,) = [body for body in blocks("text") if body.startswith("failed after")]
    told = newcomer.run(
        "pyrmute-tasks run --manager models.py:manager --model User --from 1.0.0 --to 2.0.0"
        " --workers 1 in.jsonl bad.jsonl 2>&1 || true"
    )
    assert told.splitlines()[-1] == shown.splitlines()[-1]


@pytest.mark.slow
def test_documented_workers_start(newcomer: Newcomer) -> None:
    save_files(newcomer)
    (newcomer.folder / "in.jsonl").write_text('{"name": "Ada Lovelace"}\n')
    run = "pyrmute-tasks run -q --manager models.py:manager --model User --from 1.0.0 --to 2.0.0"
    with EmbeddedFleet(f"{newcomer.folder / 'models.py'}:manager", 0, Settings()) as fleet:
        url, store = fleet.settings.broker_url, Store(fleet.settings)
        shown = [body for body in blocks("console") if SERVER in body]
        assert len(shown) == 2
        for number, body in enumerate(shown):
            lines = "\n".join(command for command, _ in dialogue(body)).replace(SERVER, url)
            with newcomer.running(lines) as process:
                wait_until(
                    lambda: process.poll() is not None or store.workers(),  # ends with it
                    "the worker lives",
                )
                assert process.poll() is None, lines
                newcomer.run(f"{run} --broker {url} in.jsonl out-{number}.jsonl")
            wait_until(lambda: not store.workers(), "the worker counts as gone")
        store.close()
    assert (newcomer.folder / "out-1.jsonl").read_text() == (
        '{"first_name":"Ada","last_name":"Lovelace"}\n'
    )
