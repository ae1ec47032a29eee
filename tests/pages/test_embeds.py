"""A link shows one chart of one administration for a short time: nobody widens, prolongs or forges it."""

import base64
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from metering.embeds import opened, signed
from metering.errors import Gone
from metering.outbox.secrets import MasterKey
from metering.services import Services
from metering.settings import Settings
from reports.embed_pages import Embed
from tests.applications import application
from tests.conftest import Api, MakeEvent
from tests.pages.visitor import Visitor
from tests.people import add_agent


def made(api: Api, token: str, **body: Any) -> httpx.Response:
    with api.client(token) as client:
        return client.post("/v1/embeds", json=body)


def path_of(answer: httpx.Response) -> str:
    assert answer.status_code == 201, answer.text
    return str(httpx.URL(answer.json()["url"]).path)


def test_a_link_shows_its_project_and_nothing_else_and_may_be_framed_where_settings_say(
    api: Api, services: Services, make_event: MakeEvent
) -> None:
    now = datetime.now(UTC)
    stamp = {"time": now.isoformat(), "started_at": now.isoformat()}
    events = [make_event(**stamp, tenant=tenant, project=project, model_served=f"m-{tenant}-{project}")
              for tenant in ("dinum", "sante") for project in ("p1", "p2")]  # fmt: skip
    with api.client() as client:
        assert client.post("/v1/events", json=events).json()["accepted"] == 4
    manager = add_agent(services, "dinum", "manager")[1]
    answer = made(api, manager, project="p1", minutes=5)
    assert now < datetime.fromisoformat(answer.json()["expires_at"]) <= datetime.now(UTC) + timedelta(minutes=5)
    page = httpx.get(api.url + path_of(answer))
    assert page.status_code == 200
    assert "m-dinum-p1" in page.text
    assert not [name for name in ("m-dinum-p2", "sante", "<script", "<form", "/usage?") if name in page.text]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    state = application(services).state
    state.settings = services.settings.model_copy(update={"embed_ancestors": "https://intranet.example"})
    page = httpx.get(f"{api.url}{path_of(answer)}?project=p2&tenant=sante&from=2026-01-01")
    assert "frame-ancestors https://intranet.example;" in page.headers["content-security-policy"]
    assert "m-dinum-p1" in page.text
    assert "m-dinum-p2" not in page.text
    state.settings = services.settings
    whole = httpx.get(api.url + path_of(made(api, api.operator_token, tenant="sante", quantity="requests")))
    assert "m-sante-p2" in whole.text
    assert "m-dinum" not in whole.text


def test_a_link_that_was_changed_or_made_up_shows_nothing(api: Api, services: Services) -> None:
    manager = add_agent(services, "dinum", "manager")[1]
    text, _, proof = path_of(made(api, manager)).removeprefix("/embed/").partition(".")
    wider = base64.urlsafe_b64encode(b'["sante",null,"requests",99999999999]').decode().rstrip("=")
    now = datetime.now(UTC)
    later = signed(MasterKey(b"another key of another platform"), Embed("dinum", None, "requests"), now, now)
    for link in (f"{wider}.{proof}", f"{text}.{'0' * 64}", text, f"{text}.", f"{text}A.{proof}", later, "x.é"):
        answer = httpx.get(f"{api.url}/embed/{link}")
        assert answer.status_code == 404, link
        assert "sante" not in answer.text


def test_a_link_ends_when_it_said_and_with_its_administration(api: Api, services: Services) -> None:
    manager = add_agent(services, "dinum", "manager")[1]
    answer = made(api, manager, minutes=1)
    path, ends = path_of(answer), datetime.fromisoformat(answer.json()["expires_at"])
    state = application(services).state
    link = path.removeprefix("/embed/")
    assert opened(state, link, ends - timedelta(seconds=1)) == Embed("dinum", None, "total_tokens")
    with pytest.raises(Gone):
        opened(state, link, ends)
    with api.client(api.operator_token) as client:
        assert client.post("/v1/admin/tenants/dinum/suspension", json={"reason": "r"}).is_success
    assert httpx.get(api.url + path).status_code == 403


def test_links_made_until_then_are_ended_and_others_work(api: Api, services: Services) -> None:
    manager, member = (add_agent(services, "dinum", role)[1] for role in ("manager", "member"))
    before = path_of(made(api, manager))
    elsewhere = path_of(made(api, api.operator_token, tenant="sante"))
    with api.client(member) as client:
        assert client.delete("/v1/embeds").status_code == 403
    with api.client(api.operator_token) as client:
        assert client.delete("/v1/embeds").json()["code"] == "missing_field"
        assert client.delete("/v1/embeds?tenant=nobody").status_code == 404
    with api.client(manager) as client:
        assert client.delete("/v1/embeds?tenant=sante").status_code == 404
        for _ in range(2):
            assert client.delete("/v1/embeds").status_code == 204
    time.sleep(0.002)  # links tell milliseconds apart
    after = path_of(made(api, manager))
    assert [httpx.get(api.url + path).status_code for path in (before, elsewhere, after)] == [410, 200, 200]
    visitor = Visitor(api.url, manager)
    assert "ne montrent plus rien" in visitor.send("/quotas/charts/end", {"tenant": "dinum"}).text
    assert httpx.get(api.url + after).status_code == 410
    assert visitor.send("/quotas/charts/end", {"tenant": "sante"}).status_code in {200, 404}
    assert httpx.get(api.url + elsewhere).status_code == 200
    operator = Visitor(api.url, api.operator_token).send("/quotas/charts/end", {"tenant": "sante"})
    assert "ne montrent plus rien" in operator.text
    assert httpx.get(api.url + elsewhere).status_code == 410


def test_who_may_make_a_link_and_of_what(api: Api, services: Services) -> None:
    manager, member = (add_agent(services, "dinum", role)[1] for role in ("manager", "member"))
    assert made(api, member).status_code == 403
    assert made(api, manager, tenant="sante").status_code == 404
    assert made(api, api.operator_token).json()["code"] == "missing_field"
    assert made(api, api.operator_token, tenant="nobody").status_code == 404
    assert made(api, manager, quantity="euros").json()["code"] == "unknown_value"
    for wrong in ({"minutes": 0}, {"minutes": 24 * 60 + 1}, {"user": "u-1"}):
        assert made(api, manager, **wrong).status_code in {400, 422}, wrong


@pytest.mark.parametrize("wrong", ["*; script-src *", "https://a.example, b", "", "javascript:alert(1)"])
def test_no_setting_opens_the_policy(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Settings(embed_ancestors=wrong)
