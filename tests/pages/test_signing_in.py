"""Signing in and out on the pages, over a real application."""

import re

import httpx

from metering.services import Services
from tests.conftest import Api
from tests.people import add_agent


def browser(api: Api) -> httpx.Client:
    """What keeps cookies and follows nothing by itself."""
    return httpx.Client(base_url=api.url, timeout=60)


def sign_in(client: httpx.Client, token: str, path: str = "/usage") -> httpx.Response:
    return client.post("/sign-in/token", data={"token": token, "next": path})


def csrf_on(answer: httpx.Response) -> str:
    (found,) = set(re.findall(r'name="csrf" value="([0-9a-f]{64})"', answer.text))
    return found


def test_who_has_not_signed_in_is_led_to_it_and_back(api: Api, services: Services) -> None:
    account, token = add_agent(services, "dinum", "manager")
    with browser(api) as client:
        led = client.get("/usage?group_by=project&lang=en")
        assert (led.status_code, led.headers["location"]) == (
            303, "/sign-in?next=%2Fusage%3Fgroup_by%3Dproject%26lang%3Den&lang=en",
        )  # fmt: skip
        form = client.get(led.headers["location"])
        assert 'name="next" value="/usage?group_by=project&amp;lang=en"' in form.text
        welcome = sign_in(client, token, "/usage?group_by=project&lang=en")
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/usage?group_by=project&lang=en")
        page = client.get(welcome.headers["location"])
        assert page.status_code == 200
        assert account in page.text
        assert "manager" in page.text
        assert client.get("/v1/me").json()["account"] == account


def test_a_key_is_revoked_by_who_may_from_a_page_of_their_own(api: Api, services: Services) -> None:
    _account, holder = add_agent(services, "dinum", "member")
    _account, other = add_agent(services, "sante", "manager")
    with api.client(holder) as client:
        key = client.post("/v1/tenants/dinum/keys", json={"name": "mine"}).json()["id"]
    for token, tenant, said in (
        (other, "dinum", "This administration isn’t there"), (other, "sante", "There is no such key"),
        (holder, "dinum", "is revoked"),
    ):  # fmt: skip
        with browser(api) as client:
            sign_in(client, token)
            form = {"tenant": tenant, "key": key}
            assert client.post("/quotas/keys/revoke", data=form).status_code == 403  # from no page of ours
            csrf = csrf_on(client.get("/quotas"))
            done = client.post("/quotas/keys/revoke?lang=en", data=form | {"csrf": csrf})
            assert (done.status_code, done.headers["location"]) == (303, "/quotas?lang=en")
            assert said in client.get("/quotas?lang=en").text
            assert said not in client.get("/quotas?lang=en").text  # once
    with api.client(holder) as client:
        assert [one["status"] for one in client.get("/v1/tenants/dinum/keys").json()["items"]] == ["revoked"]


def test_signing_out_ends_the_session_for_whoever_kept_its_cookie(api: Api, services: Services) -> None:
    _account, token = add_agent(services, "dinum", "member")
    with browser(api) as client, browser(api) as thief:
        sign_in(client, token)
        thief.cookies.update(client.cookies)
        assert thief.get("/usage").status_code == 200
        refused = client.post("/sign-out")
        assert refused.status_code == 403
        out = client.post("/sign-out?lang=en", data={"csrf": csrf_on(client.get("/usage"))})
        assert (out.status_code, out.headers["location"]) == (303, "/sign-in?said=signed_out&lang=en")
        assert "You are signed out." in client.get(out.headers["location"]).text
        assert not client.cookies
        assert thief.get("/usage").headers["location"].startswith("/sign-in?")
