"""Calendars: each minute of a session has its slot, through midnight, daylight saving, holidays and half days."""

import dataclasses
import datetime
import json
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.grid.events import (
    CALENDARS,
    Calendar,
    Segment,
    local_to_utc,
    locate,
    locate_local,
    open_calendar,
    slot_times,
    utc_to_local,
)

MINUTE = np.timedelta64(1, "m")


def times(*texts):
    return np.array(texts, dtype="datetime64[ns]")


def day_number(text):
    return int(np.datetime64(text, "D").astype(np.int64))


def slots_at(calendar, date, *clocks):
    return locate_local(calendar, times(*(f"{date}T{clock}" for clock in clocks)))[1].tolist()


@pytest.mark.parametrize(
    ("name", "num_slots"),
    [("cn_a", 239), ("cn_a_240", 240), ("us_rth", 390), ("crypto_24h", 1440), ("cme_es", 1380), ("hour_of_week", 168)],
)
def test_presets_have_their_slots_and_come_back_from_json(name, num_slots):
    calendar = CALENDARS[name]
    assert calendar.num_slots == num_slots
    assert Calendar.from_json(calendar.to_json()) == calendar


def test_the_minutes_of_an_a_share_day_have_the_known_slots():
    clocks = ["09:25", "09:29", "09:30", "11:29", "11:30", "13:00", "14:56", "14:57", "15:00", "15:01"]
    assert slots_at(CALENDARS["cn_a"], "2024-01-04", *clocks) == [0, -1, 1, 120, -1, 121, 237, -1, 238, -1]


def test_slots_are_half_open_minutes():
    clocks = ["09:24:59.999999999", "09:25:00", "09:25:59.999999999", "09:26", "15:00:59", "15:01"]
    assert slots_at(CALENDARS["cn_a"], "2024-01-04", *clocks) == [-1, 0, 0, -1, 238, -1]


def test_auctions_fold_into_the_continuous_minutes_beside_them():
    calendar = CALENDARS["cn_a_240"]
    clocks = ["09:25", "09:26", "09:30", "11:29", "13:00", "14:57", "14:59", "15:00", "15:01"]
    assert slots_at(calendar, "2024-01-04", *clocks) == [0, -1, 0, 119, 120, 237, 239, 239, -1]
    assert not calendar.layout.auction.any()


