"""Deliveries to a real folder and to a real S3 server on the loopback, which is away, refuses, and comes back."""

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml
from botocore.config import Config
from click.testing import CliRunner
from litestar.testing import TestClient
from moto.server import ThreadedMotoServer

from metering.catalog.tokens import add_token
from metering.cli import main
from metering.database import transaction
from metering.errors import JaugeError, Unprocessable
from metering.events.decoding import decode
from metering.exporting import destinations
from metering.exporting.delivering import Deliverer, list_deliveries, retry_delivery
from metering.exporting.destinations import read_deliveries
from metering.settings import get_settings
from tests.applications import application
from tests.conftest import ndjson
from tests.exports.samples import document_of, line_of
from tests.exports.test_exporting import keep, replaced
from tests.people import add_agent

NOW = datetime(2026, 11, 5, 9, tzinfo=UTC)
SECRET = "a secret that stays one"
USAGE = {"kind": "usage", "group_by": ["tenant", "project"]}
CHARGES = {"kind": "focus", "format": "ndjson"}


@pytest.fixture
def used(services, make_event):
    """Use of two administrations."""
    take(services, [make_event(project="assistant"), make_event(tenant="sante", project="essais")])
    return services


@pytest.fixture
def closed(used):
    """The same, with October closed at its first batch."""
    invoice = document_of([line_of(1)])
    keep(used, replaced(invoice, type(invoice.buyer)("dinum", "dinum")))
    return used


def take(services, events) -> None:
    assert services.intake.take(decode(ndjson(events), "ndjson", len(events)), "http").is_whole


def deliverer_with(services, tmp_path: Path, destination: dict[str, str], *deliveries: dict[str, Any]) -> Deliverer:
    """What delivers to one destination; deliveries are monthly since October unless they say otherwise."""
    wanted = [{"to": "there", "every": "month", "since": "2026-10"} | one for one in deliveries]
    file = tmp_path / "deliveries.yaml"
    file.write_text(yaml.safe_dump({"destinations": {"there": destination}, "deliveries": wanted}))
    return replace(services, settings=services.settings.model_copy(update={"deliveries": file})).deliverer()


def folder_at(path: Path) -> dict[str, str]:
    return {"url": f"file://{path}"}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def states(services) -> list[tuple[str, str, str, str | None, int]]:
    with transaction(services.engine) as connection:
        found = list_deliveries(connection)
    return [(one.id, one.period, one.state, one.error, one.attempts) for one in reversed(found)]


def test_a_month_is_delivered_once_it_is_closed(used, tmp_path, make_event) -> None:
    deliveries = [{"id": "usage", "export": USAGE}, {"id": "charges", "export": CHARGES | {"tenant": ["dinum"]}}]
    deliverer = deliverer_with(used, tmp_path, folder_at(tmp_path / "books"), *deliveries)
    deliverer.run(NOW)
    assert states(used) == []
    invoice = document_of([line_of(1)])
    keep(used, replaced(invoice, type(invoice.buyer)("dinum", "dinum")))
    take(used, [make_event()])  # later than the close
    deliverer.run(NOW)
    assert states(used) == [
        ("usage", "2026-10", "delivered", None, 1), ("charges", "2026-10", "delivered", None, 1),
    ]  # fmt: skip
    files = files_below(tmp_path / "books")
    usage = "usage/2026-10/usage_2026-10-01_2026-11-01_batch-1.csv"
    charges = "charges/2026-10/focus-1.2_dinum_2026-10-01_2026-11-01_batch-1.ndjson"
    assert sorted(files) == sorted([usage, charges, f"{usage}.manifest.json", f"{charges}.manifest.json"])
    for name in (usage, charges):
        manifest = json.loads(files[f"{name}.manifest.json"])
        assert manifest["sha256"] == hashlib.sha256(files[name]).hexdigest()
        assert (manifest["ledger_batch"], f"{Path(name).parent}/{manifest['file']}") == (1, name)
    assert files[usage].splitlines()[1].startswith(b"dinum,assistant,1,")
    before = {name: (tmp_path / "books" / name).stat().st_mtime_ns for name in files}
    deliverer.run(NOW + timedelta(days=1))
    assert {name: (tmp_path / "books" / name).stat().st_mtime_ns for name in files} == before


def test_days_are_delivered_when_they_are_over(used, tmp_path) -> None:
    daily = {"id": "daily", "every": "day", "since": "2026-10-04", "export": USAGE | {"format": "ndjson"}}
    deliverer = deliverer_with(used, tmp_path, folder_at(tmp_path / "days"), daily)
    deliverer.run(datetime(2026, 10, 6, 3, 59, tzinfo=UTC))  # six hours after a day that ends at 22:00 UTC
    assert [period for _id, period, *_ in states(used)] == ["2026-10-04"]
    deliverer.run(datetime(2026, 10, 6, 4, tzinfo=UTC))
    assert [period for _id, period, *_ in states(used)] == ["2026-10-04", "2026-10-05"]
    files = files_below(tmp_path / "days")
    assert files["daily/2026-10-04/usage_2026-10-04_2026-10-05_batch-1.ndjson"] == b""
    assert len(files["daily/2026-10-05/usage_2026-10-05_2026-10-06_batch-1.ndjson"].splitlines()) == 2


