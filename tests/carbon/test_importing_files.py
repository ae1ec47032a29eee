"""Files of emission factors: formats, clocks that change, values that can't be, gaps."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.carbon.importing_files import LAYOUTS, Wanted, layout_of, read_factors_file, spans_of
from metering.carbon.importing_slots import instants_of
from metering.carbon.listing import grams
from metering.errors import Unprocessable
from metering.rules.periods import PARIS

RTE_HEADER = (
    "Périmètre\tNature\tDate\tHeures\tConsommation\tPrévision J-1\tPrévision J\tFioul\tCharbon\tGaz\tNucléaire\tEolien"
    "\tSolaire\tHydraulique\tPompage\tBioénergies\tEch. physiques\tTaux de Co2\tEch. comm. Angleterre\t"
)
DISCLAIMER = (
    "RTE ne pourra être tenu responsable de l'usage qui pourrait être fait des données mises à disposition,"
    " ni en cas de prévisions imprécises."
)
EM_HEADER = (
    "Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),"
    "Carbon intensity gCO₂eq/kWh (Life cycle),Carbon-free energy percentage (CFE%),Renewable energy percentage (RE%),"
    "Data source,Data estimated,Data estimation method"
)


def rte(*rows, nature="Données définitives", encoding="latin-1"):
    """A file as RTE writes it: (date, time, grams); a row without grams has forecasts only."""
    lines = [RTE_HEADER]
    for day, time, value in rows:
        measured = [
            "65000",
            "64000",
            "64500",
            "100",
            "20",
            "3000",
            "45000",
            "2000",
            "0",
            "9000",
            "-100",
            "1000",
            "-5000",
        ]
        cells = [
            "France",
            nature,
            day,
            time,
            *(measured if value else ["", "64000", "64500", *[""] * 10]),
            value,
            "-500",
        ]
        lines.append("\t".join(cells) + "\t")
    return "\n".join([*lines, DISCLAIMER, ""]).encode(encoding)


def wanted(form="rte", *, zone=None, version=None, source="test", **columns):
    layout = layout_of(form, **({"starts": None, "ends": None, "value": None, "clock": None} | columns))
    return Wanted("location", source, layout, zone or ("FR" if form == "rte" else None), version)


def day_of(day, *, minutes=30, value=None):
    """Rows of a day of 24 hours, each with the number of its row as its value."""
    times = [f"{at // 60:02}:{at % 60:02}" for at in range(0, 24 * 60, minutes)]
    return [(day, time, value or str(number + 1)) for number, time in enumerate(times)]


def slots_of(content, **options):
    return [
        (one.starts_at, one.ends_at, one.ugco2e_per_kwh)
        for one in read_factors_file(content, wanted(**options)).factors
    ]


def refusal(content, **options):
    with pytest.raises(Unprocessable) as refused:
        read_factors_file(content, wanted(**options))
    return refused.value


def at(text):
    return datetime.fromisoformat(text).astimezone(UTC)


def test_a_file_of_rte_is_read_as_it_is_published():
    """Half-hours with a value, quarters with forecasts only, a sentence at the end; by the clock of Paris."""
    rows = [("2020-06-01", "00:00", "23"), ("2020-06-01", "00:15", ""), ("2020-06-01", "00:30", "24"),
            ("2020-06-01", "00:45", ""), ("2020-06-01", "01:00", "25")]  # fmt: skip
    read = read_factors_file(rte(*rows), wanted())
    assert (read.rows, read.without_value) == (5, 2)
    assert [(one.starts_at, one.ends_at, one.ugco2e_per_kwh) for one in read.factors] == [
        (at("2020-06-01T00:00+02:00"), at("2020-06-01T00:30+02:00"), 23_000_000),
        (at("2020-06-01T00:30+02:00"), at("2020-06-01T01:00+02:00"), 24_000_000),
        (at("2020-06-01T01:00+02:00"), at("2020-06-01T01:30+02:00"), 25_000_000),
    ]
    assert {(one.zone, one.kind, one.source, one.version, one.is_last_resort) for one in read.factors} == {
        ("FR", "location", "test", "donnees-definitives", False)
    }


def test_days_written_day_first_quarters_and_other_natures_are_read():
    content = rte(("01/06/2026", "00:00", "23"), ("01/06/2026", "00:15", "24"), nature="Données temps réel")
    read = read_factors_file(content, wanted())
    assert read.factors[1].starts_at == at("2026-06-01T00:15+02:00")
    assert read.factors[1].ends_at - read.factors[1].starts_at == timedelta(minutes=15)
    assert read.factors[0].version == "donnees-temps-reel"
    assert read_factors_file(content, wanted(version="mine")).factors[0].version == "mine"
    assert read_factors_file(
        rte(("2026-06-01", "00:00", "1"), ("2026-06-01", "01:00", "2"), encoding="utf-8"), wanted()
    )


def test_the_hour_that_spring_leaves_out_is_not_taken():
    """RTE's files have 24 hours on that day too: the third is a phantom."""
    read = read_factors_file(rte(*day_of("2025-03-30")), wanted())
    assert (len(read.factors), read.slots.skipped, read.slots.doubled) == (46, 2, 0)
    assert read.slots.gaps() == []
    assert sum((one.ends_at - one.starts_at for one in read.factors), timedelta()) == timedelta(hours=23)
    by_start = {one.starts_at: one.ugco2e_per_kwh for one in read.factors}
    assert by_start[at("2025-03-30T01:30+01:00")] == 4_000_000
    assert by_start[at("2025-03-30T03:00+02:00")] == 7_000_000


