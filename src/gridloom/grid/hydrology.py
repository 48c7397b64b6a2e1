"""Made-up water over land: rain, ground, warmth, evaporation and rivers that cause each other, with gaps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.terrain import ATTRIBUTES, Catchments, Terrain, make_catchments, make_terrain

__all__ = ["hydrology"]

_START = np.datetime64("1970-01-01", "D")
_SPIN_UP = 180  # days before the first one, in which the ground forgets how it was begun
_NUM_WAVES = 48
_STORM_TRACK = (70.0, 220.0)  # km per day to the north and to the east
_RESIDUAL = 0.06  # m3 of water per m3 of ground that no root gets
_CLOUDED = 0.4
_YEAR = 365.25


@dataclass(frozen=True, eq=False)
class _Weather:
    """Days by cells of land."""

    rain: np.ndarray
    """mm/day."""
    temperature: np.ndarray
    """degree_Celsius."""
    wetness: np.ndarray
    """What the rain is made from; also below 0, where none falls."""


@dataclass(frozen=True, eq=False)
class _Water:
    """What the ground makes of the weather."""

    soil: np.ndarray
    """Days by cells: m3 of water per m3 of ground."""
    evaporation: np.ndarray
    """Days by places: mean over the catchment, mm/day."""
    runoff: np.ndarray
    """Days by places: what leaves the ground towards the river, mm/day."""
    rain: np.ndarray
    """Days by places: mean over the catchment, mm/day."""


def hydrology(
    *,
    num_days: int = 365,
    height: int = 290,
    width: int = 180,
    num_places: int = 604,
    num_attributes: int = len(ATTRIBUTES),
    patch: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    """Make daily maps and series of an island's water that are connected as real ones are.

    Rain falls from storms that move to the east, more of it on hills. It fills the ground, a bucket in each cell that
    is emptied by evaporation (which follows warmth, season and how wet the ground is) and by drainage: it remembers
    weeks. The wetter the ground, the more of the rain runs off. What runs off a catchment goes through two reservoirs
    into its river, a quick and a slow one; how much through which, and how long it stays, follows from the static
    attributes. All that is observed has noise, so that nothing can be told exactly.

    Only the patches that hold land have data (94 of 522 as given, 18 % in any case); cells of sea inside them have
    none. `soil_moisture` is missing under clouds, of which there are more where it rains. `river_flow` is missing
    before a river's record begins, which at half of the places is up to half of the time after the first day, and in
    random outages of some days. The land and the places depend on the seed and the sizes, not on the number of days.

    Args:
        num_days: Days from 1970-01-01.
        height: Cells from south to north, 48 to 62.5 degrees.
        width: Cells from west to east, -9.5 to 3.1 degrees.
        num_places: Catchments.
        num_attributes: Static attributes. Of the eight that govern the water the first ones; those after the eighth are
            mixtures of them with noise, and govern nothing.
        patch: Side of a patch in cells; divides height and width.
        seed: Other seeds give other land and other weather. The same one gives the same to the bit on one machine;
            processors of another kind may round differently.

    Returns:
        `precipitation` (mm/day), `soil_moisture` (m3 m-3) and `temperature` (degree_Celsius) on time, y and x;
        `evaporation` and `river_flow` (mm/day) on place and time; `static` on place and attribute, with the units of
        each in the coordinate `attribute_units`. float32, NaN where missing. `latitude` and `longitude` are those of
        the places; y and x are degrees too.

    Raises:
        DataError: A size below 1, or a grid that is not made of whole patches.
    """
    if min(num_days, num_places, num_attributes) < 1:
        raise DataError(f"expected 1 day, place and attribute or more, got {num_days}, {num_places}, {num_attributes}")
    for_land, for_places, for_weather, for_noise, for_gaps = np.random.default_rng(seed).spawn(5)
    terrain = make_terrain(for_land, height=height, width=width, patch=patch)
    catchments = make_catchments(for_places, terrain, num_places=num_places)
    names, static = _static(for_places, catchments, num_attributes)
    dates = _START + np.arange(-_SPIN_UP, num_days)
    weather = _weather(for_weather, terrain, dates)
    water = _water(terrain, catchments, weather, dates)
    clouds, outages = _clouds(for_gaps, terrain, weather), _outages(for_gaps, num_days, num_places)

    first = slice(_SPIN_UP, None)
    maps, series = _observe(for_noise, weather, water, catchments)
    maps["soil_moisture"][clouds] = np.nan
    series["river_flow"][first][outages] = np.nan
    units = {"precipitation": "mm/day", "soil_moisture": "m3 m-3", "temperature": "degree_Celsius"}
    variables = {
        name: (("time", "y", "x"), _on_grid(terrain, cells[first]), {"units": units[name]})
        for name, cells in maps.items()
    } | {
        name: (("place", "time"), np.ascontiguousarray(values[first].T, dtype=np.float32), {"units": "mm/day"})
        for name, values in series.items()
    }
    return xr.Dataset(
        variables | {"static": (("place", "attribute"), static, {"units": "see attribute_units"})},
        coords={"time": dates[first].astype("datetime64[ns]")} | _coordinates(terrain, catchments, names),
        attrs={"title": "Made-up water of an island", "source": f"gridloom hydrology, seed {seed}"},
    )


def _coordinates(terrain: Terrain, catchments: Catchments, names: dict[str, str]) -> dict[str, Any]:
    """All but time. Latitude and longitude are those of the places; y and x are degrees as well."""
    return {
        "y": ("y", terrain.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "x": ("x", terrain.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        "place": np.arange(len(catchments.latitude)),
        "latitude": ("place", catchments.latitude, {"units": "degrees_north"}),
        "longitude": ("place", catchments.longitude, {"units": "degrees_east"}),
        "attribute": list(names),
        "attribute_units": ("attribute", list(names.values())),
    }


def _static(
    generator: np.random.Generator, catchments: Catchments, num_attributes: int
) -> tuple[dict[str, str], np.ndarray]:
    """Names with units, and places by attributes."""
    governing = np.stack([catchments.attributes[name] for name in ATTRIBUTES], axis=1)
    num_others = max(0, num_attributes - len(ATTRIBUTES))
    spread = governing.std(axis=0)
    scaled = (governing - governing.mean(axis=0)) / np.where(spread > 0, spread, 1)
    mixed = scaled @ generator.normal(size=(len(ATTRIBUTES), num_others)) / np.sqrt(len(ATTRIBUTES))
    others = mixed + generator.normal(size=mixed.shape)
    names = ATTRIBUTES | {f"mixture_{index}": "1" for index in range(num_others)}
    values = np.concatenate([governing, others], axis=1)[:, :num_attributes]
    return dict(list(names.items())[:num_attributes]), values.astype(np.float32)


def _weather(generator: np.random.Generator, terrain: Terrain, dates: np.ndarray) -> _Weather:
    """Storms, showers, and spells of weeks that are wet, and then mild in winter and cool in summer."""
    num_days, position = len(dates), terrain.position
    storms = _drift(generator, position, num_days, shortest=500.0, longest=2500.0, memory=0.75)
    showers = _drift(generator, position, num_days, shortest=60.0, longest=250.0, memory=0.2)
    air = _drift(generator, position, num_days, shortest=1500.0, longest=5000.0, memory=0.85)
    spells = _drift(generator, position[:1], num_days, shortest=50_000.0, longest=90_000.0, memory=0.93)
    summer = np.cos(2 * np.pi * (_day_of_year(dates) - 205) / _YEAR)[:, None].astype(np.float32)
    wetness = 0.8 * storms + 0.4 * showers + 0.45 * spells - 0.15 * summer - 0.25
    hills = (0.75 + 1.6 * terrain.elevation / 1000).astype(np.float32)
    rain = 8 * hills * np.maximum(wetness, 0) ** 1.4 * _factors(generator, wetness.shape, 0.25)
    height = (0.6 * (terrain.cell_latitude - 54.5) + 0.0065 * terrain.elevation).astype(np.float32)
    temperature = 9.8 + 6 * summer - height + 2.4 * air - summer * (0.8 * storms + 1.2 * spells)
    return _Weather(rain, temperature, wetness)


def _drift(
    generator: np.random.Generator,
    position: np.ndarray,
    num_days: int,
    *,
    shortest: float,
    longest: float,
    memory: float,
) -> np.ndarray:
    """A random field that is carried along the storm track while it is renewed: mean 0, variance 1.

    It is a sum of plane waves. The amplitude of each is an autoregressive process that turns by as much in a day as the
    wave is carried.

    Args:
        generator: Where the draws come from.
        position: Kilometers north and east of each cell.
        num_days: Days.
        shortest: Wavelength in km.
        longest: Wavelength in km.
        memory: Correlation from day to day for one who moves along, 0 to below 1.

    Returns:
        Days by cells, float32.
    """
    length = np.exp(generator.uniform(np.log(shortest), np.log(longest), size=_NUM_WAVES))
    angle = generator.uniform(0, 2 * np.pi, size=_NUM_WAVES)
    waves = 2 * np.pi / length * np.stack([np.sin(angle), np.cos(angle)])
    step = memory * np.exp(-1j * (np.array(_STORM_TRACK) @ waves))
    draws = generator.normal(size=(num_days, 2, _NUM_WAVES)) / np.sqrt(_NUM_WAVES)
    renewal = draws[:, 0] + 1j * draws[:, 1]
    amplitudes = np.empty_like(renewal)
    amplitudes[0] = renewal[0]
    for day in range(1, num_days):
        amplitudes[day] = step * amplitudes[day - 1] + np.sqrt(1 - memory**2) * renewal[day]
    phase = position @ waves
    real = np.concatenate([amplitudes.real, -amplitudes.imag], axis=1).astype(np.float32)
    return np.asarray(real @ np.concatenate([np.cos(phase), np.sin(phase)], axis=1).astype(np.float32).T)


def _water(terrain: Terrain, catchments: Catchments, weather: _Weather, dates: np.ndarray) -> _Water:
    """Fill and empty a bucket in each cell, day by day."""
    capacity = 90 + 250 * terrain.clay  # mm
    drainage = 6 * (1 - terrain.clay)  # mm/day where the ground is full
    pores = 0.36 + 0.3 * terrain.clay  # m3 m-3
    soil = np.empty(weather.rain.shape, dtype=np.float32)
    means = np.empty((len(dates), 3, len(catchments.weights)))
    days = _day_of_year(dates)
    stored = 0.6 * capacity
    for day, rain in enumerate(weather.rain.astype(np.float64)):
        wet = stored / capacity
        demand = _potential_evaporation(terrain.cell_latitude, days[day], weather.temperature[day])
        evaporation = demand * np.minimum(1, wet / 0.6)
        runoff = rain * wet**2 + drainage * wet**4
        stored = np.maximum(stored + rain - runoff - evaporation, 0)
        excess = np.maximum(stored - capacity, 0)
        stored -= excess
        soil[day] = _RESIDUAL + (pores - _RESIDUAL) * stored / capacity
        means[day] = np.stack([evaporation, runoff + excess, rain]) @ catchments.weights.T
    return _Water(soil, *means.transpose(1, 0, 2))


def _potential_evaporation(latitude: np.ndarray, day_of_year: float, temperature: np.ndarray) -> np.ndarray:
    """Evaporation from wet ground in mm/day: Oudin et al. 2005, with the sun at the top of the air as in FAO 56."""
    angle = 2 * np.pi * day_of_year / 365
    tilt = 0.409 * np.sin(angle - 1.39)
    phi = np.deg2rad(latitude)
    half_day = np.arccos(np.clip(-np.tan(phi) * np.tan(tilt), -1, 1))
    sun = half_day * np.sin(phi) * np.sin(tilt) + np.cos(phi) * np.cos(tilt) * np.sin(half_day)
    radiation = 37.6 * (1 + 0.033 * np.cos(angle)) * sun  # MJ m-2 day-1
    return np.asarray(radiation / 2.45 * np.maximum(temperature + 5, 0) / 100)


def _river(catchments: Catchments, water: _Water) -> np.ndarray:
    """Lead what runs off through a quick and a slow reservoir: days by places, mm/day.

    Forest takes a part of it, paved ground lets most of its rain off at once. The quick reservoir holds back for longer
    in catchments that are large, flat or have lakes, the slow one where water goes by the ground.
    """
    of = catchments.attributes
    inflow = water.runoff * (1 - 0.4 * of["forest"])
    inflow = inflow + of["urban"] * (0.6 * water.rain - inflow)
    slow_share = of["base_flow_index"]
    quick_days = np.clip(1.5 * (of["area"] / 150) ** 0.35 * (of["slope"] / 5) ** -0.4, 0.3, 12)
    quick_days = quick_days * (1 + 15 * of["lake"])
    slow_days = 15 + 150 * slow_share**2
    flow = np.empty_like(inflow)
    # both begin as full as the mean inflow keeps them
    quick, slow = (1 - slow_share) * quick_days * inflow.mean(axis=0), slow_share * slow_days * inflow.mean(axis=0)
    for day, water_in in enumerate(inflow):
        quick, slow = quick + (1 - slow_share) * water_in, slow + slow_share * water_in
        from_quick, from_slow = quick * -np.expm1(-1 / quick_days), slow * -np.expm1(-1 / slow_days)
        quick, slow = quick - from_quick, slow - from_slow
        flow[day] = from_quick + from_slow
    return flow


def _observe(
    generator: np.random.Generator, weather: _Weather, water: _Water, catchments: Catchments
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What instruments make of it: maps as days by cells, series as days by places."""
    maps = {
        "precipitation": weather.rain * _factors(generator, weather.rain.shape, 0.15),
        "soil_moisture": np.maximum(water.soil + _noise(generator, water.soil.shape, 0.008), 0),
        "temperature": weather.temperature + _noise(generator, weather.temperature.shape, 0.4),
    }
    evaporation = water.evaporation * (0.8 + 0.5 * catchments.attributes["forest"])  # trees bring up more
    flow = _river(catchments, water)
    series = {
        "evaporation": evaporation * _factors(generator, evaporation.shape, 0.1),
        "river_flow": flow * _factors(generator, flow.shape, 0.08),
    }
    return maps, series


