"""Runs of records: from an iterable through a fleet to a stream."""

from collections.abc import Generator
from contextlib import closing
from typing import Any

from pyrmute_tasks.engine.batch import Batch
from pyrmute_tasks.engine.error_policy import ErrorHandling
from pyrmute_tasks.engine.pipeline import ChunkResult
from pyrmute_tasks.engine.record_source import RecordSink, RecordSource
from pyrmute_tasks.engine.results import ResultConverter
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.engine.stream import Stream
from pyrmute_tasks.errors import MigratorClosedError
from pyrmute_tasks.fleet_jobs import FleetJobs
from pyrmute_tasks.settings import compression_of

__all__ = ["stream_records"]


def stream_records(batch: Batch, jobs: FleetJobs) -> Stream[Any]:
    """Return the outputs of a batch, which a fleet runs once the first one is requested."""
    run = jobs.new_run(batch.observers())
    return Stream(_outputs(batch, jobs, run, jobs.times_closed), run.tally)


def _outputs(
    batch: Batch, jobs: FleetJobs, run: Run, times_closed: int
) -> Generator[Any, None, None]:
    if times_closed != jobs.times_closed:
        raise MigratorClosedError(
            "the Migrator was closed before this stream was read; read it inside of the with block"
        )
    source = RecordSource(
        batch.records, batch.options.chunk_size, jobs.window_bytes, compression_of(jobs.settings)
    )
    with run, closing(source):
        if not source.has_records():
            return
        plan = jobs.manager.plan(batch.name, batch.from_version, batch.to_version)
        batch.wanted.output(plan)  # raise for a missing target before anything is sent
        converter = ResultConverter(plan, batch.wanted, batch.errors.policy.skips)
        sink = RecordSink(converter, jobs.manager.hooks)
        with jobs.start(plan, source, sink, run, batch.errors) as job:
            for result in job.results():
                yield from _in_order(result, batch.errors)
    failure = run.report.failure
    if failure is not None:
        raise failure.exception()


def _in_order(result: ChunkResult[list[Any]], errors: ErrorHandling) -> Generator[Any, None, None]:
    """Yield a chunk's outputs, and tell of each reject where its output would stand."""
    begin = 0
    for number, reject in enumerate(result.rejects):
        end = result.position_of(number)
        yield from result.outputs[begin:end]
        errors.tell(reject)
        begin = end
    yield from result.outputs[begin:] if begin else result.outputs