def test_the_hour_that_autumn_has_twice_is_both_hours_where_the_file_has_it_once():
    read = read_factors_file(rte(*day_of("2025-10-26")), wanted())
    assert (len(read.factors), read.slots.skipped, read.slots.doubled) == (50, 0, 2)
    assert read.slots.gaps() == []
    by_start = {one.starts_at: one.ugco2e_per_kwh for one in read.factors}
    assert by_start[at("2025-10-26T02:30+02:00")] == by_start[at("2025-10-26T02:30+01:00")] == 6_000_000


@pytest.mark.parametrize("is_sorted", [False, True])
def test_the_hour_that_autumn_has_twice_is_summer_first_where_the_file_has_it_twice(is_sorted):
    rows = day_of("2025-10-26")
    rows[6:6] = [("2025-10-26", "02:00", "91"), ("2025-10-26", "02:30", "92")]
    rows = sorted(rows, key=lambda row: row[1]) if is_sorted else rows
    read = read_factors_file(rte(*rows), wanted())
    assert (len(read.factors), read.slots.doubled) == (50, 0)
    by_start = {one.starts_at: one.ugco2e_per_kwh // 10**6 for one in read.factors}
    assert [by_start[at(f"2025-10-26T02:{half}")] for half in ("00+02:00", "30+02:00", "00+01:00", "30+01:00")] == [
        5, 6, 91, 92,
    ]  # fmt: skip


@given(st.integers(0, 11 * 365 * 24 * 4), st.sampled_from(["Europe/Paris", "UTC", "Asia/Tokyo"]))
def test_a_clock_shows_each_instant_at_its_own_time(quarters, zone):
    clock = ZoneInfo(zone)
    instant = datetime(2019, 1, 1, tzinfo=UTC) + quarters * timedelta(minutes=15)
    local = instant.replace(tzinfo=None)
    assert instant in instants_of(instant.astimezone(clock).replace(tzinfo=None), clock)
    assert len(instants_of(local, clock)) in {0, 1, 2}


def test_electricity_maps_is_read_by_its_life_cycle_column_unless_another_is_named():
    rows = [
        EM_HEADER,
        "2024-03-31 00:00:00,France,France,FR,21.54,31.02,99.42,30.13,rte-france.com,false,",
        "2024-03-31 01:00:00,France,France,FR,22.5,32.123456,99.4,29.52,rte-france.com,true,ESTIMATED",
    ]
    content = "\n".join(rows).encode()
    assert slots_of(content, form="electricitymaps") == [
        (at("2024-03-31T00:00Z"), at("2024-03-31T01:00Z"), 31_020_000),
        (at("2024-03-31T01:00Z"), at("2024-03-31T02:00Z"), 32_123_456),
    ]
    direct = slots_of(content, form="electricitymaps", value="Carbon intensity gCO₂eq/kWh (direct)")
    assert direct[0][2] == 21_540_000
    older = (
        content.decode().replace("Zone id", "Zone Id").replace("intensity", "Intensity").replace("Life cycle", "LCA")
    )
    assert slots_of(older.encode(), form="electricitymaps")[0][2] == 31_020_000


def test_of_a_file_of_several_zones_one_can_be_taken():
    rows = [f"2024-01-01 0{hour}:00:00,x,x,{zone},1,{hour + 1},,,,," for zone in ("SE-SE1", "FR") for hour in (0, 1)]
    content = "\n".join([EM_HEADER, *rows]).encode()
    read = read_factors_file(content, wanted("electricitymaps"))
    assert [(span.zone, span.slots) for span in spans_of(read)] == [("FR", 2), ("SE-SE1", 2)]
    only = read_factors_file(content, wanted("electricitymaps", zone="FR"))
    assert {one.zone for one in only.factors} == {"FR"}


def test_columns_of_a_file_of_ones_own_are_named():
    content = b"\xef\xbb\xbfdate;hour;g\n2025-03-30;01;21,25\n2025-03-30;03;20\n"
    options = {"form": "csv", "zone": "FR", "starts": "date, hour", "value": "g", "clock": PARIS}
    assert slots_of(content, **options) == [
        (at("2025-03-30T01:00+01:00"), at("2025-03-30T03:00+02:00"), 21_250_000),
        (at("2025-03-30T03:00+02:00"), at("2025-03-30T04:00+02:00"), 20_000_000),
    ]


def test_an_hour_that_autumn_has_twice_is_one_slot_where_its_end_is_stated():
    rows = (
        b"starts_at,ends_at,gco2e_per_kwh\n2026-10-25 02:00,2026-10-25 03:00,6\n2026-10-25 03:00,2026-10-25 04:00,7\n"
    )
    first, second = slots_of(rows, form="csv", zone="c", clock=PARIS)
    assert first[:2] == (at("2026-10-25T02:00+02:00"), at("2026-10-25T03:00+01:00"))
    assert second[0] == first[1]


def test_a_contract_of_a_year_states_its_end():
    content = (
        b"zone,starts_at,ends_at,gco2e_per_kwh\nhydro-2026,2026-01-01T00:00:00+01:00,2027-01-01T00:00:00+01:00,0\n"
    )
    assert slots_of(content, form="csv") == [(at("2026-01-01T00:00+01:00"), at("2027-01-01T00:00+01:00"), 0)]
    local = b"starts_at,ends_at,gco2e_per_kwh\n2026-01-01,2026-10-25 02:00,6\n2026-10-25 03:00,2027-01-01,7\n"
    first, second = slots_of(local, form="csv", zone="c", clock=PARIS)
    assert (first[1], second[0]) == (at("2026-10-25T02:00+01:00"), at("2026-10-25T03:00+01:00"))


@given(st.decimals(min_value=0, max_value=2000, places=6))
def test_grams_become_micrograms_exactly_and_back(value):
    content = f"zone,starts_at,ends_at,gco2e_per_kwh\nFR,2026-01-01T00Z,2026-01-01T01Z,{value:f}\n".encode()
    (_starts, _ends, micrograms) = slots_of(content, form="csv")[0]
    assert Decimal(micrograms) == value * 10**6
    assert Decimal(grams(micrograms)) == value


def test_beyond_a_microgram_a_value_is_rounded_half_up():
    content = b"zone,starts_at,ends_at,gco2e_per_kwh\nFR,2026-01-01T00Z,2026-01-01T01Z,0.0000005\n"
    assert slots_of(content, form="csv")[0][2] == 1


@pytest.mark.parametrize("value", ["-1", "2000.1", "1e9", "inf", "twelve", "1,234.5"])
def test_a_value_that_can_not_be_a_factor_is_refused_by_its_row_and_not_repeated(value):
    error = refusal(rte(("2026-06-01", "00:00", "23"), ("2026-06-01", "00:30", value)))
    assert (error.code, error.field) == ("invalid_factor", "Taux de Co2")
    assert error.detail.startswith("Row 3 ")
    assert value not in f"{error.detail}{error.expected}"


@pytest.mark.parametrize("value", ["", "ND", "-", " "])
def test_a_row_without_a_value_is_a_gap_and_not_zero(value):
    rows = [("2026-06-01", "00:00", "23"), ("2026-06-01", "00:30", "23"), ("2026-06-01", "01:00", value),
            ("2026-06-01", "01:30", "24")]  # fmt: skip
    read = read_factors_file(rte(*rows), wanted())
    assert (len(read.factors), read.without_value) == (3, 1)
    assert read.slots.gaps() == [("FR", at("2026-06-01T01:00+02:00"), at("2026-06-01T01:30+02:00"))]


def test_the_same_row_twice_is_one_and_a_slot_with_two_values_is_refused():
    row = ("2026-06-01", "00:00", "23")
    assert len(slots_of(rte(row, row, ("2026-06-01", "00:30", "24")))) == 2
    error = refusal(rte(row, ("2026-06-01", "00:00", "24"), ("2026-06-01", "00:30", "24")))
    assert error.detail == "Row 3 is of the same time as row 2, and differs."


def test_slots_that_overlap_or_end_before_they_begin_are_refused():
    header = "zone,starts_at,ends_at,gco2e_per_kwh\n"
    overlapping = header + "FR,2026-01-01T00Z,2026-01-01T02Z,1\nFR,2026-01-01T01Z,2026-01-01T03Z,1\n"
    assert refusal(overlapping.encode(), form="csv").detail.startswith("Row 3 is of the same time as row 2")
    assert refusal((header + "FR,2026-01-01T01Z,2026-01-01T01Z,1\n").encode(), form="csv").detail.startswith(
        "Row 2 ends"
    )


@pytest.mark.parametrize(
    ("content", "options", "code", "field"),
    [
        (b"", {}, "missing_column", "Date"),
        (b"Date\tHeures\tTaux de Co2\n", {}, "no_factors", "FILE"),
        (b"Date\tHeures\n2026-01-01\t00:00\n", {}, "missing_column", "Taux de Co2"),
        (b"Date\tHeures\tTaux de Co2\n2026-01-01\t00:00\t\n", {}, "no_factors", "Taux de Co2"),
        (b"Date\tHeures\tTaux de Co2\n2026-13-01\t00:00\t5\n", {}, "invalid_factor", "Date"),
        (b"Date\tHeures\tTaux de Co2\n2026-01-01\t00:00\t5\n", {}, "unknown_slot", "ends_at"),
        (b"Date\tHeures\tTaux de Co2\n2026-01-01\t00:00\t5\n2026-01-01\t02:00\t5\n", {}, "unknown_slot", "ends_at"),
        (b"Date\tHeures\tTaux de Co2\n0001-01-01\t00:00\t5\n", {}, "invalid_factor", "Date"),
        (b'Date\tHeures\tTaux de Co2\n"' + b"x" * 200_000, {}, "not_text", "FILE"),
        (b"PK\x03\x04zip", {}, "not_text", "FILE"),
        (b"\xd0\xcf\x11\xe0xls", {}, "not_text", "FILE"),
        (
            b"starts_at,gco2e_per_kwh\n2026-01-01T00:00,5\n",
            {"form": "csv", "zone": "FR"},
            "invalid_factor",
            "starts_at",
        ),
        (b"starts_at,gco2e_per_kwh\n2026-01-01T00Z,5\n", {"form": "csv"}, "invalid_factor", "zone"),
        (b"starts_at,zone,gco2e_per_kwh\n2026-01-01T00Z,a b,5\n", {"form": "csv"}, "invalid_factor", "zone"),
    ],
)
def test_a_file_that_can_not_be_read_is_refused_by_name(content, options, code, field):
    error = refusal(content, **options)
    assert (error.code, error.field) == (code, field)


def test_the_mean_of_a_file_is_by_time():
    rows = [
        "zone,starts_at,ends_at,gco2e_per_kwh",
        "FR,2026-01-01T00Z,2026-01-01T03Z,10",
        "FR,2026-01-01T03Z,2026-01-01T04Z,50",
    ]
    (span,) = spans_of(read_factors_file("\n".join(rows).encode(), wanted("csv")))
    assert (span.slots, span.lowest, span.mean, span.highest) == (2, 10_000_000, 20_000_000, 50_000_000)


def test_every_format_has_a_layout():
    assert set(LAYOUTS) == {"rte", "electricitymaps", "csv"}
