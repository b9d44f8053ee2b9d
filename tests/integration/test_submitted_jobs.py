"""Submitted jobs, driven by coordinators in processes of their own, whatever happens to these."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.service import (
    Service,
    loop,
    names_in,
    service_of,
)
from tests.people import person


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with service_of(tmp_path) as service:
        yield service


def test_jobs_both_ways_have_the_bytes_of_a_loop(service: Service) -> None:
    records = [person(index) for index in range(2000)]
    jobs = [
        service.submit(records, by_reference="always"),
        service.submit(records, by_reference="never", chunk_size=100),
    ]
    process = service.coordinator("--until-idle")
    for job in jobs:
        view = service.wait_for_end(job)
        assert view.state == "succeeded", view.stopped
        assert service.output(job) == loop(records)
    assert process.wait(30) == 0
    assert all(names_in(job) == {"spec.json", "want.json", "log.1"} for job in jobs)
