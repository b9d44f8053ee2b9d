"""Every code block of pyrmute's guide to batches does as the guide says, import changed.

The guide is pyrmute's own, from its sources. Each test below is one of its blocks: it
runs in a module of its own after the guide's first block, which has the models, and gets exactly
the names that the guide leaves to its reader. Those that only use batch calls run a second time
with their batches on a fleet.
"""

import csv
import json
import logging
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any, Self

import pytest
from pydantic import BaseModel, ValidationError

from pyrmute_tasks import MigrationError, Migrator, ModelData, ModelManager
from pyrmute_tasks.registry import load_attribute
from tests.acceptance.pyrmute_sources import fetch_or_skip
from tests.conftest import ROOT

FLEET = f"{ROOT}/examples/guide/users.py:manager"  # the guide's models, with a check of names

FIRST = "Basic Batch Migration"
HEADING_OR_BLOCK = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|^```python\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
BATCH_CALLS = (
    "migrate_batch",
    "migrate_batch_as",
    "migrate_batch_data",
    "migrate_batch_streaming",
    "migrate_batch_streaming_as",
    "migrate_batch_data_streaming",
)

HOP = ("User", "1.0.0", "2.0.0")
OLD_USERS_AS_NEW = [
    "UserV2(first_name='Alice', last_name='Smith')",
    "UserV2(first_name='Bob', last_name='Jones')",
    "UserV2(first_name='Carol', last_name='White')",
]


# --- running a block ------------------------------------------------------------------------


class OnFleet(ModelManager):
    """Registers and migrates single records here; its batches run on a fleet."""

    def __init__(self, migrator: Migrator) -> None:
        super().__init__()
        for name in BATCH_CALLS:
            setattr(self, name, getattr(migrator, name))


class Block:
    """A block of the guide, ready to run in a module with the names of the guide's first block."""

    def __init__(self, blocks: dict[str, str], title: str, module: ModuleType) -> None:
        self.title = title
        self.body = blocks[title]
        self.module = module
        if title != FIRST:
            self._execute(blocks[FIRST])

    def run(self, **missing: object) -> Any:
        """Run the block with the names that the guide does not define; return its module."""
        unused = [name for name in missing if not re.search(rf"\b{name}\b", self.body)]
        assert unused == [], "the block does not need these"
        vars(self.module).update(missing)
        self._execute(self.body)
        return self.module

    def _execute(self, body: str) -> None:
        body = body.replace("from pyrmute import", "from pyrmute_tasks import")
        exec(compile(body, "batch-processing.md", "exec", dont_inherit=True), vars(self.module))  # noqa: S102


HANDLED: list[str] = []


def of(title: str, *, also_on_a_fleet: bool = False) -> pytest.MarkDecorator:
    """Parametrize a test with the block of that title."""
    HANDLED.append(title)
    runs = [pytest.param((title, False), id=title)]
    if also_on_a_fleet:
        runs.append(pytest.param((title, True), id=f"{title}, on a fleet"))
    return pytest.mark.parametrize("block", runs, indirect=True)


pytestmark = [
    # The fleet is asked for by name, so it is not seen to be shared (tests/conftest.py).
    pytest.mark.xdist_group("tests/acceptance/test_guide.py"),
    # The first time pip fetches the sources, as for test_pyrmute_docs.py.
    pytest.mark.timeout(600),
]


def read(text: str) -> dict[str, str]:
    """Read the Python blocks by their headings; a second one under a heading gets a number."""
    blocks: dict[str, str] = {}
    heading = ""
    for match in HEADING_OR_BLOCK.finditer(text):
        if match["heading"]:
            heading = match["heading"]
            continue
        before = sum(title.partition(" #")[0] == heading for title in blocks)
        title = f"{heading} #{before + 1}" if before else heading
        # Blank lines before it let tracebacks show the guide's own lines.
        blocks[title] = "\n" * text.count("\n", 0, match.start("body")) + match["body"]
    return blocks


@pytest.fixture(scope="module")
def guide_text() -> str:
    (page,) = fetch_or_skip().glob("docs/**/batch-processing.md")
    return page.read_text()


@pytest.fixture(scope="module")
def blocks(guide_text: str) -> dict[str, str]:
    return read(guide_text)


@pytest.fixture(scope="module")
def migrator() -> Iterator[Migrator]:
    with Migrator(FLEET, workers=1) as migrator:
        yield migrator


@pytest.fixture
def block(
    request: pytest.FixtureRequest,
    blocks: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Block:
    title, on_fleet = request.param
    if on_fleet:
        migrator = request.getfixturevalue("migrator")
        monkeypatch.setattr("pyrmute_tasks.ModelManager", lambda: OnFleet(migrator))
    module = ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", module)
    monkeypatch.chdir(tmp_path)
    return Block(blocks, title, module)


def is_on_fleet(block: Block) -> bool:
    return isinstance(getattr(block.module, "manager", None), OnFleet)


def strict_manager(block: Block) -> ModelManager:
    """A manager that refuses a user without a name; the guide's own does not."""
    if is_on_fleet(block):
        manager: ModelManager = block.module.manager
    else:
        found = load_attribute(FLEET)
        assert isinstance(found, ModelManager)
        manager = found
    return manager


# --- what the guide leaves to its reader ------------------------------------------------------


class Source:
    """Users to migrate; records how far it was read ahead of the processed ones."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.processed: list[list[Any]] = []
        self.ahead: list[int] = []

    def __iter__(self) -> Iterator[ModelData]:
        self.processed.append([])
        self.ahead.append(0)
        for index in range(self.count):
            self.ahead[-1] = max(self.ahead[-1], index + 1 - len(self.processed[-1]))
            yield old_user(index)

    def process(self, user: Any) -> None:
        self.processed[-1].append(user)


class Database:
    """The guide's `database`: SQLite, with a log of its queries."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.connection = sqlite3.connect(":memory:")
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("CREATE TABLE saved (first_name TEXT, last_name TEXT)")

    def add_users(self, count: int, columns: str) -> None:
        self.connection.execute(f"CREATE TABLE users ({columns})")
        rows = [(index, old_user(index)["name"]) for index in range(count)]
        self.connection.executemany("INSERT INTO users (id, name) VALUES (?, ?)", rows)

    def query(self, sql: str, *parameters: object) -> list[ModelData]:
        self.log.append("query")
        return [dict(row) for row in self.connection.execute(sql, parameters)]

    def update(self, sql: str, *parameters: object) -> None:
        self.log.append("update")
        self.connection.execute(sql, parameters)

    def save(self, user: BaseModel) -> None:
        self.log.append("save")
        self.connection.execute("INSERT INTO saved VALUES (:first_name, :last_name)", dict(user))

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in self.connection.execute(sql)]


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.connection.close()


class Bar:
    """A `tqdm` that shows nothing and records its progress."""

    made: list["Bar"]

    def __init__(self, items: Iterable[Any] = (), *, desc: str, total: int | None = None) -> None:
        self.items, self.desc, self.total, self.count = items, desc, total, 0
        self.made.append(self)

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            yield item
            self.update(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def update(self, count: int) -> None:
        self.count += count


def old_user(index: int) -> ModelData:
    return {"name": f"First{index} Last{index}"}


def new_names(count: int) -> list[tuple[str, str]]:
    return [(f"First{index}", f"Last{index}") for index in range(count)]


def names(users: Iterable[Any]) -> list[tuple[str, str]]:
    return [(user.first_name, user.last_name) for user in users]


def results_of(manager: ModelManager) -> list[list[Any]]:
    """Record the results of every call of `manager.migrate_batch`."""
    results: list[list[Any]] = []
    migrate_batch = manager.migrate_batch

    def call(*arguments: Any, **options: Any) -> list[Any]:
        results.append(migrate_batch(*arguments, **options))
        return results[-1]

    manager.migrate_batch = call  # type: ignore[method-assign]  # as a spy
    return results


def let_the_last_name_tell_where(manager: ModelManager) -> None:
    """Replace the guide's step by one that writes its process and thread into the user."""

    @manager.migration(*HOP)
    def tell_where(data: ModelData) -> ModelData:
        return {"first_name": data["name"], "last_name": f"{os.getpid()} {threading.get_ident()}"}


def places(users: Iterable[Any]) -> set[tuple[int, int]]:
    told = [last.split() for _, last in names(users)]
    return {(int(process), int(thread)) for process, thread in told}


def here() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


# --- nothing is forgotten ---------------------------------------------------------------------


def test_every_block_is_handled(blocks: dict[str, str], guide_text: str) -> None:
    assert list(blocks) == HANDLED
    assert len(blocks) == guide_text.count("```python\n") == 23


