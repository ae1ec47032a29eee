"""Exports that nobody waits for: asked for over HTTP, made by a worker, whatever happens to it."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from litestar.testing import TestClient

from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.errors import Unavailable
from metering.events.decoding import decode
from metering.exporting.working import ATTEMPTS_MAX, LEASE, RETRY_DELAY, Exporter, folder_of
from metering.rules.billing.amounts import MonthAmounts
from metering.tables import export_job, outbox
from tests.applications import application
from tests.conftest import ndjson
from tests.people import add_agent

OCTOBER = {"start": "2026-10-01", "end": "2026-11-01", "group_by": ["tenant", "project"]}
MONTHLY = OCTOBER | {"amounts": True, "bucket": "month"}

WORKER = """
import sys, threading, time
from datetime import timedelta
from datetime import UTC, datetime
from pathlib import Path
from metering.database import engine_for
from metering.exporting.working import Exporter
from reports.exports.accounting import Accounts
from reports.exports.making import Sources

def amounts_of(*_):
    print("begun", flush=True)
    time.sleep(600)

sources = Sources(engine_for(sys.argv[1]), amounts_of, Accounts())
exporter = Exporter(sources, Path(sys.argv[2]), timedelta(hours=1), lease=timedelta(minutes=10))
exporter.work_next(datetime.now(UTC), threading.Event())
"""


@pytest.fixture
def used(services, make_event):
    """Use of two administrations."""
    take(services, [make_event(project=one) for one in ("assistant", "assistant", None)])
    take(services, [make_event(tenant="sante", project="essais", user="u-2")])
    return services


def take(services, events) -> None:
    assert services.intake.take(decode(ndjson(events), "ndjson", len(events)), "http").is_whole


@pytest.fixture
def client(used):
    with TestClient(application(used)) as opened:
        yield opened


@pytest.fixture
def operator(used) -> str:
    return add_token(used.engine, "o", "operator")


@pytest.fixture
def exporter(used) -> Exporter:
    return used.exporter()


def amounts_none(*_) -> MonthAmounts:
    return MonthAmounts("rated", [])


def call(client, method: str, path: str, token: str, **options):
    headers = {"Authorization": f"Bearer {token}"} | options.pop("headers", {})
    return client.request(method, f"/v1/exports{path}", headers=headers, **options)


def ask(client, token: str, **asked) -> str:
    answer = call(client, "POST", "", token, json=asked or OCTOBER)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def shown(client, token: str, export: str):
    return call(client, "GET", f"/{export}", token).json()


def work(exporter: Exporter, later: timedelta = timedelta(), stop: threading.Event | None = None) -> bool:
    return exporter.work_next(datetime.now(UTC) + later, stop or threading.Event())


def with_amounts(exporter: Exporter, amounts_of, **changes) -> Exporter:
    return replace(exporter, sources=replace(exporter.sources, amounts_of=amounts_of), **changes)


def test_a_file_is_what_it_was_when_it_was_asked_for(client, used, operator, exporter, make_event) -> None:
    at_once = call(client, "GET", "/now", operator, params=OCTOBER)
    asked = call(client, "POST", "", operator, json=OCTOBER)
    export = asked.json()["id"]
    assert asked.headers["location"] == f"/v1/exports/{export}"
    assert (asked.json()["state"], asked.json()["as_of"]) == ("waiting", 2)
    assert call(client, "GET", f"/{export}/file", operator).json()["code"] == "export_not_ready"
    take(used, [make_event()])
    assert work(exporter)
    assert not work(exporter)
    found = shown(client, operator, export)
    assert (found["state"], found["rows_done"], found["manifest"]["ledger_batch"]) == ("ready", 3, 2)
    file = call(client, "GET", f"/{export}/file", operator)
    assert file.content == at_once.content
    assert file.headers["content-disposition"] == at_once.headers["content-disposition"]
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    assert file.headers["etag"] == f'"{found["manifest"]["sha256"]}"'
    assert file.headers["jauge-content-sha256"] == at_once.headers["jauge-content-sha256"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"kind": "usage"}, "missing_field"),
        ({"kind": "focus", "month": "October"}, "invalid_time"),
        (MONTHLY | {"group_by": ["project"]}, "no_exact_amount"),
        (OCTOBER | {"as_of": -1}, "out_of_range"),
        (OCTOBER | {"format": "pdf"}, "invalid_request"),
        (OCTOBER | {"limit": 5}, "invalid_request"),
        ({"kind": "focus", "month": "2026-10", "user": ["\0"]}, "invalid_text"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(client, operator, asked, code) -> None:
    answer = call(client, "POST", "", operator, json=asked)
    assert (answer.status_code in {400, 422}, answer.json()["code"]) == (True, code)
    assert call(client, "GET", "", operator).json()["items"] == []


def test_the_same_key_is_the_same_export(client, used, operator) -> None:
    _account, manager = add_agent(used, "dinum", "manager")
    key = {"Idempotency-Key": "k-1"}
    first, again = (call(client, "POST", "", operator, json=OCTOBER, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    other = call(client, "POST", "", operator, json=MONTHLY, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
    own = call(client, "POST", "", manager, json=OCTOBER, headers=key)
    assert own.status_code == 202
    assert own.json()["id"] != first.json()["id"]


def test_one_administration_leaves_room_for_the_others(client, used, exporter) -> None:
    _account, manager = add_agent(used, "dinum", "manager")
    _account, other = add_agent(used, "sante", "manager")
    most = used.settings.exports_waiting_max
    exports = [ask(client, manager) for _ in range(most)]
    refused = call(client, "POST", "", manager, json=OCTOBER)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_exports")
    assert int(refused.headers["retry-after"]) > 0
    ask(client, other)
    assert work(exporter)
    pages, after = [], ""
    while after is not None:
        page = call(client, "GET", "", manager, params={"limit": 4, "after": after}).json()
        pages += [one["id"] for one in page["items"]]
        after = page["next_after"]
    assert pages == exports[::-1]
    assert ask(client, manager)  # one is made, so there is room again


def test_each_reader_finds_what_is_theirs(client, used, operator, exporter) -> None:
    _account, manager = add_agent(used, "dinum", "manager")
    _account, member = add_agent(used, "dinum", "member", "u-1")
    _account, foreign = add_agent(used, "sante", "manager")
    exports = {token: ask(client, token) for token in (operator, manager, member, foreign)}
    while work(exporter):
        pass
    seen = {
        operator: set(exports.values()), manager: {exports[manager], exports[member]}, member: {exports[member]},
        foreign: {exports[foreign]},
    }  # fmt: skip
    for token, expected in seen.items():
        assert {one["id"] for one in call(client, "GET", "", token).json()["items"]} == expected
        for export in exports.values():
            for method, path in (("GET", ""), ("GET", "/file"), ("DELETE", "")):
                if method == "DELETE" and export in expected:
                    continue
                answer = call(client, method, f"/{export}{path}", token)
                assert (answer.status_code == 404) == (export not in expected), (method, path, answer.text)
    rows = {token: call(client, "GET", f"/{export}/file", token).text for token, export in exports.items()}
    assert "sante" in rows[operator]
    assert "dinum" not in rows[foreign]
    assert "sante" not in rows[manager] + rows[member]


def test_what_is_called_off_leaves_nothing(client, used, operator, exporter) -> None:
    waiting, made, running = (ask(client, operator, **MONTHLY) for _ in range(3))
    assert call(client, "DELETE", f"/{waiting}", operator).status_code == 204
    assert work(exporter)
    assert call(client, "DELETE", f"/{made}", operator).status_code == 204

    def calling_off(*_) -> MonthAmounts:
        assert shown(client, operator, running)["state"] == "running"
        assert call(client, "DELETE", f"/{running}", operator).status_code == 204
        return amounts_none()

    assert work(with_amounts(exporter, calling_off))
    assert not work(exporter)
    for export in (waiting, made, running):
        assert shown(client, operator, export)["state"] == "cancelled"
        gone = call(client, "GET", f"/{export}/file", operator)
        assert (gone.status_code, gone.json()["code"]) == (410, "export_cancelled")
    exporter.tidy(datetime.now(UTC))
    assert list((used.settings.data / "exports").iterdir()) == []


def test_who_is_killed_leaves_it_to_be_made_again_with_the_same_bytes(
    client, used, operator, exporter, database_url, tmp_path, make_event
) -> None:
    quiet, killed = ask(client, operator, **MONTHLY), ask(client, operator, **MONTHLY)
    exporter = with_amounts(exporter, amounts_none)
    assert work(exporter)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, database_url, str(used.settings.data)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not work(exporter)  # its lease goes on for a while
    assert shown(client, operator, killed)["state"] == "running"
    take(used, [make_event()])
    exporter.tidy(datetime.now(UTC))
    assert work(exporter, timedelta(minutes=11))
    found = shown(client, operator, killed)
    assert (found["state"], found["error"]) == ("ready", None)
    files = [call(client, "GET", f"/{export}/file", operator).content for export in (quiet, killed)]
    assert files[0] == files[1]
    assert [path.name for path in folder_of(used.settings.data, killed).iterdir()] == ["2"]


def test_who_wakes_up_after_the_lease_changes_nothing(client, used, operator, exporter) -> None:
    export = ask(client, operator, **MONTHLY)
    second = with_amounts(exporter, amounts_none)

    def sleeping(*_) -> MonthAmounts:
        assert not work(second, LEASE / 2)
        assert work(second, LEASE * 2)
        return amounts_none()

    assert work(with_amounts(exporter, sleeping))
    assert shown(client, operator, export)["state"] == "ready"
    assert [path.name for path in folder_of(used.settings.data, export).iterdir()] == ["2"]
    assert call(client, "GET", f"/{export}/file", operator).status_code == 200


def test_an_outage_is_waited_out_and_what_stays_wrong_is_told(client, used, operator, exporter) -> None:
    def away(*_) -> MonthAmounts:
        raise Unavailable("database_unavailable", "away")

    unlucky = with_amounts(exporter, away)
    passing = ask(client, operator, **MONTHLY)
    assert work(unlucky)
    found = shown(client, operator, passing)
    assert (found["state"], found["error"]) == ("waiting", "database_unavailable")
    assert not work(exporter)
    assert work(exporter, RETRY_DELAY * 2)
    assert shown(client, operator, passing)["state"] == "ready"
    lasting = ask(client, operator, **MONTHLY)
    for _ in range(ATTEMPTS_MAX):
        assert work(unlucky, RETRY_DELAY * 2)
    without = ask(client, operator, kind="focus", month="2026-10")
    assert work(exporter)
    for export, code in ((lasting, "database_unavailable"), (without, "no_documents")):
        found = shown(client, operator, export)
        assert (found["state"], found["error"]) == ("failed", code)
        assert call(client, "GET", f"/{export}/file", operator).json()["code"] == "export_failed"


def test_a_worker_that_stops_gives_back_what_it_makes(client, used, operator, exporter, make_event) -> None:
    take(used, [make_event(user=f"new-{number}") for number in range(1_100)])
    export = ask(client, operator, **OCTOBER | {"group_by": ["user"]})
    stop = threading.Event()
    stop.set()
    assert work(exporter, stop=stop)
    assert shown(client, operator, export)["state"] == "waiting"
    assert list(folder_of(used.settings.data, export).iterdir()) == []
    assert work(exporter)
    assert shown(client, operator, export)["manifest"]["rows"] == 1_102


def test_a_file_is_there_for_as_long_as_settings_say(client, used, operator, exporter) -> None:
    export = ask(client, operator)
    assert work(exporter)
    exporter.tidy(datetime.now(UTC))
    assert call(client, "GET", f"/{export}/file", operator).status_code == 200
    (used.settings.data / "exports" / "left-over" / "1").mkdir(parents=True)
    exporter.tidy(datetime.now(UTC) + exporter.keep)
    assert shown(client, operator, export)["state"] == "expired"
    gone = call(client, "GET", f"/{export}/file", operator)
    assert (gone.status_code, gone.json()["code"]) == (410, "export_expired")
    assert list((used.settings.data / "exports").iterdir()) == []
    exporter.tidy(datetime.now(UTC) + timedelta(days=100))
    assert call(client, "GET", "", operator).json()["items"] == []


def test_a_file_that_somebody_took_away_is_gone(client, used, operator, exporter) -> None:
    export = ask(client, operator)
    assert work(exporter)
    for path in Path(folder_of(used.settings.data, export)).rglob("*.csv"):
        path.unlink()
    assert call(client, "GET", f"/{export}/file", operator).json()["code"] == "export_gone"


def test_a_download_that_broke_off_goes_on(client, used, operator, exporter) -> None:
    export = ask(client, operator)
    assert work(exporter)
    whole = call(client, "GET", f"/{export}/file", operator)
    size, etag = len(whole.content), whole.headers["etag"]
    assert whole.headers["accept-ranges"] == "bytes"
    for asked, start, end in (
        ("bytes=10-", 10, size), ("bytes=0-9", 0, 10), (f"bytes={size - 1}-{size + 5}", size - 1, size),
        ("bytes=-7", size - 7, size), (f"bytes=-{size + 5}", 0, size),
    ):  # fmt: skip
        part = call(client, "GET", f"/{export}/file", operator, headers={"Range": asked, "If-Range": etag})
        assert (part.status_code, part.content) == (206, whole.content[start:end]), asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
        for name in ("etag", "content-type", "jauge-content-sha256", "accept-ranges"):
            assert part.headers[name] == whole.headers[name]


def test_what_is_no_part_of_a_file(client, used, operator, exporter) -> None:
    export = ask(client, operator)
    assert work(exporter)
    size = len(call(client, "GET", f"/{export}/file", operator).content)
    for asked in ("bytes=5-4", "bytes=-", "bytes=0-1,3-4", "lines=1-2", "bytes=one-"):
        answer = call(client, "GET", f"/{export}/file", operator, headers={"Range": asked})
        assert (answer.status_code, len(answer.content)) == (200, size), asked
    stale = {"Range": "bytes=10-", "If-Range": '"another"'}
    assert call(client, "GET", f"/{export}/file", operator, headers=stale).status_code == 200
    for asked in (f"bytes={size}-", f"bytes={size + 10}-{size + 20}", "bytes=-0"):
        refused = call(client, "GET", f"/{export}/file", operator, headers={"Range": asked})
        assert (refused.status_code, refused.json()["code"]) == (416, "range_outside"), asked
        assert refused.headers["content-range"] == f"bytes */{size}"


def test_who_waits_for_a_large_one_is_told_by_mail(client, used, operator, exporter) -> None:
    account, manager = add_agent(used, "dinum", "manager")
    exports = [ask(client, token) for token in (manager, operator)]
    for _ in exports:
        assert work(replace(exporter, mail_rows_min=2))
    with transaction(used.engine) as connection:
        told = connection.execute(sa.select(outbox.c.recipient, outbox.c.subject, outbox.c.payload["export"])).all()
        assert connection.scalar(sa.select(sa.func.count()).where(export_job.c.state == "ready")) == 2
    assert [tuple(row) for row in told] == [(f"account:{account}", "export_ready", exports[0])]


def test_the_worker_makes_what_is_asked(client, operator, exporter) -> None:
    export = ask(client, operator)
    stop = threading.Event()
    thread = threading.Thread(target=exporter.run, args=(stop,))
    thread.start()
    for _ in range(300):
        if shown(client, operator, export)["state"] == "ready":
            break
        stop.wait(0.1)
    stop.set()
    thread.join()
    assert shown(client, operator, export)["state"] == "ready"
