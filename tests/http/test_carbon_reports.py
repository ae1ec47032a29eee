"""Statements and BoAmps reports of carbon, over HTTP and by command."""

import json
import re
from datetime import timedelta

import jsonschema_rs
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from codecarbon.output_methods.boamps.models import BoAmpsReport

from metering.catalog.apply import apply, read_file
from metering.cli import main
from metering.cli.opening import EXIT_DIFFERS
from metering.database import Actor, transaction
from metering.settings import get_settings
from metering.tables import carbon_batch, deployment
from reports.boamps import FORMAT_VERSION, quality_of
from tests.carbon.hours import HOUR, a_factor, a_request, post_all, readings_of, record
from tests.http.boamps_schema import REPORT
from tests.people import add_agent

PERIOD = {"start": "2026-10-05T12:00:00Z", "end": "2026-10-05T14:00:00Z"}
KWH = 3_600_000_000_000
CATALOGUE = b"""
categories: [{id: chats, name: Chats}]
models:
  - {id: albert-large, name: gpt-oss-120b, category: chats, publisher: OpenAI, licence: Apache-2.0, operations: [chat],
     parameters: 116_800_000_000, precision: mxfp4}
deployments: [{id: albert-large-0, model: albert-large, starts_at: 2026-01-01T00:00:00Z}]
"""


@pytest.fixture
def posted(services):
    """Two administrations on two GPUs for an hour, and requests that no meter saw and no model tells of."""
    with transaction(services.engine, actor=Actor("test")) as connection:
        apply(connection, read_file(CATALOGUE))
    events = [a_request(number, HOUR + timedelta(minutes=number)) for number in range(10)]
    events += [a_request(20 + number, HOUR + timedelta(minutes=20), tenant="sante") for number in range(5)]
    events += [
        a_request(30 + number, HOUR, deployment=None, tenant="sante", operation="web_search", model_requested="index",
                  model_served="index", input_tokens=None, output_tokens=None, web_searches=1)
        for number in range(2)
    ]  # fmt: skip
    record(services, events, readings_of(HOUR, 60, gpus=2, powers_w=(300, 500)))
    a_factor(services, 20_000_000)
    post_all(services)
    return services


def get(api, path, token=None, **params):
    with api.client(token or api.operator_token) as client:
        return client.get(path, params=params, headers={"Accept-Language": "en"})


def statement(api, token=None, **params):
    return get(api, "/v1/carbon/statement", token, **{"tenant": "sante", "month": "2026-10"} | params)


def boamps(api, token=None, **params):
    answer = get(api, "/v1/carbon/boamps", token, **PERIOD | params)
    assert answer.status_code == 200, answer.text
    return answer.json()


# Statements


def test_a_statement_has_the_months_figures_and_what_they_rest_on(api, posted):
    told = statement(api).json()
    carbon = get(api, "/v1/carbon", start="2026-10-01", end="2026-11-01", tenant="sante").json()["items"][0]
    assert {name: carbon[name] for name in told["footprint"]} == told["footprint"]
    assert (told["footprint"]["requests"], told["footprint"]["requests_unknown"]) == (7, 2)
    assert (told["start"], told["end"]) == ("2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00")
    assert (told["known_until"], told["is_complete"]) == ("2026-10-05T15:00:00+02:00", False)
    assert [(part["tier"], part["share_ppm"]) for part in told["quality"]] == [("A", 1_000_000)]
    first, last = told["models"]
    assert (first["model"], last["model"], last["footprint"]["total_ng"]) == ("albert-large", "index", None)
    assert first["per_1000_tokens_ng"] == round(first["footprint"]["total_ng"] / 5)
    assert told["methods"] == ["1"]
    assert [(one["zone"], one["source"], one["lowest_ugco2e_per_kwh"]) for one in told["factors"]] == [
        ("FR", "test", 20_000_000)
    ]
    with transaction(posted.engine) as connection:
        last = connection.execute(sa.select(carbon_batch).order_by(carbon_batch.c.seq.desc())).first()
    assert (told["as_of"]["batch"], told["as_of"]["hash"]) == (last.seq, bytes(last.hash).hex())


def test_a_statement_of_a_batch_stays_as_it_was(api, posted):
    before = statement(api)
    a_factor(posted, 40_000_000, version="2")
    record(posted, [a_request(90, HOUR, tenant="sante")])
    post_all(posted)
    after = statement(api).json()
    assert after["footprint"]["requests"] == 8
    assert after["as_of"]["batch"] > before.json()["as_of"]["batch"]
    assert statement(api, as_of=before.json()["as_of"]["batch"]).content == before.content


