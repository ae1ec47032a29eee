"""What sign-in and sessions refuse: guessing, other sites, planted sessions, and whoever's time or account is over."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import structlog

from metering.browsers import cookie_name
from metering.catalog.sessions import forget_sessions
from metering.catalog.tokens import TOKEN_PREFIX, revoke_token
from metering.console.cookies import kept_cookie, no_session_cookie, session_cookie
from metering.database import transaction
from metering.errors import TooMany, Unauthorized
from metering.identity import Principal
from metering.services import Services, lives_of
from metering.settings import Settings
from metering.tables import account, console_session, tenant
from metering.tables import token as token_table
from metering.throttling import BY_ADDRESS, BY_CLAIM, Throttle, by_address, by_claim
from tests.conftest import Api
from tests.pages.test_signing_in import browser, csrf_on, sign_in
from tests.people import add_agent

WRONG = TOKEN_PREFIX + "x" * 43


def count(services: Services) -> int:
    with transaction(services.engine) as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(console_session)) or 0


# Guessing


def test_guessing_a_token_is_refused_after_ten_attempts_at_it_from_wherever(api: Api, services: Services) -> None:
    _account, right = add_agent(services, "dinum")
    guess = right[:-1] + ("x" if right[-1] != "x" else "y")
    with browser(api) as client, structlog.testing.capture_logs() as logs:
        for _ in range(BY_CLAIM.attempts):
            assert sign_in(client, guess).status_code == 401
        refused = sign_in(client, guess)
        assert (refused.status_code, "Trop de tentatives" in refused.text) == (429, True)
        assert 0 < int(refused.headers["retry-after"]) <= BY_CLAIM.within_s
        assert sign_in(client, right).status_code == 429  # the next guess could be the right one
        assert sign_in(client, add_agent(services, "dinum")[1]).status_code == 303  # others aren't held up
    assert {line["code"] for line in logs if line["event"] == "sign_in_refused"} == {
        "invalid_token", "too_many_attempts",
    }  # fmt: skip
    assert right[6:] not in repr(logs)
    assert guess[6:] not in repr(logs)
    with services.redis() as store:
        assert not [key for key in store.scan_iter("*") if guess[6:14].encode() in key]


def test_trying_one_token_after_another_is_refused_after_thirty(api: Api, services: Services) -> None:
    with browser(api) as client:
        answers = [
            sign_in(client, f"{TOKEN_PREFIX}{number:08}{'x' * 35}").status_code
            for number in range(BY_ADDRESS.attempts + 2)
        ]
    assert answers == [401] * BY_ADDRESS.attempts + [429] * 2


def test_who_signs_in_well_is_not_counted(services: Services) -> None:
    with services.redis() as store:
        throttle, trying = Throttle(store), by_claim(WRONG)
        for _ in range(BY_CLAIM.attempts * 2):
            with throttle.trying(trying):
                pass
        for _ in range(BY_CLAIM.attempts):
            with pytest.raises(Unauthorized), throttle.trying(trying):
                raise Unauthorized("invalid_token", "wrong")
        with pytest.raises(TooMany) as refused, throttle.trying(trying):
            pass
        assert refused.value.retry_after_s == store.ttl(trying.key)
        store.delete(trying.key)  # as it goes by itself at the end of that time
        with throttle.trying(trying):
            pass


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        (None, "", True),
    ],
)
def test_addresses_are_counted_as_subscribers_have_them(one: str | None, other: str, is_same: bool) -> None:
    assert (by_address(one).key == by_address(other).key) is is_same
    assert (one or "nobody") not in by_address(one).key


def test_the_address_is_the_one_that_a_trusted_proxy_tells(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    from metering import server

    made: list[Any] = []
    monkeypatch.setattr(server.uvicorn, "Server", lambda config: made.append(config) or type("S", (), {"run": int}))
    monkeypatch.setattr(server, "with_door", lambda app: app)
    monkeypatch.setattr(server, "create_app", lambda _services: None)
    services.settings.trusted_proxies = "10.0.0.0/8"
    server.run_server(services, "127.0.0.1", 0)
    assert (made[0].proxy_headers, made[0].forwarded_allow_ips) == (True, "10.0.0.0/8")


def test_guessed_keys_tokens_and_cookies_open_nothing_and_stand_in_no_log(api: Api, services: Services) -> None:
    guesses = {
        "token": ("GET", "/v1/me", {"Authorization": f"Bearer {WRONG}"}),
        "password": ("GET", "/usage", {"Authorization": "Basic " + "eDpqYXVnZV94eHh4"}),
        "cookie": ("GET", "/v1/me", {"Cookie": f"jauge={'c' * 43}"}),
        "form": ("POST", "/sign-out", {"Cookie": f"jauge={'c' * 43}"}),
    }
    with browser(api) as client, structlog.testing.capture_logs() as logs:
        for name, (method, path, headers) in guesses.items():
            answer = client.request(method, path, headers=headers)
            assert answer.status_code in {401, 303}, name
            assert answer.headers.get("location", "/sign-in").startswith("/sign-in"), name
        key = client.get("/v1/models", headers={"Authorization": f"Bearer sk-jauge-{'k' * 43}"})
        assert key.status_code == 401
    assert count(services) == 0
    for secret in (WRONG[6:], "eDpqYXVnZV94eHh4", "c" * 43, "k" * 43):
        assert secret not in repr(logs)


# Other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8321"}, 303),
        ({"Origin": "http://127.0.0.1:8321"}, 303),
        ({}, 303),
    ],
    ids=str,
)
def test_another_site_signs_nobody_in(api: Api, services: Services, headers: dict[str, str], status: int) -> None:
    token = add_agent(services, "dinum")[1]
    with browser(api) as client, structlog.testing.capture_logs() as logs:
        answer = client.post("/sign-in/token", data={"token": token}, headers=headers)
    assert (answer.status_code, count(services)) == (status, 1 if status == 303 else 0)
    assert token[6:] not in repr(logs) + answer.text


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "/usage\r\nSet-Cookie:a=b",
        "javascript:alert(1)", "\thttps://evil.example", "/usage\n//evil", "evil.example", "/" + "x" * 3000,
    ],
)  # fmt: skip
def test_signing_in_leads_to_pages_of_ours_only(api: Api, services: Services, path: str) -> None:
    token = add_agent(services, "dinum")[1]
    with browser(api) as client:
        answer = client.post("/sign-in/token", data={"token": token, "next": path})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        page = client.get("/sign-in", params={"next": path})
        assert "evil.example" not in page.text


# Sessions


def test_a_session_that_was_planted_before_signing_in_is_worth_nothing_after(api: Api, services: Services) -> None:
    attacker_token, victim_token = add_agent(services, "sante")[1], add_agent(services, "dinum")[1]
    with browser(api) as attacker, browser(api) as victim:
        sign_in(attacker, attacker_token)
        victim.cookies.update(attacker.cookies)
        planted = victim.cookies["jauge"]
        sign_in(victim, victim_token)
        assert victim.cookies["jauge"] != planted
        assert attacker.get("/usage").headers["location"].startswith("/sign-in")
    assert count(services) == 1


def test_cookies_are_the_hosts_own_over_https_and_no_script_reads_them() -> None:
    secure = Settings(public_url="https://jauge.example.fr")
    assert cookie_name(secure) == "__Host-jauge"
    for cookie in (session_cookie(secure, "s"), kept_cookie(secure, "attempt", "s"), no_session_cookie(secure)):
        assert cookie.key.startswith("__Host-jauge")
        assert (cookie.secure, cookie.httponly, cookie.samesite, cookie.path, cookie.domain) == (
            True, True, "lax", "/", None,
        )  # fmt: skip
    plain = session_cookie(Settings(), "s")
    assert (plain.key, plain.secure, plain.httponly) == ("jauge", False, True)


@pytest.mark.parametrize(
    ("column", "ago"), [("seen_at", lambda lives: lives.idle), ("created_at", lambda lives: lives.most)]
)
def test_a_session_ends_when_it_is_not_used_and_in_any_case_after_a_time(
    api: Api, services: Services, column: str, ago: Callable[[Any], timedelta]
) -> None:
    token, lives = add_agent(services, "dinum")[1], lives_of(services.settings)
    with browser(api) as client:
        sign_in(client, token)
        for so_long, status in ((ago(lives) - timedelta(minutes=1), 200), (ago(lives), 303)):
            with transaction(services.engine) as connection:
                connection.execute(console_session.update().values({column: datetime.now(UTC) - so_long}))
            assert client.get("/usage").status_code == status
    assert forget_sessions(services.engine, lives, datetime.now(UTC)) == 1


def suspend(services: Services, account_id: str, _token: str) -> None:
    with transaction(services.engine) as connection:
        connection.execute(account.update().where(account.c.id == account_id).values(status="suspended"))


def restore(services: Services, account_id: str, token: str) -> None:
    suspend(services, account_id, token)
    with transaction(services.engine) as connection:
        connection.execute(account.update().where(account.c.id == account_id).values(status="active"))


def delete(services: Services, account_id: str, _token: str) -> None:
    with transaction(services.engine) as connection:
        connection.execute(account.update().where(account.c.id == account_id).values(status="deleted"))


def suspend_all(services: Services, _account_id: str, _token: str) -> None:
    with transaction(services.engine) as connection:
        connection.execute(tenant.update().where(tenant.c.id == "dinum").values(status="suspended"))


def revoke(services: Services, account_id: str, _token: str) -> None:
    revoke_token(services.engine, f"{account_id}-token")


def expire(services: Services, account_id: str, _token: str) -> None:
    with transaction(services.engine) as connection:
        named = token_table.c.account == account_id
        connection.execute(token_table.update().where(named).values(expires_at=datetime.now(UTC)))
    services.catalog.refresh()


@pytest.mark.parametrize("end", [suspend, restore, delete, suspend_all, revoke, expire])
def test_sessions_end_at_once_with_what_they_were_made_from(
    api: Api, services: Services, end: Callable[[Services, str, str], None]
) -> None:
    account_id, token = add_agent(services, "dinum")
    _account, other_token = add_agent(services, "sante")
    with browser(api) as client, browser(api) as other:
        sign_in(client, token)
        sign_in(other, other_token)
        assert client.get("/usage").status_code == 200
        end(services, account_id, token)
        assert client.get("/usage").headers["location"].startswith("/sign-in")
        assert client.get("/v1/me").status_code == 401
        assert other.get("/usage").status_code == 200
    assert count(services) == (2 if end is expire else 1)


@pytest.fixture
def three(api: Api, services: Services) -> Iterator[tuple[httpx.Client, httpx.Client, httpx.Client, str]]:
    """Two browsers of one person, and one of somebody else; and the token of the first."""
    token, other_token = add_agent(services, "dinum")[1], add_agent(services, "dinum")[1]
    with browser(api) as one, browser(api) as two, browser(api) as other:
        for client, secret in ((one, token), (two, token), (other, other_token)):
            sign_in(client, secret)
        yield one, two, other, token


def test_one_page_shows_where_one_is_signed_in_and_signs_out_everywhere(
    three: tuple[httpx.Client, httpx.Client, httpx.Client, str],
) -> None:
    one, two, other, _token = three
    page = one.get("/sessions?lang=en")
    assert page.text.count('<th scope="row">with an access token') == 2
    assert page.text.count("(this one)") == 1
    assert one.post("/sessions/end").status_code == 403
    out = one.post("/sessions/end?lang=en", data={"csrf": csrf_on(page)})
    assert out.headers["location"] == "/sign-in?said=signed_out_everywhere&lang=en"
    assert "on all your browsers" in one.get(out.headers["location"]).text
    assert two.get("/usage").headers["location"].startswith("/sign-in")
    assert other.get("/usage").status_code == 200


def test_the_api_shows_and_ends_ones_sessions(
    api: Api, three: tuple[httpx.Client, httpx.Client, httpx.Client, str]
) -> None:
    one, two, other, token = three
    shown = two.get("/v1/me/sessions").json()["items"]
    assert [(item["way"], item["is_this"]) for item in shown] == [("token", True), ("token", False)]
    assert two.delete("/v1/me/sessions").status_code == 403  # from no page of ours
    with api.client(token) as program:
        assert program.delete("/v1/me/sessions").status_code == 204
        assert program.get("/v1/me/sessions").json() == {"items": []}
    assert one.get("/v1/me").status_code == two.get("/v1/me").status_code == 401
    assert other.get("/v1/me").status_code == 200


def test_operators_are_told_apart_by_name(services: Services) -> None:
    for name in ("a", "a", "b"):
        services.sessions.open(Principal(name, "operator"), "token")
    assert services.sessions.end_own(Principal("a", "operator")) == 2
    assert count(services) == 1