def test_a_repeated_attempt_writes_the_same_object(closed, tmp_path, make_event) -> None:
    """A folder where the manifest can't be written yet: the file is there, and counts for nothing."""
    deliverer = deliverer_with(closed, tmp_path, folder_at(tmp_path / "books"), {"id": "usage", "export": USAGE})
    place = tmp_path / "books" / "usage" / "2026-10"
    name = "usage_2026-10-01_2026-11-01_batch-1.csv"
    (place / f"{name}.manifest.json").mkdir(parents=True)
    deliverer.run(NOW)
    assert states(closed)[0][2:3] == ("waiting",)
    first = (place / name).read_bytes()
    (place / f"{name}.manifest.json").rmdir()
    take(closed, [make_event()])
    deliverer.run(NOW + timedelta(seconds=9))
    assert states(closed)[0][2:] == ("waiting", states(closed)[0][3], 1)  # not yet
    deliverer.run(NOW + timedelta(seconds=10))
    assert states(closed) == [("usage", "2026-10", "delivered", None, 2)]
    assert (place / name).read_bytes() == first


def test_what_can_never_be_delivered_is_given_up_and_tried_again_by_hand(closed, tmp_path) -> None:
    nothing = {"id": "charges", "export": CHARGES | {"tenant": ["education"]}}
    deliverer = deliverer_with(closed, tmp_path, folder_at(tmp_path / "books"), nothing)
    deliverer.run(NOW)
    assert states(closed) == [("charges", "2026-10", "failed", "no_documents", 1)]
    deliverer.run(NOW + timedelta(days=3))
    assert states(closed)[0][4] == 1
    with TestClient(application(closed)) as client:
        operator = {"Authorization": f"Bearer {add_token(closed.engine, 'o', 'operator')}"}
        manager = {"Authorization": f"Bearer {add_agent(closed, 'dinum', 'manager')[1]}"}
        (item,) = client.get("/v1/admin/deliveries", headers=operator).json()["items"]
        assert (item["id"], item["state"], item["error"]) == ("charges", "failed", "no_documents")
        assert client.get("/v1/admin/deliveries", headers=manager).status_code == 403
        path = f"/v1/admin/deliveries/{item['number']}/retry"
        assert client.post(path, headers=operator).json()["state"] == "waiting"
        missing = client.post("/v1/admin/deliveries/99/retry", headers=operator)
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown_delivery")


def test_what_is_delivered_is_not_tried_again(closed, tmp_path) -> None:
    deliverer_with(closed, tmp_path, folder_at(tmp_path / "books"), {"id": "usage", "export": USAGE}).run(NOW)
    with pytest.raises(JaugeError, match="has been made"), transaction(closed.engine) as connection:
        retry_delivery(connection, 1, now=NOW)


def test_commands_say_what_was_delivered(closed, tmp_path, monkeypatch) -> None:
    deliverer = deliverer_with(closed, tmp_path, folder_at(tmp_path / "books"), {"id": "usage", "export": USAGE})
    (tmp_path / "books").write_text("in the way")
    for name in ("database_url", "redis_url", "secret_key"):
        monkeypatch.setenv(f"JAUGE_{name.upper()}", getattr(closed.settings, name).get_secret_value())
    monkeypatch.setenv("JAUGE_DATA", str(closed.settings.data))
    monkeypatch.setenv("JAUGE_DELIVERIES", str(deliverer.file))
    # What commands set up for a process of their own would keep other tests from reading the log.
    monkeypatch.setattr("metering.logs.configure_logs", lambda *_: None)
    get_settings.cache_clear()

    def jauge(*words: str) -> str:
        answer = CliRunner().invoke(main, ["deliveries", *words])
        assert answer.exit_code == 0, (answer.stderr, answer.exception)
        return answer.stdout

    assert jauge("run").endswith("done: see jauge deliveries list\n")
    (item,) = json.loads(jauge("list", "--json"))
    assert (item["state"], item["attempts"]) == ("waiting", 1)
    (tmp_path / "books").unlink()
    assert jauge("retry", str(item["number"])) == f"{item['number']}: waiting\n"
    jauge("run")
    assert "delivered" in jauge("list", "--limit", "1", "--before", str(item["number"] + 1))
    assert CliRunner().invoke(main, ["deliveries", "retry", str(item["number"])]).stderr.endswith("[delivered]\n")
    get_settings.cache_clear()


