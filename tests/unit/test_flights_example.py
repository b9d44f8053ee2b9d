"""The flights example: every kind of row by hand, and the whole sample by its invariants."""

import importlib.util
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


flights = load("flights")
convert_flights = load("convert_flights")
Flight = Any  # flights.FlightV3, which is loaded too late for a type checker

HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,"
    "flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
NORMAL = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
CANCELLED = "2013,6,2,NA,1829,NA,NA,2033,NA,US,1973,NA,EWR,CLT,NA,529,18,29,2013-06-02T22:00:00Z"
CLOCKS_FORWARD = (
    "2013,3,9,2306,2145,81,203,34,89,B6,35,N658JB,JFK,PBI,141,1028,21,45,2013-03-10T02:00:00Z"
)


def parse(line: str) -> dict[str, Any]:
    cells = dict(zip(HEADER.split(","), line.split(","), strict=True))
    return {name: int(cell) if cell.lstrip("-").isdigit() else cell for name, cell in cells.items()}


def migrate(row: dict[str, Any]) -> Flight:
    return flights.manager.migrate(row, "Flight", "1.0.0", "3.0.0")


def times(flight: Flight) -> tuple[str, str]:
    """Return the scheduled and the actual time of both legs as text, with their offsets."""

    def text(instant: datetime | None) -> str:
        return instant.isoformat(timespec="minutes") if instant else "NA"

    departure, arrival = flight.departure, flight.arrival
    return (
        f"{text(departure.scheduled)} {text(departure.actual)}",
        f"{text(arrival.scheduled)} {text(arrival.actual)}",
    )


@pytest.fixture(scope="module")
def sample() -> list[dict[str, Any]]:
    lines = (EXAMPLES / "data" / "flights-sample.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("line", "departure", "arrival"),
    [
        pytest.param(
            NORMAL,
            "2013-01-01T05:15-05:00 2013-01-01T05:17-05:00",
            "2013-01-01T08:19-06:00 2013-01-01T08:30-06:00",
            id="normal",
        ),
        pytest.param(
            CANCELLED,
            "2013-06-02T18:29-04:00 NA",
            "2013-06-02T20:33-04:00 NA",
            id="cancelled",
        ),
        pytest.param(
            "2013,10,7,10,2137,153,318,27,171,B6,1371,N535JB,LGA,FLL,158,1076,21,37,2013-10-08T01:00:00Z",
            "2013-10-07T21:37-04:00 2013-10-08T00:10-04:00",
            "2013-10-08T00:27-04:00 2013-10-08T03:18-04:00",
            id="left and landed past midnight",
        ),
        pytest.param(
            "2013,2,7,2400,2359,1,432,436,-4,B6,727,N559JB,JFK,BQN,186,1576,23,59,2013-02-08T04:00:00Z",
            "2013-02-07T23:59-05:00 2013-02-08T00:00-05:00",
            "2013-02-08T04:36-04:00 2013-02-08T04:32-04:00",
            id="left at 2400",
        ),
        pytest.param(
            "2013,6,13,2023,2000,23,2400,2140,140,MQ,3591,N738MQ,LGA,RDU,67,431,20,0,2013-06-14T00:00:00Z",
            "2013-06-13T20:00-04:00 2013-06-13T20:23-04:00",
            "2013-06-13T21:40-04:00 2013-06-14T00:00-04:00",
            id="landed at 2400",
        ),
        pytest.param(
            "2013,1,9,641,900,1301,1242,1530,1272,HA,51,N384HA,JFK,HNL,640,4983,9,0,2013-01-09T14:00:00Z",
            "2013-01-09T09:00-05:00 2013-01-10T06:41-05:00",
            "2013-01-09T15:30-10:00 2013-01-10T12:42-10:00",
            id="Honolulu, nearly a day late",
        ),
        pytest.param(
            "2013,7,6,1629,1615,14,1954,1953,1,UA,887,N587UA,EWR,ANC,418,3370,16,15,2013-07-06T20:00:00Z",
            "2013-07-06T16:15-04:00 2013-07-06T16:29-04:00",
            "2013-07-06T19:53-08:00 2013-07-06T19:54-08:00",
            id="Anchorage",
        ),
        pytest.param(
            "2013,10,10,2056,2054,2,452,2359,NA,B6,523,N708JB,JFK,LAX,NA,2475,20,54,2013-10-11T00:00:00Z",
            "2013-10-10T20:54-04:00 2013-10-10T20:56-04:00",
            "2013-10-10T23:59-07:00 2013-10-11T04:52-07:00",
            id="diverted, arrived in the end",
        ),
        pytest.param(
            "2013,1,30,1025,635,230,NA,934,NA,B6,983,N568JB,LGA,TPA,NA,1010,6,35,2013-01-30T11:00:00Z",
            "2013-01-30T06:35-05:00 2013-01-30T10:25-05:00",
            "2013-01-30T09:34-05:00 NA",
            id="diverted, never arrived",
        ),
        pytest.param(
            CLOCKS_FORWARD,
            "2013-03-09T21:45-05:00 2013-03-09T23:06-05:00",
            "2013-03-10T00:34-05:00 2013-03-10T03:03-04:00",
            id="clocks went forward in flight",
        ),
        pytest.param(
            "2013,3,9,53,2359,54,504,438,26,B6,727,N612JB,JFK,BQN,175,1576,23,59,2013-03-10T04:00:00Z",
            "2013-03-09T23:59-05:00 2013-03-10T00:53-05:00",
            "2013-03-10T04:38-04:00 2013-03-10T05:04-04:00",
            id="clocks went forward, but not in Puerto Rico",
        ),
        pytest.param(
            "2013,11,2,2358,2359,-1,350,340,10,B6,1503,N594JB,JFK,SJU,206,1598,23,59,2013-11-03T03:00:00Z",
            "2013-11-02T23:59-04:00 2013-11-02T23:58-04:00",
            "2013-11-03T03:40-04:00 2013-11-03T03:50-04:00",
            id="clocks went back, but not in Puerto Rico",
        ),
    ],
)
def test_local_times_become_utc(line: str, departure: str, arrival: str) -> None:
    assert times(migrate(parse(line))) == (departure, arrival)