def _clouds(generator: np.random.Generator, terrain: Terrain, weather: _Weather) -> np.ndarray:
    """Days by cells: True where a cloud hides the ground."""
    field = _drift(generator, terrain.position, len(weather.wetness), shortest=250.0, longest=1500.0, memory=0.3)
    field = field + 0.7 * weather.wetness
    return np.asarray(field > np.quantile(field, 1 - _CLOUDED))


def _outages(generator: np.random.Generator, num_days: int, num_places: int) -> np.ndarray:
    """Days by places: True before the record begins, and in outages of ten days on average, one in 200 days."""
    late = generator.random(num_places) < 0.5
    begin = np.where(late, generator.uniform(0.05, 0.5, size=num_places), 0) * num_days
    missing = np.arange(num_days)[:, None] < begin
    out = np.zeros(num_places, dtype=bool)
    for day, chance in enumerate(generator.random((num_days, num_places))):
        out = np.where(out, chance > 1 / 10, chance < 1 / 200)
        missing[day] |= out
    return np.asarray(missing)


def _on_grid(terrain: Terrain, cells: np.ndarray) -> np.ndarray:
    """Put days by cells of land onto the grid, NaN elsewhere."""
    grid = np.full((len(cells), *terrain.land.shape), np.nan, dtype=np.float32)
    grid[:, terrain.land] = cells
    return grid


def _day_of_year(dates: np.ndarray) -> np.ndarray:
    """Count from 1 on January 1, as float64."""
    return np.asarray((dates - dates.astype("datetime64[Y]").astype(dates.dtype)).astype(np.float64) + 1)


def _noise(generator: np.random.Generator, shape: tuple[int, ...], spread: float) -> np.ndarray:
    return np.asarray(generator.standard_normal(shape, dtype=np.float32) * np.float32(spread))


def _factors(generator: np.random.Generator, shape: tuple[int, ...], spread: float) -> np.ndarray:
    """Random factors around 1 that keep the mean."""
    return np.asarray(np.exp(_noise(generator, shape, spread) - np.float32(spread**2 / 2)))
