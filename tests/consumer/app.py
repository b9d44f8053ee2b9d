"""A user's module: every kind of call, with the types a user relies on."""

import io
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

from pydantic import BaseModel

from pyrmute_tasks import (
    AsyncMigrator,
    AuditReport,
    BatchMigrator,
    ChunkDelivered,
    DryRun,
    Event,
    JobEnded,
    JobReport,
    Manager,
    MetricsHook,
    MigrationPlan,
    MigrationTestResults,
    Migrator,
    ModelData,
    ModelManager,
    ModelVersion,
    RecordFailure,
    RecordLike,
    Retry,
    Settings,
    Stream,
    Window,
    in_thread,
    record_index,
)

manager = ModelManager()
HOP = ("User", "1.0.0", "2.0.0")


@manager.model("User", "1.0.0")
class UserV1(BaseModel):
    name: str


@manager.model("User", "2.0.0", backward_compatible=True)
class UserV2(BaseModel):
    name: str
    active: bool = True


class Slim(BaseModel):
    name: str


@dataclass
class Row:
    name: str


@manager.migration("User", "1.0.0", "2.0.0")
def activate(data: ModelData) -> ModelData:
    return {**data, "active": True}


def look_up() -> None:
    assert_type(UserV2(name="Ada").active, bool)
    assert_type(activate({"name": "Ada"}), dict[str, Any])
    assert_type(manager.get("User", "1.0.0"), type[BaseModel])
    assert_type(manager.get_latest("User"), type[BaseModel])
    assert_type(manager.list_models(), list[str])
    assert_type(manager.list_versions("User"), list[ModelVersion])
    assert_type(manager.has_migration_path(*HOP), bool)
    assert_type(manager.validate_data({"name": "Ada"}, "User", "1.0.0"), bool)
    assert_type(manager.plan(*HOP), MigrationPlan)
    assert_type(manager.plan(*HOP).fingerprint, str)
    results = manager.test_migration(*HOP, [({"name": "Ada"}, None)])
    assert_type(results, MigrationTestResults)
    hook = MetricsHook()
    manager.add_hook(hook)
    assert_type(hook.success_rate, float)


def one_record(record: Mapping[str, Any], row: Row, user: UserV1) -> None:
    assert_type(manager.migrate(record, *HOP), BaseModel)
    assert_type(manager.migrate_as(row, *HOP, target_type=Slim), Slim)
    assert_type(manager.migrate_data(user, *HOP), dict[str, Any])


def many_records(migrator: BatchMigrator, rows: Iterable[RecordLike]) -> None:
    assert_type(migrator.migrate_batch(rows, *HOP, progress=True), list[BaseModel])
    assert_type(migrator.migrate_batch_as(rows, *HOP, Slim), list[Slim])
    assert_type(migrator.migrate_batch_data(rows, *HOP, chunk_size=10), list[dict[str, Any]])
    stream = migrator.migrate_batch_streaming(in_thread(rows), *HOP, observers=[watch])
    assert_type(stream, Stream[BaseModel])
    assert_type(stream.report, JobReport)
    for user in stream:
        assert_type(user, BaseModel)
    for slim in migrator.migrate_batch_streaming_as(rows, *HOP, Slim):
        assert_type(slim, Slim)
    assert_type(next(migrator.migrate_batch_data_streaming(rows, *HOP)), dict[str, Any])


def watch(event: Event) -> None:
    if isinstance(event, JobEnded):
        assert_type(event.report, JobReport)
        assert_type(event.report.failure, RecordFailure | None)
    elif isinstance(event, ChunkDelivered):
        assert_type(event.count, int)


def start(any_manager: Manager) -> None:
    settings = Settings(queue="users", stall_s=30)
    retry = Retry(on=[ConnectionError, "builtins:TimeoutError"])
    with Migrator.embedded(manager, workers=2, settings=settings, retry=retry) as migrator:
        many_records(migrator, [{"name": "Ada"}, Row("Ada"), UserV1(name="Ada")])
    with Migrator.connect(any_manager, "valkey://localhost", window=Window(8)) as migrator:
        assert_type(migrator.last_report, JobReport | None)
    assert_type(Migrator.from_env("app:manager", ignore_unknown=True), Migrator)
    Migrator(manager, settings=settings).close()


def files(migrator: Migrator, target: Path) -> None:
    with open("in.jsonl", "rb") as source, open("out.jsonl", "w", encoding="utf-8") as text:
        assert_type(migrator.migrate_file(source, target, *HOP), JobReport)
        migrator.migrate_file("in.jsonl", text, *HOP, observers=[watch], progress=True)
    report = migrator.run_file(io.BytesIO(b"{}"), io.BytesIO(), *HOP)
    if report.failure is not None:
        assert_type(report.failure.index, int)
        assert_type(record_index(report.failure.exception()), int | None)
    assert_type(migrator.audit([{"name": "Ada"}], *HOP), AuditReport)
    assert_type(migrator.dry_run("in.jsonl", "out.jsonl", *HOP), DryRun)


many_records(manager, [{"name": "Ada"}])


async def in_an_event_loop(rows: AsyncIterator[Row], old: list[ModelData]) -> None:
    async with AsyncMigrator(Migrator(manager)) as migrator:
        assert_type(await migrator.migrate_batch(old, *HOP), list[BaseModel])
        stream = migrator.migrate_batch_streaming_as(rows, *HOP, Slim)
        async with stream:
            async for slim in stream:
                assert_type(slim, Slim)
        assert_type(stream.report, JobReport | None)
        assert_type(await migrator.migrate_file("a.jsonl", "b.jsonl", *HOP), JobReport)