def test_utc_and_local_times_agree():
    local = times("2024-01-04T09:30", "2024-01-04T15:00")
    for found, expected in zip(
        locate(CALENDARS["cn_a"], local - 8 * 60 * MINUTE), locate_local(CALENDARS["cn_a"], local), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_session_through_midnight_is_named_by_the_day_it_ends():
    calendar = CALENDARS["cme_es"]
    local = times("2013-09-02T17:00", "2013-09-02T23:59", "2013-09-03T00:00", "2013-09-03T15:59", "2013-09-03T16:00")
    session, slot = locate_local(calendar, local)
    assert slot.tolist() == [0, 419, 420, 1379, -1]
    assert set(session[:4].tolist()) == {day_number("2013-09-03")}
    # Sunday evening is Monday's session; on Friday evening and Saturday there is none.
    evenings = times("2013-09-01T17:30", "2013-09-06T17:30", "2013-09-07T12:00", "2013-09-06T15:59")
    session, slot = locate_local(calendar, evenings)
    assert slot.tolist() == [30, -1, -1, 1379]
    assert session[[0, 3]].tolist() == [day_number("2013-09-02"), day_number("2013-09-06")]


def test_a_night_session_counts_to_its_start_if_told():
    calendar = dataclasses.replace(CALENDARS["cme_es"], session_of="start")
    session, slot = locate_local(calendar, times("2013-09-03T00:00", "2013-09-07T01:00"))
    assert slot.tolist() == [420, 480] and session.tolist() == [day_number("2013-09-02"), day_number("2013-09-06")]


def test_weekends_holidays_and_half_days_have_no_slots():
    calendar = dataclasses.replace(
        CALENDARS["us_rth"], half_days={"2024-11-29": "13:00"}, holidays=("2024-11-28", "2024-12-25")
    )
    assert slots_at(calendar, "2024-11-28", "10:00") == [-1]
    assert slots_at(calendar, "2024-11-29", "12:59", "13:00", "15:59") == [209, -1, -1]
    assert slots_at(calendar, "2024-11-27", "13:00") == [210]
    assert slots_at(calendar, "2024-11-30", "10:00") == [-1]
    days = np.arange(day_number("2024-11-27"), day_number("2024-12-01"))
    assert slot_times(calendar, days).valid.reshape(4, 390).sum(axis=1).tolist() == [390, 0, 210, 0]


def test_a_half_day_of_a_night_session_ends_on_the_next_day():
    calendar = dataclasses.replace(CALENDARS["cme_es"], half_days={"2024-11-29": "12:15"})
    _, slot = locate_local(calendar, times("2024-11-28T18:00", "2024-11-29T12:14", "2024-11-29T12:15"))
    assert slot.tolist() == [60, 1154, -1]


def test_the_clock_set_forward_and_back_in_new_york():
    calendar = CALENDARS["us_rth"]
    # The open is 14:30 UTC in winter and 13:30 UTC in summer; the clocks change on 2024-03-10 and 2024-11-03.
    utc = times("2024-03-08T14:30", "2024-03-11T13:30", "2024-11-01T13:30", "2024-11-04T14:30")
    assert locate(calendar, utc)[1].tolist() == [0, 0, 0, 0]
    assert locate(calendar, utc - MINUTE)[1].tolist() == [-1, -1, -1, -1]
    days = utc.astype("datetime64[D]").astype(np.int64)
    np.testing.assert_array_equal(slot_times(calendar, days).time[::390], utc.astype(np.int64))


def test_a_repeated_hour_is_two_hours_of_utc_in_one_slot():
    calendar = dataclasses.replace(CALENDARS["hour_of_week"], time_zone="America/New_York")
    session, slot = locate(calendar, times("2024-11-03T05:30", "2024-11-03T06:30", "2024-11-03T07:30"))
    assert slot.tolist() == [145, 145, 146]
    frames = slot_times(calendar, np.unique(session).astype(np.int64))
    assert frames.minutes_since_previous[144:148].tolist() == [60, 60, 120, 60]
    assert frames.valid.all()


@pytest.mark.parametrize("minutes", [60, 45, 1])
def test_skipped_slots_are_not_valid_and_times_still_rise(minutes):
    segment = Segment(start="00:00", stop="24:00", days=(0, 1, 2, 3, 4, 5, 6), minutes=minutes)
    calendar = Calendar(name="all day", time_zone="America/New_York", segments=(segment,), continuous=True)
    sunday = day_number("2024-03-10")
    frames = slot_times(calendar, np.array([sunday - 1, sunday, sunday + 1]))
    assert (np.diff(frames.time) > 0).all()
    starts = calendar.layout.start
    skipped = np.tile((starts >= 120) & (starts < 180), 3) & (frames.day == sunday)
    np.testing.assert_array_equal(frames.valid, ~skipped)
    assert set(frames.minutes_since_previous[~skipped][1:].tolist()) <= {minutes, 30}
    assert (frames.minutes_since_previous[skipped] == 0).all()


def test_local_times_that_come_twice_are_the_first_unless_said():
    local = times("2024-11-03T01:30", "2024-03-10T02:30", "2024-07-01T12:00").astype(np.int64)
    first, skipped = local_to_utc("America/New_York", local)
    second, _ = local_to_utc("America/New_York", local, repeated="second")
    assert first.view("datetime64[ns]").astype("datetime64[m]").astype(str).tolist() == [
        "2024-11-03T05:30",
        "2024-03-10T07:30",
        "2024-07-01T16:00",
    ]
    assert ((second - first) // 60_000_000_000).tolist() == [60, 0, 0]
    assert skipped.tolist() == [False, True, False]


ZONES = ("UTC", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu")


@settings(max_examples=30, deadline=None)
@given(zone=st.sampled_from(ZONES), seconds=st.lists(st.integers(0, 2_000_000_000), min_size=1, max_size=5))
def test_time_zones_are_those_of_zoneinfo(zone, seconds):
    utc = np.array(seconds, dtype=np.int64) * 1_000_000_000
    local = utc_to_local(zone, utc)
    for second, clock in zip(seconds, local.tolist(), strict=True):
        there = datetime.datetime.fromtimestamp(second, ZoneInfo(zone))
        assert clock // 1_000_000_000 == second + there.utcoffset().total_seconds()
    first, skipped = local_to_utc(zone, local)
    second, _ = local_to_utc(zone, local, repeated="second")
    assert not skipped.any() and ((first == utc) | (second == utc)).all()


def slow_slots(calendar, utc):
    """Session and slot by the definition, one time after another."""
    found = []
    zone = ZoneInfo(calendar.time_zone)
    for second in (utc // 1_000_000_000).tolist():
        there = datetime.datetime.fromtimestamp(second, zone).replace(tzinfo=None)
        found.append((0, -1))
        for back in (0, 1):
            date = there.date() - datetime.timedelta(days=back)
            minute = (there - datetime.datetime.combine(date, datetime.time())) // datetime.timedelta(minutes=1)
            session = date + datetime.timedelta(days=calendar.layout.days_before)
            if minute in calendar.layout.start and session.weekday() < 5:
                slot = calendar.layout.start.tolist().index(minute)
                found[-1] = (session.toordinal() - datetime.date(1970, 1, 1).toordinal(), slot)
    return found


@pytest.mark.parametrize("name", ["cn_a", "us_rth", "cme_es"])
@pytest.mark.parametrize("num_days", [3, 600])
def test_lookups_equal_the_definition(name, num_days):
    generator = np.random.default_rng(0)
    begin = day_number("2024-10-30") * 86_400
    utc = (begin + generator.integers(0, num_days * 86_400, 20_000)) * 1_000_000_000
    session, slot = locate(CALENDARS[name], utc)
    chosen = generator.choice(20_000, 1000, replace=False)
    expected = np.array(slow_slots(CALENDARS[name], utc[chosen]))
    inside = expected[:, 1] >= 0
    np.testing.assert_array_equal(slot[chosen], expected[:, 1])
    np.testing.assert_array_equal(session[chosen][inside], expected[inside, 0])
    assert inside.sum() > 100


@pytest.mark.parametrize("name", sorted(CALENDARS))
def test_the_start_of_each_slot_is_located_in_it(name):
    calendar = CALENDARS[name]
    days = np.array([day_number("2024-03-04"), day_number("2024-03-11")])
    frames = slot_times(calendar, days)
    session, slot = locate(calendar, frames.time)
    np.testing.assert_array_equal(slot, frames.slot)
    np.testing.assert_array_equal(session, frames.day)
    assert frames.valid.all() and (np.diff(frames.time) > 0).all()


def test_slot_times_know_the_breaks_and_the_auctions():
    frames = slot_times(CALENDARS["cn_a"], np.array([day_number("2024-01-04"), day_number("2024-01-05")]))
    since = frames.minutes_since_previous
    assert since[[0, 1, 2, 121, 238, 239]].tolist() == [0, 5, 1, 91, 4, 18 * 60 + 25]
    assert np.flatnonzero(frames.auction).tolist() == [0, 238, 239, 477]
    assert frames.session.tolist() == frames.day.tolist()


def test_sessions_without_a_break_are_one_until_days_are_missing():
    days = np.array([19000, 19001, 19005, 19006])
    assert slot_times(CALENDARS["crypto_24h"], days).session[::1440].tolist() == [19000, 19000, 19005, 19005]
    weeks = np.array([4, 11, 25])
    assert slot_times(CALENDARS["hour_of_week"], weeks).session[::168].tolist() == [4, 4, 25]


def test_hours_of_the_week_begin_on_monday():
    session, slot = locate(CALENDARS["hour_of_week"], times("2013-01-01T00:00", "2013-01-06T23:59", "2013-01-07T00:00"))
    assert slot.tolist() == [24, 167, 0]
    assert session.tolist() == [day_number("2012-12-31")] * 2 + [day_number("2013-01-07")]


def test_offsets_that_are_no_whole_minutes_are_kept_to_the_second():
    segment = Segment(start="09:00", stop="10:00", days=(0, 1, 2, 3, 4, 5, 6))
    calendar = Calendar(name="Monrovia", time_zone="Africa/Monrovia", segments=(segment,))
    # 44 minutes and 30 seconds behind UTC until 1972.
    utc = times("1971-06-01T09:44:29", "1971-06-01T09:44:30", "1971-06-01T10:44:29", "1971-06-01T10:44:30")
    assert locate(calendar, utc)[1].tolist() == [-1, 0, 59, -1]


def test_not_a_time_belongs_to_no_slot():
    local = times("2024-01-04T09:30", "NaT")
    assert locate_local(CALENDARS["cn_a"], local)[1].tolist() == [1, -1]
    assert locate(CALENDARS["cn_a"], local[:0])[1].tolist() == []


def test_calendars_are_read_from_yaml(tmp_path):
    path = tmp_path / "hourly.yaml"
    path.write_text(
        "name: night\ntime_zone: Asia/Shanghai\nsegments:\n  - {start: 21:00, stop: 02:30, minutes: 60}\n"
        "  - {start: 09:00, stop: 10:15, minutes: 60}\nsession_of: end\nhalf_days: {2024-02-08: 02:30}\n"
    )
    calendar = open_calendar(path)
    assert calendar.layout.start.tolist() == [1260, 1320, 1380, 1440, 1500, 1560, 1980, 2040]
    assert slots_at(calendar, "2024-01-05", "02:29", "02:30", "10:14", "10:15") == [5, -1, 7, -1]
    assert slots_at(calendar, "2024-02-08", "02:29", "09:00") == [5, -1]
    assert open_calendar(json.loads(calendar.to_json())) == calendar == open_calendar(calendar)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": ()}, "expected some with slots"),
        ({"segments": (Segment(start="09:00", stop="10:00"), Segment(start="09:30", stop="11:00"))}, "at most one day"),
        ({"time_zone": "Asia/Peking"}, "IANA name"),
        ({"holidays": ("2024-02-30",)}, "expected dates such as"),
        ({"half_days": {"2024-02-08": "1pm"}}, "time of day"),
        ({"cycle": "week", "holidays": ("2024-02-08",)}, "for the cycle 'day'"),
        ({"segments": (Segment(start="09:00", stop="09:01", fold="next"),)}, "expected some with slots"),
    ],
)
def test_calendars_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CALENDARS["cn_a"], **change)


def test_overlapping_segments_of_a_week_are_refused():
    segments = (Segment(start="22:00", stop="02:00", days=(0,)), Segment(start="01:00", stop="03:00", days=(1,)))
    with pytest.raises(ConfigError, match="do not overlap"):
        Calendar(name="overlap", segments=segments, cycle="week")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": "9:30"}, "09:30"),
        ({"start": "24:00"}, "time of day"),
        ({"minutes": 0}, "1 or more"),
        ({"days": (7,)}, "weekdays"),
    ],
)
def test_segments_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Segment(**{"start": "09:30", "stop": "10:00", **change})


def test_unknown_names_keys_and_types_are_named():
    with pytest.raises(UnknownNameError, match="did you mean 'cn_a'"):
        open_calendar("cna")
    with pytest.raises(ConfigError, match="did you mean 'time_zone'"):
        open_calendar({"name": "x", "timezone": "UTC", "segments": []})
    with pytest.raises(ConfigError, match="expected JSON"):
        Calendar.from_json("{")
    with pytest.raises(DataError, match="int64 nanoseconds"):
        locate(CALENDARS["cn_a"], np.array([1.0]))
    with pytest.raises(DataError, match="rising"):
        slot_times(CALENDARS["cn_a"], np.array([2, 1]))
    with pytest.raises(DataError, match="Mondays"):
        slot_times(CALENDARS["hour_of_week"], np.array([5]))