@contextmanager
def s3_server(port: int = 0) -> Iterator[str]:
    """Address of an S3 server on the loopback with a bucket `exports`, for as long as the block runs."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    httpx.post(f"{url}/moto-api/reset")
    client(url).create_bucket(Bucket="exports")
    yield url
    server.stop()


def client(url: str, key: str = "anybody", secret: str = "anything", service: str = "s3") -> Any:
    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 1}),
    )  # fmt: skip


def objects(s3: Any) -> dict[str, bytes]:
    found = s3.list_objects_v2(Bucket="exports").get("Contents", [])
    return {one["Key"]: s3.get_object(Bucket="exports", Key=one["Key"])["Body"].read() for one in found}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_bucket_whose_server_is_away_gets_it_when_that_is_back(closed, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(destinations, "RETRIES", 0)
    port = free_port()
    there = {"url": "s3://exports/below/here", "endpoint": f"http://127.0.0.1:{port}", "key": "k", "secret": SECRET}
    deliverer = deliverer_with(closed, tmp_path, there, {"id": "usage", "export": USAGE})
    deliverer.run(NOW)
    assert states(closed) == [("usage", "2026-10", "waiting", "store_failed", 1)]
    with s3_server(port) as url:
        deliverer.run(NOW + timedelta(minutes=1))
        assert states(closed) == [("usage", "2026-10", "delivered", None, 2)]
        found = objects(client(url))
    name = "below/here/usage/2026-10/usage_2026-10-01_2026-11-01_batch-1.csv"
    assert list(found) == [name, f"{name}.manifest.json"]
    assert json.loads(found[f"{name}.manifest.json"])["sha256"] == hashlib.sha256(found[name]).hexdigest()
    assert list((closed.settings.data / "deliveries").iterdir()) == []


def test_wrong_credentials_are_waited_out_and_shown_nowhere(closed, tmp_path, capfd) -> None:
    with s3_server() as url:
        iam = client(url, service="iam")
        iam.create_user(UserName="jauge")
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName="jauge", PolicyName="p", PolicyDocument=json.dumps(policy))
        right = iam.create_access_key(UserName="jauge")["AccessKey"]
        httpx.post(f"{url}/moto-api/reset-auth", content="0")
        there = {"url": "s3://exports", "endpoint": url, "key": right["AccessKeyId"], "secret": SECRET}
        deliverer = deliverer_with(closed, tmp_path, there, {"id": "usage", "export": USAGE})
        deliverer.run(NOW)
        assert states(closed) == [("usage", "2026-10", "waiting", "access_denied", 1)]
        assert SECRET not in repr(read_deliveries(deliverer.file))
        deliverer_with(closed, tmp_path, there | {"secret": right["SecretAccessKey"]}, {"id": "usage", "export": USAGE})
        deliverer.run(NOW + timedelta(minutes=1))
        assert states(closed) == [("usage", "2026-10", "delivered", None, 2)]
        found = objects(client(url, right["AccessKeyId"], right["SecretAccessKey"]))
    assert len(found) == 2
    said = "".join(capfd.readouterr())
    assert SECRET not in said
    assert right["SecretAccessKey"] not in said


WRONG = {
    "unknown field": {"id": "x", "sekret": SECRET, "export": USAGE},
    "no destination": {"id": "x", "to": "elsewhere", "export": USAGE},
    "no first month": {"id": "x", "since": "October", "export": USAGE},
    "no first day": {"id": "x", "every": "day", "since": "2026-10-32", "export": USAGE},
    "period of its own": {"id": "x", "export": USAGE | {"start": "2026-10-01"}},
    "documents each day": {"id": "x", "every": "day", "since": "2026-10-01", "export": CHARGES},
    "another time zone": {"id": "x", "export": USAGE | {"tz": "UTC"}},
    "no such group": {"id": "x", "export": USAGE | {"group_by": ["weather"]}},
    "path for an id": {"id": "../x", "export": USAGE},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_file_that_is_wrong_is_refused_without_a_word_of_its_secrets(services, tmp_path, wrong) -> None:
    there = {"url": "s3://exports", "key": "k", "secret": SECRET}
    with pytest.raises(Unprocessable) as caught:
        deliverer_with(services, tmp_path, there, wrong).run(NOW)
    assert caught.value.code == "invalid_deliveries"
    assert SECRET not in repr(caught.value) + str(caught.value)


def test_a_file_that_is_not_there_or_is_none_is_refused(services, tmp_path) -> None:
    for content in (None, "a: [", "[]", "destinations: {}\ndeliveries: [{}]"):
        file = tmp_path / "deliveries.yaml"
        if content is not None:
            file.write_text(content)
        with pytest.raises(Unprocessable, match="file of deliveries"):
            read_deliveries(file)
    with pytest.raises(Unprocessable, match="no file"):
        services.deliverer()