@pytest.mark.parametrize(
    ("changes", "departure", "arrival"),
    [
        pytest.param(
            {"month": 11, "day": 3, "sched_dep_time": 130, "sched_arr_time": 110, "dest": "BOS"},
            "2013-11-03T01:30-04:00 2013-11-03T01:32-04:00",
            "2013-11-03T01:10-05:00 2013-11-03T01:21-05:00",
            id="lands before it left, by the clock",
        ),
        pytest.param(
            {"month": 11, "day": 3, "sched_dep_time": 45, "sched_arr_time": 155, "dest": "BOS"},
            "2013-11-03T00:45-04:00 2013-11-03T00:47-04:00",
            "2013-11-03T01:55-04:00 2013-11-03T01:06-05:00",
            id="late into the hour that comes twice",
        ),
        pytest.param(
            {"month": 3, "day": 10, "sched_dep_time": 45, "sched_arr_time": 230, "dest": "BUF"},
            "2013-03-10T00:45-05:00 2013-03-10T00:47-05:00",
            "2013-03-10T03:30-04:00 2013-03-10T03:41-04:00",
            id="scheduled for a time that is skipped",
        ),
        pytest.param(
            {"month": 12, "day": 31, "sched_dep_time": 2200, "sched_arr_time": 2400, "dest": "BUF"},
            "2013-12-31T22:00-05:00 2013-12-31T22:02-05:00",
            "2014-01-01T00:00-05:00 2014-01-01T00:11-05:00",
            id="scheduled for the end of the year",
        ),
        pytest.param(
            {"month": 7, "day": 1, "sched_dep_time": 900, "sched_arr_time": 1125, "dest": "PHX"},
            "2013-07-01T09:00-04:00 2013-07-01T09:02-04:00",
            "2013-07-01T11:25-07:00 2013-07-01T11:36-07:00",
            id="no summer time in Phoenix",
        ),
    ],
)
def test_rare_cases_with_made_up_rows(
    changes: dict[str, Any], departure: str, arrival: str
) -> None:
    assert times(migrate(parse(NORMAL) | changes)) == (departure, arrival)


def test_durations_are_right_across_a_clock_change() -> None:
    flight = migrate(parse(CLOCKS_FORWARD))
    assert flight.arrival.actual - flight.departure.actual == timedelta(minutes=177)
    assert flight.arrival.actual - flight.arrival.scheduled == timedelta(minutes=89)


