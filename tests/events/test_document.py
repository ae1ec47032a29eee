"""`docs/events.md` says what the code does."""

import json
import re
from pathlib import Path

import pytest
from msgspec import Struct

from metering.events.decoding import FRAMES_MAX, FRAMINGS, decode_one
from metering.events.envelope import EnergyData, EnergyEvent, UsageData, UsageEvent
from metering.events.openapi import codes_table, event_table
from metering.events.quarantine import WITHHELD
from metering.events.refusals import UNNAMEABLE
from metering.settings import Settings

DOCUMENT = (Path(__file__).parents[2] / "docs" / "events.md").read_text()


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("event table", event_table(UsageEvent)),
        ("reading table", event_table(EnergyEvent)),
        ("refusal codes", codes_table()),
    ],
)
def test_the_tables_are_those_of_the_code(name: str, table: str) -> None:
    assert f"<!-- {name} -->\n{table}\n<!-- /{name} -->" in DOCUMENT


@pytest.mark.parametrize(("kind", "data"), [(UsageEvent, UsageData), (EnergyEvent, EnergyData)])
def test_the_table_has_every_field_of_the_event_once(kind: type[Struct], data: type[Struct]) -> None:
    named = re.findall(r"^\| `([\w.]+)` \|", event_table(kind), re.MULTILINE)
    envelope = [name for name in kind.__struct_fields__ if name != "data"]
    assert named == [*envelope, *(f"data.{name}" for name in data.__struct_fields__)]


def test_the_examples_are_events() -> None:
    examples = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert [type(decode_one(json.dumps(json.loads(example)).encode())) for example in examples] == [
        UsageEvent,
        EnergyEvent,
    ]


def test_limits_and_words_are_those_of_the_code() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert f"{defaults['intake_events_max']:,} events and {defaults['intake_bytes_max'] >> 20} MiB a call" in DOCUMENT
    assert f"{defaults['queue_events_max']:,} events may wait" in DOCUMENT
    assert f"{FRAMES_MAX:,} gzip members" in DOCUMENT
    assert all(word in DOCUMENT for word in (UNNAMEABLE, WITHHELD, *(f"`{media_type}`" for media_type in FRAMINGS)))