def test_managers_read_their_administrations_statement_and_nobody_elses(api, posted):
    _account, manager = add_agent(posted, "sante", "manager", "m-1")
    _account, other = add_agent(posted, "dinum", "manager", "m-2")
    _account, member = add_agent(posted, "sante", "member", "u-1")
    assert statement(api, manager).content == statement(api).content
    for token, code in ((other, "not_yours"), (member, "wrong_role")):
        refused = statement(api, token)
        assert (refused.status_code, refused.json()["code"]) == (403, code)
        assert "sante" not in refused.text
    assert statement(api, api.gateway_token).status_code == 403


def test_a_statement_as_text_is_in_the_language_of_its_reader(api, posted):
    with api.client(api.operator_token) as client:
        texts = {
            language: client.get(
                "/v1/carbon/statement",
                params={"tenant": "sante", "month": "2026-10", "format": "text"},
                headers={"Accept-Language": language},
            )
            for language in ("fr", "en")
        }
    assert texts["fr"].headers["content-type"].startswith("text/plain")
    assert texts["fr"].text.startswith("Relevé carbone – ")
    assert "Le mois n’est pas complet\u00a0: émissions connues jusqu’au 5 octobre 2026 à 15:00." in texts["fr"].text
    assert re.search(r"Requêtes non mesurées +2\n", texts["fr"].text)
    assert re.search(r"Use, by the electricity contract +not measured\n", texts["en"].text)
    assert re.search(r"index +not measured\n", texts["en"].text)
    assert texts["en"].text.splitlines()[-1] == f"SHA-256 {statement(api).json()['as_of']['hash']}"


@pytest.mark.parametrize(
    ("params", "status", "code", "field"),
    [
        ({"month": "2026-13"}, 422, "invalid_time", "month"),
        ({"month": "october"}, 422, "invalid_time", "month"),
        ({"tenant": "nobody"}, 404, "unknown_tenant", "tenant"),
        ({"as_of": "99"}, 404, "unknown_batch", "as_of"),
    ],
)
def test_a_statement_that_cannot_be_made_says_why(api, posted, params, status, code, field):
    refused = statement(api, **params)
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (status, code, field)


def test_without_anything_posted_there_is_no_statement(api):
    assert statement(api).json()["code"] == "unknown_batch"


def test_a_month_without_use_is_a_statement_that_knows_nothing(api, posted):
    told = statement(api, month="2026-09").json()
    assert (told["footprint"], told["models"], told["quality"], told["is_complete"]) == (None, [], [], True)
    assert "The emissions of this period are not measured." in statement(api, month="2026-09", format="text").text


# BoAmps


def test_reports_follow_the_data_model(api, posted):
    answer = boamps(api)
    validator = jsonschema_rs.validator_for(REPORT)
    (report,) = answer["reports"]
    assert [error.message for error in validator.iter_errors(report)] == []
    # codecarbon writes the same form: its own classes read ours, and lose nothing.
    assert BoAmpsReport.from_dict(report).to_dict() == report
    assert report["header"]["formatVersion"] == FORMAT_VERSION == "1.1.0"
    with pytest.raises(jsonschema_rs.ValidationError):
        validator.validate(report | {"measures": []})


def test_a_report_says_what_was_measured_of_a_model(api, posted):
    (report,) = boamps(api)["reports"]
    (item,) = get(api, "/v1/carbon", **PERIOD, model="albert-large").json()["items"]
    task = report["task"]
    assert (task["taskStage"], task["taskFamily"], task["nbRequest"]) == ("inference", "chatbot", 15)
    assert task["algorithms"] == [
        {
            "algorithmType": "llm",
            "foundationModelName": "gpt-oss-120b",
            "parametersNumber": 116.8,
            "quantization": "mxfp4",
        }
    ]
    assert task["dataset"] == [
        {"dataUsage": "input", "dataType": "token", "dataQuantity": 800},
        {"dataUsage": "output", "dataType": "token", "dataQuantity": 200},
    ]
    (measure,) = report["measures"]
    assert measure["powerConsumption"] == pytest.approx(item["energy_uj"] / KWH, rel=1e-12)
    assert (measure["gpuTrackingMode"], measure["version"]) == ("nvml", "1")
    assert (measure["measurementDateTime"], measure["measurementDuration"]) == ("2026-10-05 12:00:00", 3600)
    assert report["infrastructure"]["components"] == [
        {"componentName": "H100-SXM", "componentType": "gpu", "nbComponent": 2}
    ]
    assert report["environment"] == {"country": "FR", "powerSourceCarbonIntensity": 20}
    assert report["header"]["reportStatus"] == "draft"  # the second hour isn't posted


@pytest.mark.parametrize(
    ("lower", "upper", "word"),
    [(900, 1_100, "high"), (899, 1_100, "medium"), (1_000, 1_250, "medium"), (500, 1_500, "low"), (499, 1_500, None)],
)
def test_quality_is_said_by_the_bounds_and_left_out_beyond_half(lower, upper, word):
    assert quality_of(1_000, lower, upper) == word