def test_a_flight_of_today_has_two_legs() -> None:
    assert migrate(parse(NORMAL)).model_dump(mode="json") == {
        "carrier": "UA",
        "flight": 1545,
        "tailnum": "N14228",
        "departure": {
            "airport": "EWR",
            "scheduled": "2013-01-01T05:15:00-05:00",
            "actual": "2013-01-01T05:17:00-05:00",
            "delay": 2,
        },
        "arrival": {
            "airport": "IAH",
            "scheduled": "2013-01-01T08:19:00-06:00",
            "actual": "2013-01-01T08:30:00-06:00",
            "delay": 11,
        },
        "cancelled": False,
        "air_time": 227,
        "distance": 1400,
    }


def test_na_becomes_none() -> None:
    flight = migrate(parse(CANCELLED))
    assert flight.cancelled
    assert (flight.departure.delay, flight.arrival.delay) == (None, None)
    assert (flight.tailnum, flight.air_time) == (None, None)


def test_an_unknown_airport_is_an_error() -> None:
    with pytest.raises(KeyError, match="XXX"):
        flights.give_times_a_date_and_an_offset(parse(NORMAL) | {"dest": "XXX"})


def test_the_whole_sample_is_valid_at_every_version(sample: list[dict[str, Any]]) -> None:
    manager = flights.manager
    assert len(sample) == 5_000
    for row in sample:
        manager.get("Flight", "1.0.0").model_validate(row)
        for version in ("2.0.0", "3.0.0"):
            data = manager.migrate_data(row, "Flight", "1.0.0", version)
            assert manager.get("Flight", version).model_validate(data).model_dump() == data


def test_a_step_leaves_its_input_alone() -> None:
    first = parse(NORMAL)
    second = flights.give_times_a_date_and_an_offset(first)
    assert first == parse(NORMAL)
    before = dict(second)
    third = flights.split_into_legs(second)
    assert second == before
    assert third is not second


def test_stored_json_of_the_second_version_migrates_equally(sample: list[dict[str, Any]]) -> None:
    manager = flights.manager
    for row in sample[::50]:
        stored = manager.migrate(row, "Flight", "1.0.0", "2.0.0").model_dump_json()
        assert manager.migrate(json.loads(stored), "Flight", "2.0.0", "3.0.0") == migrate(row)


def test_the_sample_agrees_with_itself(sample: list[dict[str, Any]]) -> None:
    """Two columns hold independently what the steps compute: `time_hour` and `air_time`."""
    for row in sample:
        flight = migrate(row)
        hour = datetime.fromisoformat(row["time_hour"])
        assert flight.departure.scheduled.astimezone(UTC).replace(minute=0) == hour
        assert flight.cancelled == (row["dep_time"] == "NA")
        if flight.air_time is not None:
            elapsed = flight.arrival.actual - flight.departure.actual
            on_the_ground = elapsed - timedelta(minutes=flight.air_time)
            assert timedelta(0) < on_the_ground < timedelta(hours=4)


def test_sample_covers_rare_cases(sample: list[dict[str, Any]]) -> None:
    migrated = [migrate(row) for row in sample]
    legs = [(flight.departure, flight.arrival) for flight in migrated if not flight.cancelled]
    diverted = [arrival for _, arrival in legs if arrival.delay is None]
    overnight = [
        arrival
        for departure, arrival in legs
        if arrival.actual and arrival.actual.date() > departure.actual.date()
    ]
    assert len(migrated) - len(legs) == 108
    assert len([arrival for arrival in diverted if arrival.actual]) == 72
    assert len([arrival for arrival in diverted if not arrival.actual]) == 77
    assert len(overnight) == 189
    assert {"ANC", "BQN", "HNL", "PHX", "PSE", "SJU", "STT"} <= {row["dest"] for row in sample}


@pytest.mark.parametrize("zipped", [False, True])
def test_the_csv_becomes_rows_of_the_first_version(tmp_path: Path, *, zipped: bool) -> None:
    source, target = tmp_path / "flights.csv", tmp_path / "flights.jsonl"
    text = f"{HEADER}\n{NORMAL}\n{CANCELLED}\n{NORMAL}\n"
    if zipped:
        source = tmp_path / "flights.csv.zip"
        with ZipFile(source, "w") as archive:
            archive.writestr("flights.csv", text)
    else:
        source.write_text(text, encoding="utf-8")
    assert convert_flights.convert(source, target, limit=2) == 2
    lines = target.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [parse(NORMAL), parse(CANCELLED)]
    assert lines[0].startswith('{"year":2013,"month":1,"day":1,"dep_time":517,')
    assert convert_flights.convert(source, target) == 3
