"""The job that posts: it stays the only one for as long as it takes, however long that is."""

import time
from datetime import timedelta

from metering import database
from metering.carbon.job import post_due
from tests.carbon.hours import HOUR, LATER, a_request, record


def test_a_run_longer_than_the_patience_of_the_database_keeps_its_lock(services, settings, monkeypatch):
    record(services, [a_request(number, HOUR + timedelta(hours=number)) for number in range(4)])
    # A minute in reality; the run below takes longer than that between its beginning and its end.
    monkeypatch.setattr(database, "SESSION", database.SESSION.replace("timeout=60s", "timeout=2500ms"))
    engine = database.engine_for(settings.database_url.get_secret_value())
    told = []

    def slowly(amount: int, total: int) -> None:
        assert post_due(services.engine, LATER) == 0  # another worker does nothing meanwhile
        told.append((amount, total))
        time.sleep(0.7)

    assert post_due(engine, LATER, slowly) == 4
    assert told == 4 * [(1, 4)]
    engine.dispose()