def test_a_report_without_closer_bounds_states_no_quality(api, posted):
    """PUE and the servers' energy are priors here."""
    (report,) = boamps(api)["reports"]
    (item,) = get(api, "/v1/carbon", **PERIOD, model="albert-large").json()["items"]
    assert item["energy_upper_uj"] - item["energy_uj"] > item["energy_uj"] / 2
    assert "quality" not in report


def test_what_has_no_report_is_named_with_the_reason(api, posted):
    assert boamps(api)["left_out"] == [{"model": "index", "requests": 2, "reason": "not_measured"}]
    with transaction(posted.engine, actor=Actor("test")) as connection:
        connection.execute(deployment.delete())
    answer = boamps(api)
    assert (answer["reports"], [one["reason"] for one in answer["left_out"]]) == (
        [],
        ["hardware_unknown", "not_measured"],
    )


def test_the_same_figures_have_the_same_id_and_others_another(api, posted):
    def ids(**params):
        return [report["header"]["reportId"] for report in boamps(api, **params)["reports"]]

    assert ids() == ids()
    assert ids() != ids(tenant="sante") != ids(tenant="dinum")


def test_a_manager_gets_reports_of_the_administration(api, posted):
    _account, manager = add_agent(posted, "sante", "manager", "m-1")
    (own,) = boamps(api, manager)["reports"]
    assert own["task"]["nbRequest"] == 5
    refused = get(api, "/v1/carbon/boamps", manager, **PERIOD, tenant="dinum")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_yours")


# Commands


@pytest.fixture
def jauge(services, settings, monkeypatch):
    """`jauge` on the test's own stores."""
    for name in ("database_url", "redis_url", "secret_key"):
        monkeypatch.setenv(f"JAUGE_{name.upper()}", getattr(settings, name).get_secret_value())
    monkeypatch.setenv("JAUGE_LANGUAGE", "en")
    # What commands set up for a process of their own would keep other tests from reading the log.
    monkeypatch.setattr("metering.logs.configure_logs", lambda *_: None)
    get_settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(main, arguments)
    get_settings.cache_clear()


BOUNDS = ("--from", "2026-10-05T12:00:00Z", "--to", "2026-10-05T14:00:00Z")


def test_the_report_has_units_and_ranges_for_people_and_integers_for_programs(jauge, api, posted):
    table = jauge("carbon", "report", *BOUNDS, "--by", "model")
    assert table.exit_code == 0
    header, first, last = table.output.splitlines()
    assert [name in header for name in ("energy, range", "emissions", "manufacture", "metered")] == [True] * 4
    figure = r"[\d.]+"
    energy, emissions = (rf"{figure} {unit} +{figure} to {figure} {unit}" for unit in ("Wh", "g CO2e"))
    assert re.match(rf"albert-large +15 +0 +{energy} +{emissions} .* 100% ", first.replace("\u00a0", " "))
    assert last.split() == ["index", "2", "2"]
    records = json.loads(jauge("carbon", "report", *BOUNDS, "--by", "model", "--format", "json").output)
    assert records == get(api, "/v1/carbon", **PERIOD, group_by="model").json()["items"]
    csv = jauge("carbon", "report", *BOUNDS, "--where", "tenant=dinum", "--format", "csv").output.splitlines()
    assert csv[0].startswith("requests,gpu_energy_uj,energy_uj")
    assert csv[1].startswith("10,")


def test_commands_refuse_what_makes_no_sense(jauge, posted):
    half = jauge("carbon", "report", "--from", "2026-10-05T12:30:00Z", "--to", "2026-10-06")
    assert (half.exit_code, "not_a_whole_hour" in half.output) == (EXIT_DIFFERS, True)
    assert jauge("carbon", "report", *BOUNDS, "--where", "deployment=x").exit_code == 2
    unknown = jauge("carbon", "statement", "nobody", "2026-10")
    assert (unknown.exit_code, "unknown_tenant" in unknown.output) == (EXIT_DIFFERS, True)


def test_nothing_posted_is_said(jauge):
    assert jauge("carbon", "report", *BOUNDS).output == "Nothing to show.\n"


def test_statements_and_boamps_reports_are_those_of_the_api(jauge, api, posted):
    # The commands first: what the server logs of a request would be among their output.
    told = jauge("carbon", "statement", "sante", "2026-10", "--json")
    text = jauge("carbon", "statement", "sante", "2026-10").output
    exported = json.loads(jauge("carbon", "boamps", *BOUNDS, "--tenant", "sante").output)
    assert json.loads(told.output) == statement(api).json()
    assert text.startswith("Carbon statement – ")
    assert text.endswith(f"{statement(api).json()['as_of']['hash']}\n")
    expected = boamps(api, tenant="sante")
    for answer in (exported, expected):
        answer["reports"][0]["header"].pop("reportDatetime")
    assert exported == expected
