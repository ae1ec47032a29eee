"""Costs of tokens are fitted to the past week and hold for the hours to come."""

from datetime import timedelta
from random import Random

import sqlalchemy as sa

from metering.carbon.calibrating import calibrate_all
from metering.carbon.explaining import explain
from metering.database import transaction
from metering.tables import carbon_weight
from tests.carbon.hours import HOUR, a_request, post_all, record
from tests.carbon.readings import a_reading

PREFILL_UJ, DECODE_UJ, IDLE_MW = 40_000, 400_000, 100_000


def an_hour_of_use(start, draw):
    """Requests within minutes, and the readings of a GPU on which an input token costs a tenth of an output token."""
    events, readings, energy_mj = [], [], 10**9
    for minute in range(61):
        at = start + timedelta(minutes=minute)
        readings.append(
            a_reading(at, energy_mj=energy_mj, monotonic_us=minute * 60_000_000, power_limit_mw=700_000,
                      gpu_model="H100-SXM", deployment="albert-large-0", event_id=f"{at:%d%H}-{minute}")
        )  # fmt: skip
        energy_mj += IDLE_MW * 60
        if minute == 60 or minute % 5 == 4:  # a minute of rest tells the idle power
            continue
        for number in range(3):
            tokens_in, tokens_out = draw.randrange(100, 20_000), draw.randrange(50, 900)
            events.append(
                a_request(len(events) + 10_000 * start.hour, at + timedelta(seconds=10 * number), seconds=20,
                          input_tokens=tokens_in, output_tokens=tokens_out)
            )  # fmt: skip
            energy_mj += (PREFILL_UJ * tokens_in + DECODE_UJ * tokens_out) // 1_000
    return events, readings


def test_what_tokens_cost_is_learnt_and_holds_from_the_next_hour_on(services):
    draw = Random(5)
    for number in range(4):
        events, readings = an_hour_of_use(HOUR + timedelta(hours=number), draw)
        record(services, events, readings if number == 0 else readings[1:])
    assert post_all(services) == 4
    now = HOUR + timedelta(hours=5, minutes=20)
    (pair, calibration), *_ = calibrate_all(services.engine, now).items()
    assert pair == ("albert-large", "H100-SXM")
    assert 80_000 < calibration.costs.prefill_millionths < 120_000
    assert calibration.error_uj < calibration.prior_error_uj
    with transaction(services.engine) as connection:
        (valid_from,) = connection.scalars(sa.select(carbon_weight.c.valid_from))
        assert valid_from == HOUR + timedelta(hours=6)
        before = explain(connection, "test", events[0]["id"]).hours[0]
        assert before.costs.source != "calibrated"
    assert post_all(services) == 0
    events, readings = an_hour_of_use(HOUR + timedelta(hours=6), draw)
    record(services, events, readings)
    post_all(services)
    with transaction(services.engine) as connection:
        after = explain(connection, "test", events[0]["id"]).hours[0]
    assert after.costs == calibration.costs


def test_without_use_nothing_is_learnt(services):
    assert calibrate_all(services.engine, HOUR) == {}