# --- basics -----------------------------------------------------------------------------------


@of(FIRST, also_on_a_fleet=True)
def test_batch_of_the_guide(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    guide = block.run()
    assert isinstance(guide.new_users, list)
    assert [repr(user) for user in guide.new_users] == OLD_USERS_AS_NEW
    assert capsys.readouterr().out == f"[{', '.join(OLD_USERS_AS_NEW)}]\n"
    assert guide.old_users[0] == {"name": "Alice Smith"}  # the input is left as it was


@of("Validated Models (Default)", also_on_a_fleet=True)
def test_validated_models_of_the_guide(block: Block) -> None:
    users = block.run().users
    assert [repr(user) for user in users] == OLD_USERS_AS_NEW
    assert all(isinstance(user, BaseModel) for user in users)


@of("Type-Safe Models", also_on_a_fleet=True)
def test_models_of_a_named_type(block: Block) -> None:
    guide = block.run()
    assert {type(user) for user in guide.users} == {guide.UserV2}
    assert [repr(user) for user in guide.users] == OLD_USERS_AS_NEW


@of("Raw Dictionaries", also_on_a_fleet=True)
def test_raw_dictionaries_of_the_guide(block: Block) -> None:
    guide = block.run()
    assert guide.users == [
        {"first_name": "Alice", "last_name": "Smith"},
        {"first_name": "Bob", "last_name": "Jones"},
        {"first_name": "Carol", "last_name": "White"},
    ]
    nobody = guide.manager.migrate_batch_data([{"name": ""}], *HOP)
    assert nobody == [{"first_name": "", "last_name": ""}]  # which nothing has validated


# --- streams ----------------------------------------------------------------------------------


@of("Streaming Large Datasets", also_on_a_fleet=True)
def test_stream_of_the_guide(
    block: Block, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 12_000 if is_on_fleet(block) else 2500
    database.add_users(count, "id INTEGER PRIMARY KEY, name TEXT")
    block.run(database=database)
    assert database.rows("SELECT * FROM saved") == new_names(count)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Migrated user: {first}" for first, _ in new_names(count)]
    # It is a stream: users are saved while there are more to be fetched.
    last_query = len(database.log) - 1 - database.log[::-1].index("query")
    assert database.log.index("save") < last_query
    if not is_on_fleet(block):
        assert database.log[:2] == ["query", "save"]


@of("Streaming Variants", also_on_a_fleet=True)
def test_three_streams_of_the_guide(block: Block) -> None:
    source = Source(12_000)
    guide = block.run(data_source=source, process=source.process)
    models, typed_models, raw = source.processed
    assert names(models) == names(typed_models) == new_names(12_000)
    assert {type(user).__name__ for user in models} == {"UserV2"}
    assert {type(user) for user in typed_models} == {guide.UserV2}
    assert raw == [{"first_name": first, "last_name": last} for first, last in new_names(12_000)]
    assert max(source.ahead) <= chunks_ahead(block) * 1000


@of("Chunk Size Selection", also_on_a_fleet=True)
def test_chunk_sizes(block: Block) -> None:
    source = Source(12_000)
    block.run(data_source=source, process=source.process)
    assert [names(users) for users in source.processed] == [new_names(12_000)] * 3
    for ahead, chunk_size in zip(source.ahead, (100, 1000, 10_000), strict=True):
        assert ahead <= chunks_ahead(block) * chunk_size
        # On a fleet a chunk is a task; here each record is read when it is asked for.
        assert ahead >= min(chunk_size, 12_000) if is_on_fleet(block) else ahead == 1


def chunks_ahead(block: Block) -> int:
    return 8 if is_on_fleet(block) else 1  # four chunks for each of two workers


# --- threads and processes ----------------------------------------------------------------------


@of("Parallel Processing", also_on_a_fleet=True)
def test_sequential_threads_and_processes_agree(block: Block) -> None:
    results = results_of(block.module.manager)
    block.run()
    assert [[repr(user) for user in users] for users in results] == [OLD_USERS_AS_NEW] * 3
    if not is_on_fleet(block):
        let_the_last_name_tell_where(block.module.manager)
        block.run()
        sequential, threads, processes = map(places, results[3:])
        assert sequential == {here()}
        assert {process for process, _ in threads} == {os.getpid()}
        assert here() not in threads
        assert os.getpid() not in {process for process, _ in processes}


@of("ThreadPoolExecutor (Default)", also_on_a_fleet=True)
def test_threads_of_the_guide(block: Block) -> None:
    assert [repr(user) for user in block.run().users] == OLD_USERS_AS_NEW
    if not is_on_fleet(block):
        let_the_last_name_tell_where(block.module.manager)
        where = places(block.run().users)
        assert {process for process, _ in where} == {os.getpid()}
        assert here() not in where


@of("ProcessPoolExecutor", also_on_a_fleet=True)
def test_processes_of_the_guide(block: Block) -> None:
    assert [repr(user) for user in block.run().users] == OLD_USERS_AS_NEW
    if not is_on_fleet(block):
        let_the_last_name_tell_where(block.module.manager)
        assert os.getpid() not in {process for process, _ in places(block.run().users)}


@of("Worker Count Selection", also_on_a_fleet=True)
def test_worker_count_of_the_guide(block: Block) -> None:
    results = results_of(block.module.manager)
    guide = block.run()
    assert [[repr(user) for user in users] for users in results] == [OLD_USERS_AS_NEW] * 3
    assert guide.cpu_count == (os.cpu_count() or 1)


@of("When to Use Parallel Processing")
def test_steps_that_compute(block: Block) -> None:
    manager = block.module.manager

    @manager.model("Document", "1.0.0")
    class DocumentV1(BaseModel):
        content: str

    @manager.model("Document", "2.0.0")
    class DocumentV2(BaseModel):
        content: str
        sentiment: int
        keywords: list[str]
        summary: str
        process: int

    def analyze_sentiment(text: str) -> int:
        return text.count("good") - text.count("bad")

    documents = [{"content": f"{index} good days", "process": 0} for index in range(200)]
    guide = block.run(
        large_document_list=documents,
        analyze_sentiment=analyze_sentiment,
        extract_keywords=str.split,
        generate_summary=lambda text: f"{text[:4]}… {os.getpid()}",
    )
    assert [document.content for document in guide.documents] == [
        f"{index} good days" for index in range(200)
    ]
    assert {document.sentiment for document in guide.documents} == {1}
    assert guide.documents[7].keywords == ["7", "good", "days"]
    assert guide.documents[7].summary.startswith("7 go… ")
    assert {type(document) for document in guide.documents} == {DocumentV2}
    processes = {int(document.summary.split()[-1]) for document in guide.documents}
    assert os.getpid() not in processes


@of("When to Use Parallel Processing #2")
def test_steps_that_do_little(block: Block) -> None:
    manager = ModelManager()

    @manager.model("User", "1.0.0")
    class UserV1(BaseModel):
        name: str

    @manager.model("User", "2.0.0")
    class UserV2(BaseModel):
        name: str
        status: str

    guide = block.run(manager=manager, users_list=block.module.old_users)
    assert guide.users == [
        UserV2(name="Alice Smith", status="active"),
        UserV2(name="Bob Jones", status="active"),
        UserV2(name="Carol White", status="active"),
    ]


@of("Benchmarking")
def test_benchmark_of_the_guide(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    guide = block.run(Iterable=Iterable)
    measured = r"  Duration: \d+\.\d\ds\n  Throughput: \d+ records/sec\n"
    assert re.fullmatch(
        rf"Sequential:\nMode: Sequential\n{measured}"
        rf"\nThreads \(4 workers\):\nMode: Parallel\n  Type: Threads, Workers: 4\n{measured}"
        rf"\nProcesses \(4 workers\):\nMode: Parallel\n  Type: Processes, Workers: 4\n{measured}",
        capsys.readouterr().out,
    )
    expected = [("User", str(index)) for index in range(10_000)]
    for how in ({}, {"parallel": True}, {"parallel": True, "use_processes": True}):
        users = guide.benchmark_migration(guide.test_data, workers=4, **how)
        assert names(users) == expected


@of("Memory Management")
def test_memory_of_the_guide(block: Block, database: Database) -> None:
    users = [old_user(index) for index in range(2500)]
    Path("large_file.json").write_text(json.dumps(users))
    Path("large_file.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))

    def loads(line: str) -> Any:
        database.log.append("read")
        return json.loads(line)

    guide = block.run(
        json=SimpleNamespace(load=json.load, loads=loads),
        Path=Path,
        Generator=Generator,
        database=database,
    )
    assert names(guide.users) == new_names(2500)
    assert database.rows("SELECT * FROM saved") == new_names(2500)
    # One by one: nothing is read before what was read is saved.
    assert database.log == ["read", "save"] * 2500


# --- errors -----------------------------------------------------------------------------------


@of("Fail Fast (Default)", also_on_a_fleet=True)
def test_the_first_error_ends_a_batch(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    manager = strict_manager(block)
    guide = block.run(manager=manager)
    printed = capsys.readouterr().out
    assert printed.startswith("Migration failed: 1 validation error for UserV2\nfirst_name\n")
    assert not hasattr(guide, "users")

    with pytest.raises(ValidationError) as caught:
        manager.migrate_batch(guide.data, *HOP)
    assert getattr(caught.value, "record_index", None) == 1
    stream = manager.migrate_batch_streaming(guide.data, *HOP)
    assert repr(next(stream)) == OLD_USERS_AS_NEW[0]  # all before the bad one is delivered
    with pytest.raises(ValidationError):
        next(stream)
    assert next(stream, None) is None


@of("Graceful Error Handling")
def test_errors_are_collected(
    block: Block,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    user_data = [{"name": "Alice Smith"}, {"nom": "?"}, {"name": "Bob Jones"}, {"name": 7}]
    guide = block.run(
        Iterable=Iterable,
        user_data=user_data,
        database=database,
        logger=logging.getLogger("guide"),
    )
    assert [repr(user) for user in guide.successful_users] == OLD_USERS_AS_NEW[:2]
    assert database.rows("SELECT * FROM saved") == [("Alice", "Smith"), ("Bob", "Jones")]
    assert [failure["index"] for failure in guide.failed_records] == [1, 3]
    assert [failure["data"] for failure in guide.failed_records] == [user_data[1], user_data[3]]
    assert guide.failed_records[0]["error"] == (
        "Migration failed for 'User': 1.0.0 → 2.0.0\n"
        "Reason: Migration function raised: KeyError: 'name'"
    )
    assert [(log.levelname, log.message, vars(log)["index"]) for log in caplog.records] == [
        ("ERROR", "Migration failed", 1),
        ("ERROR", "Migration failed", 3),
    ]
    assert capsys.readouterr().out.endswith("Successful: 2\nFailed: 2\n")


@of("Retry Logic")
def test_retries(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    guide = block.run(Iterable=Iterable)
    naps: list[int] = []
    guide.time = SimpleNamespace(sleep=naps.append)
    trouble = {"Bob Jones": 2}
    manager: ModelManager = guide.manager
    split_name = guide.split_name

    @manager.migration(*HOP)
    def split_name_when_the_network_is_up(data: ModelData) -> ModelData:
        if trouble.get(data["name"]):
            trouble[data["name"]] -= 1
            raise TimeoutError("the network is down")
        migrated: ModelData = split_name(data)
        return migrated

    users = guide.migrate_with_retry(iter(guide.old_users))
    assert [repr(user) for user in users] == OLD_USERS_AS_NEW
    assert naps == [1, 2]
    assert capsys.readouterr().out == (
        "Attempt 1 failed, retrying in 1s\nAttempt 2 failed, retrying in 2s\n"
    )

    trouble["Bob Jones"] = 3
    with pytest.raises(MigrationError) as caught:
        guide.migrate_with_retry(guide.old_users)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert naps == [1, 2, 1, 2]
    assert "Failed after 3 attempts: Migration failed for 'User'" in capsys.readouterr().out


# --- patterns ---------------------------------------------------------------------------------


@of("Database Migration")
def test_table_of_the_guide(
    block: Block, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    manager = ModelManager()

    @manager.model("User", "1.0.0")
    class UserV1(BaseModel):
        id: int
        name: str

    @manager.model("User", "2.0.0")
    class UserV2(BaseModel):
        id: int
        first_name: str
        last_name: str

    @manager.migration(*HOP)
    def split_name(data: ModelData) -> ModelData:
        first, _, last = data["name"].partition(" ")
        return {"id": data["id"], "first_name": first, "last_name": last}

    columns = "id INTEGER PRIMARY KEY, name TEXT, first_name TEXT, last_name TEXT"
    database.add_users(20_001, columns)
    guide = block.run(Generator=Generator, database=database, manager=manager)
    assert database.log == []  # the block only defines it
    guide.migrate_database_table("users", batch_size=3000)

    table = database.rows("SELECT id, first_name, last_name FROM users ORDER BY id")
    assert table == [(index, *name) for index, name in enumerate(new_names(20_001))]
    assert database.log[:3002] == ["query", *["update"] * 3000, "query"]
    assert capsys.readouterr().out == (
        "Migrated 10000 records...\nMigrated 20000 records...\n"
        "Complete! Migrated 20001 records total\n"
    )


@of("File Processing", also_on_a_fleet=True)
def test_a_directory_of_files(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = Path("data/v1"), Path("data/v2")
    source.mkdir(parents=True)
    (source / "many.json").write_text('[{"name": "Alice Smith"}, {"name": "Zoë"}]')
    (source / "none.json").write_text("[]")
    (source / "one.json").write_text('{"name": "Bob Jones"}')
    (source / "notes.txt").write_text("no JSON")
    block.run()
    assert {path.name: json.loads(path.read_text()) for path in target.iterdir()} == {
        "many.json": [
            {"first_name": "Alice", "last_name": "Smith"},
            {"first_name": "Zoë", "last_name": ""},
        ],
        "none.json": [],
        "one.json": {"first_name": "Bob", "last_name": "Jones"},
    }
    assert (target / "one.json").read_text() == (
        '{\n  "first_name": "Bob",\n  "last_name": "Jones"\n}'
    )
    printed = capsys.readouterr().out
    for name in ("many.json", "none.json", "one.json"):
        assert f"Processing {name}...\n  Saved to {target / name}\n" in printed


@of("CSV Processing", also_on_a_fleet=True)
def test_csv_of_the_guide(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    users = [*map(old_user, range(10_000)), {"name": 'Zoë "Z" O\'Neil, née Nuñez'}]
    with Path("users_v1.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name"])
        writer.writeheader()
        writer.writerows(users)
    guide = block.run(Generator=Generator)
    with Path("users_v2.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["first_name", "last_name"]
    assert rows[:-1] == [list(name) for name in new_names(10_000)]
    assert rows[-1] == ["Zoë", '"Z" O\'Neil, née Nuñez']
    assert capsys.readouterr().out == ("Processed 10000 rows...\nComplete! Migrated 10001 rows\n")

    Path("nobody.csv").write_text("name\n")
    guide.migrate_csv("nobody.csv", "nobody_v2.csv")
    assert Path("nobody_v2.csv").read_text() == ""
    assert capsys.readouterr().out == "Complete! Migrated 0 rows\n"


@of("Progress Tracking")
def test_progress_of_the_guide(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Bar] = []
    monkeypatch.setattr(Bar, "made", bars, raising=False)
    # A stand-in even where there is a tqdm: its counts can be read.
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=Bar))
    guide = block.run(Iterable=Iterable)
    assert bars == []  # the block only defines functions

    users = guide.migrate_with_progress(iter(guide.old_users))
    assert [repr(user) for user in users] == OLD_USERS_AS_NEW
    assert [(bar.desc, bar.count) for bar in bars] == [("Migrating", 3)]

    users = guide.migrate_streaming_with_progress(Source(2500), 2500, desc="Users")
    assert names(users) == new_names(2500)
    assert [(bar.desc, bar.total, bar.count) for bar in bars[1:]] == [("Users", 2500, 2500)]


@of("Monitoring and Logging")
def test_metrics_of_the_guide(block: Block, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    guide = block.run(Iterable=Iterable)
    users = guide.migrate_with_metrics([*guide.old_users, {"nom": "?"}], *HOP)
    assert [repr(user) for user in users] == OLD_USERS_AS_NEW
    error, complete = caplog.records
    assert (error.name, error.levelname, error.message) == ("guide", "ERROR", "Migration error")
    assert vars(error)["record"] == {"nom": "?"}
    assert vars(error)["error"].endswith("raised: KeyError: 'name'")
    assert (complete.levelname, complete.message) == ("INFO", "Migration complete")
    told = vars(complete)
    assert (told["model"], told["from_version"], told["to_version"]) == HOP
    assert (told["records"], told["errors"]) == (3, 1)
    assert told["throughput"] == pytest.approx(3 / told["duration_seconds"])

    def broken_source() -> Iterator[ModelData]:
        yield guide.old_users[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        guide.migrate_with_metrics(broken_source(), *HOP)
    assert caplog.records[-1].message == "Migration failed catastrophically"
