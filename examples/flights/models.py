"""What is kept: the flights belong to their airline, everything they refer to is shared by all of them."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from tenantry import Indexed, KeyedModel, Ref, Searchable, Shared


class Airport(Shared, KeyedModel):
    """An airport of the United States, by its FAA code."""

    __collection__ = "airports"

    id: str
    name: Annotated[str, Searchable]
    latitude: float
    longitude: float
    altitude: int
    utc_offset: int
    daylight_saving: str
    time_zone: str | None


class Plane(Shared, KeyedModel):
    """An aircraft in the register of 2013, by its tail number."""

    __collection__ = "planes"

    id: str
    year: int | None
    type: str
    manufacturer: str
    model: str
    engines: int
    seats: int
    speed: int | None
    engine: str


class Weather(Shared, KeyedModel):
    """One hour of weather at one of New York's three airports, by :func:`weather_id`."""

    __collection__ = "weather"

    id: str
    origin: Annotated[str, Ref("airports")]
    hour: dt.datetime
    temperature: float | None
    dew_point: float | None
    humidity: float | None
    wind_direction: int | None
    wind_speed: float | None
    wind_gust: float | None
    precipitation: float
    pressure: float | None
    visibility: float


def weather_id(origin: str, hour: dt.datetime) -> str:
    """Return the id of the weather at an airport in an hour."""
    return f"{origin}-{hour:%Y-%m-%dT%H}Z"


class Flight(KeyedModel):
    """One flight of one airline. Its id is its row in the data set, counted from 1.

    Clock times are local and written as in the data set, 517 for 5:17; delays and times in the air are minutes. The
    register lacks the aircraft of 50,094 flights and the airport lists lack four destinations, so these references
    are followed but not enforced.
    """

    __collection__ = "flights"
    __indexes__ = (("number", "date"),)

    id: int
    date: Annotated[dt.date, Indexed]
    number: int
    tail_number: Annotated[str | None, Ref("planes", enforced=False, relation="plane")]
    origin: Annotated[str, Ref("airports")]
    destination: Annotated[str, Ref("airports", enforced=False)]
    scheduled_departure: int
    departure: int | None
    departure_delay: int | None
    scheduled_arrival: int
    arrival: int | None
    arrival_delay: int | None
    minutes_in_air: int | None
    miles: int
    hour: dt.datetime


MODELS = (Airport, Plane, Weather, Flight)
