"""Signing in at a real OpenID Connect provider: one whole path in Chromium, and every answer that opens nothing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
import sqlalchemy as sa
import structlog
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from playwright.sync_api import Browser, expect

from metering.catalog.tokens import add_token
from metering.console.sign_in import sign_in_of
from metering.database import transaction
from metering.embedded import Servers
from metering.services import Services, open_services
from metering.settings import Settings
from metering.tables import access_request, account, console_identity, console_session, person, tenant
from metering.tables import platform as platform_row
from metering.valkey import connect
from tests.applications import application
from tests.conftest import Api, copied_database, served_application
from tests.pages.provider import CLIENT, SECRET, ProviderServer, query_of, serving_provider
from tests.pages.tabs import violations
from tests.pages.test_signing_in import csrf_on
from tests.people import add_agent

SIRET, OTHER_SIRET = "13002526500013", "11004601800013"
EMAIL = "ada.martin@culture.example.fr"
CALLBACK = "/sign-in/callback"


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderServer]:
    with serving_provider() as served:
        yield served


@pytest.fixture(scope="module")
def settings(
    servers: Servers, template: str, provider: ProviderServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    with copied_database(servers, template, "identified") as database_url:
        yield Settings(
            database_url=database_url, redis_url=servers.redis_url, data=tmp_path_factory.mktemp("identified"),
            secret_key="a key for tests, long enough to be one", oidc_issuer=provider.issuer, oidc_client_id=CLIENT,
            oidc_client_secret=SECRET, oidc_scopes="openid profile email siret",
            oidc_operators={"grace": "grace@operator.example.fr"},
        )  # fmt: skip


@pytest.fixture(scope="module")
def platform(settings: Settings) -> Iterator[tuple[Services, Api]]:
    """One application for all: starting it takes longer than most tests."""
    with open_services(settings) as services:
        with transaction(services.engine) as connection:
            connection.execute(tenant.insert(), [
                {"id": "dinum", "name": "DINUM", "siret": SIRET},
                {"id": "sante", "name": "Santé", "siret": OTHER_SIRET},
            ])  # fmt: skip
        add_agent(services, "dinum", "manager", "u-ada")
        add_agent(services, "sante", "member", "u-other")
        operator = add_token(services.engine, "operator", "operator")
        with served_application(services) as url:
            services.settings.public_url = url
            yield services, Api(url, "", operator)


@pytest.fixture
def services(platform: tuple[Services, Api], provider: ProviderServer) -> Services:
    """As at first: nobody has signed in, and nothing is known of the provider."""
    services, _api = platform
    provider.forget()
    signing = application(services).state.signing
    signing.provider._known = None
    with services.redis() as store:
        for key in store.scan_iter("jauge:signing:*"):
            store.delete(key)
    with transaction(services.engine) as connection:
        for table in (console_session, console_identity, access_request):
            connection.execute(table.delete())
        for table in (account, tenant):
            connection.execute(table.update().values(status="active"))
        connection.execute(person.update().where(person.c.account == "u-ada").values(email=EMAIL))
        connection.execute(person.update().where(person.c.account == "u-other").values(email="other@sante.example.fr"))
    services.catalog.refresh()
    return services


@pytest.fixture
def api(platform: tuple[Services, Api], services: Services) -> Api:
    return platform[1]


@pytest.fixture
def ada(services: Services, provider: ProviderServer) -> str:
    """Somebody who has an account, and an identity at the provider that was never seen."""
    provider.add("ada", email=EMAIL.upper(), given_name="Ada", usual_name="Martin", siret=SIRET)
    return "u-ada"


def browser_of(api: Api) -> httpx.Client:
    return httpx.Client(base_url=api.url, timeout=60)


def begin(client: httpx.Client, path: str = "/usage") -> str:
    """Address at the provider that a browser is led to."""
    answer = client.get(f"/sign-in/provider?{urlencode({'next': path, 'lang': 'en'})}")
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def back_to(client: httpx.Client, url: str) -> httpx.Response:
    """Follow where the provider leads back to."""
    assert urlsplit(url).path == CALLBACK
    return client.get(f"{url}&lang=en")


def sign_in(client: httpx.Client, provider: ProviderServer, subject: str = "ada") -> httpx.Response:
    return back_to(client, provider.consent(begin(client), subject))


@contextmanager
def signing_as(services: Services, store: str | None = None, **changes: Any) -> Iterator[None]:
    """Signing in with other settings, or another store, as long as the block runs."""
    state = application(services).state
    before = state.signing
    client = services.redis() if store is None else connect(store)
    state.signing = sign_in_of(services.settings.model_copy(update=changes), client)
    yield
    state.signing = before


def sessions_in(services: Services) -> int:
    with transaction(services.engine) as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(console_session)) or 0


def test_who_the_provider_identifies_is_signed_in_with_all_that_the_profile_asks_for(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    with browser_of(api) as client, structlog.testing.capture_logs() as logs:
        url = begin(client, "/usage?group_by=model")
        asked = query_of(url)
        assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT, "S256")
        assert asked["redirect_uri"] == api.url + CALLBACK
        answer = back_to(client, provider.consent(url, "ada"))
        assert (answer.status_code, answer.headers["location"]) == (303, "/usage?group_by=model&lang=en")
        assert client.get("/v1/me").json()["account"] == ada
        assert client.get("/v1/me").json()["administration"]["id"] == "dinum"
    sent = provider.form_of("/oauth2/token")
    assert len(sent["code_verifier"]) >= 43
    assert asked["state"] not in (asked["nonce"], sent["code_verifier"])
    told = repr(logs)
    for secret in (SECRET, sent["code"], sent["code_verifier"], asked["state"], asked["nonce"], EMAIL, "Martin", SIRET):
        assert secret not in told
    with transaction(services.engine) as connection:
        kept = connection.execute(sa.select(console_session.c.id_token, console_session.c.way)).one()
    assert kept.way == "oidc"
    assert "u-ada" not in kept.id_token
    assert kept.id_token.count(".") == 4  # encrypted under the cookie's secret, which nobody else has


def test_a_code_is_worth_nothing_to_a_browser_that_did_not_ask_for_it(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    with browser_of(api) as client, browser_of(api) as thief, structlog.testing.capture_logs() as logs:
        code = query_of(provider.consent(begin(client), "ada"))["code"]
        state = query_of(begin(thief))["state"]
        stolen = f"{CALLBACK}?{urlencode({'code': code, 'state': state})}"
        refused(back_to(thief, stolen), services, "The identity provider refused", 403)
    (line,) = [line for line in logs if line["event"] == "sign_in_refused"]
    assert line["code"] == "provider_refused", line


def test_once_seen_the_identity_counts_and_not_the_address(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    with browser_of(api) as client:
        assert sign_in(client, provider).status_code == 303
        provider.add("ada", email="ada.moved@culture.example.fr", siret=SIRET)
        assert sign_in(client, provider).headers["location"] == "/usage?lang=en"
        assert client.get("/v1/me").json()["account"] == ada
    provider.add("homonym", email=EMAIL, siret=SIRET)
    with browser_of(api) as client:
        refused = sign_in(client, provider, "homonym")
        assert (refused.status_code, client.cookies.get("jauge")) == (403, None)
        assert "belongs to another identity" in refused.text


def test_the_siret_gives_the_administration_and_nothing_of_another_one(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    provider.add("ada", email=EMAIL, siret=OTHER_SIRET)  # her address, proven for an administration that isn't hers
    with browser_of(api) as client:
        assert sign_in(client, provider).headers["location"] == "/access?lang=en"
    assert sessions_in(services) == 0


def test_who_proves_no_siret_is_known_by_an_address_that_one_account_has(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    provider.add("ada", email=EMAIL)
    with browser_of(api) as client:
        assert sign_in(client, provider).headers["location"] == "/usage?lang=en"
    with transaction(services.engine) as connection:
        connection.execute(console_identity.delete())
        connection.execute(person.update().values(email=EMAIL))
    with browser_of(api) as client:
        refused = sign_in(client, provider)
        assert (refused.status_code, "Several accounts" in refused.text) == (403, True)


@pytest.mark.parametrize("claims", [{}, {"email": "not an address"}, {"email": EMAIL, "email_verified": False}])
def test_an_address_that_nobody_stands_for_opens_nothing(
    api: Api, services: Services, provider: ProviderServer, ada: str, claims: dict[str, Any]
) -> None:
    provider.add("ada", siret=SIRET, **claims)
    with browser_of(api) as client:
        refused = sign_in(client, provider)
        assert (refused.status_code, "no verified address" in refused.text) == (403, True)
    assert sessions_in(services) == 0


def test_an_operator_is_who_the_settings_name(api: Api, services: Services, provider: ProviderServer) -> None:
    provider.add("grace", email="Grace@operator.example.fr")
    with browser_of(api) as client:
        assert sign_in(client, provider, "grace").status_code == 303
        assert client.get("/v1/admin/access-requests").status_code == 200
        assert "grace" in client.get("/usage").text
    services.sessions._operators = frozenset()  # as after a start with other settings
    with browser_of(api) as later:
        later.cookies.update(client.cookies)
        assert later.get("/usage").headers["location"].startswith("/sign-in?")


@pytest.mark.parametrize(
    ("table", "said"), [(account, "Your account is suspended"), (tenant, "Your administration is suspended")]
)
def test_who_is_suspended_is_told_so(
    api: Api, services: Services, provider: ProviderServer, ada: str, table: Any, said: str
) -> None:
    with browser_of(api) as client:
        sign_in(client, provider)
        name = ada if table is account else "dinum"
        with transaction(services.engine) as connection:
            connection.execute(table.update().where(table.c.id == name).values(status="suspended"))
        assert sessions_in(services) == 0
        assert client.get("/usage").headers["location"].startswith("/sign-in?")
        refused = sign_in(client, provider)
        assert (refused.status_code, said in refused.text) == (403, True)


# Asking for access


def test_who_is_unknown_asks_for_access_with_what_is_proven_and_the_house_passes(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    provider.add("new", email="new@elsewhere.example.fr", given_name="Nina", usual_name="<b>Roy</b>", siret=SIRET)
    with transaction(services.engine) as connection:
        connection.execute(platform_row.update().values(house_sirets=[SIRET], house_tenant="dinum"))
    with browser_of(api) as client, structlog.testing.capture_logs() as logs:
        assert sign_in(client, provider, "new").headers["location"] == "/access?lang=en"
        form = client.get("/access?lang=en")
        assert "Nina &lt;b&gt;Roy&lt;/b&gt;" in form.text
        assert SIRET in form.text
        incomplete = client.post("/access?lang=en", data={"kind": "individual", "organisation": "DINUM", "motive": " "})
        assert (incomplete.status_code, "Fill in every field" in incomplete.text) == (422, True)
        assert 'value="DINUM"' in incomplete.text
        asked = {"kind": "individual", "organisation": "DINUM", "motive": "Trying", "siret": OTHER_SIRET}
        assert client.post("/access", data=asked).status_code == 422  # a SIRET can't be claimed here
        del asked["siret"]
        sent = client.post("/access?lang=en", data=asked)
        assert (sent.status_code, sent.headers["location"]) == (303, "/sign-in?said=access_approved&lang=en")
        assert "an activation code is on its way" in client.get(sent.headers["location"]).text
        assert client.post("/access", data=asked).headers["location"] == "/sign-in"  # once
    assert "elsewhere" not in repr(logs)
    with transaction(services.engine) as connection:
        kept = connection.execute(sa.select(access_request)).one()
    assert (kept.state, kept.tenant, kept.siret, kept.siret_proven) == ("approved", "dinum", SIRET, True)


def test_a_proven_siret_of_another_administration_waits_for_an_operator_who_sees_that_it_is_proven(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    provider.add("new", email="new@elsewhere.example.fr", siret=OTHER_SIRET)
    with browser_of(api) as client:
        sign_in(client, provider, "new")
        asked = {"kind": "partner", "organisation": "Santé", "motive": "Trying"}
        assert client.post("/access", data=asked).headers["location"] == "/sign-in?said=access_waits"
    with api.client(api.operator_token) as operator:
        (request,) = operator.get("/v1/admin/access-requests").json()["items"]
    assert (request["state"], request["siret"], request["siret_proven"]) == ("pending", OTHER_SIRET, True)


def test_nobody_asks_for_access_who_has_not_signed_in_or_from_another_site(api: Api) -> None:
    with browser_of(api) as client:
        assert client.get("/access").headers["location"] == "/sign-in"
        assert client.post("/access", data={}).headers["location"] == "/sign-in"
        assert client.post("/access", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


# Answers that open nothing


def refused(answer: httpx.Response, services: Services, said: str, status: int = 400) -> None:
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert sessions_in(services) == 0
    assert "set-cookie" not in answer.headers or "jauge=" not in answer.headers["set-cookie"]


def test_an_answer_with_another_state_is_refused_and_uses_the_attempt_up(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    with browser_of(api) as client:
        url = provider.consent(begin(client), "ada")
        forged = url.replace(query_of(url)["state"], "another")
        refused(back_to(client, forged), services, "isn’t the one to your sign-in")
        refused(back_to(client, url), services, "Begin again")


def test_an_answer_counts_once(api: Api, services: Services, provider: ProviderServer, ada: str) -> None:
    with browser_of(api) as client:
        url = provider.consent(begin(client), "ada")
        cookies = dict(client.cookies)
        assert back_to(client, url).status_code == 303
        with transaction(services.engine) as connection:
            connection.execute(console_session.delete())
        with browser_of(api) as thief:
            thief.cookies.update(cookies)
            refused(back_to(thief, url), services, "has been used already")


def test_an_answer_to_another_browser_signs_nobody_in(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    with browser_of(api) as attacker, browser_of(api) as victim, browser_of(api) as other:
        url = provider.consent(begin(attacker), "ada")
        refused(back_to(victim, url), services, "wasn’t begun on this browser")
        begin(other)
        refused(back_to(other, url), services, "isn’t the one to your sign-in")


def test_an_answer_that_comes_late_is_refused(api: Api, services: Services, provider: ProviderServer, ada: str) -> None:
    with browser_of(api) as client, services.redis() as store:
        url = provider.consent(begin(client), "ada")
        (key,) = store.scan_iter("jauge:signing:kept:*")
        assert 0 < store.ttl(key) <= 600
        assert b"ada" not in store.get(key)
        store.delete(key)  # as it goes by itself after that time
        refused(back_to(client, url), services, "is too old")


def test_another_nonce_is_refused(api: Api, services: Services, provider: ProviderServer, ada: str) -> None:
    with browser_of(api) as client:
        url = begin(client)
        other = url.replace(query_of(url)["nonce"], "a-nonce-of-somebody-else")
        refused(back_to(client, provider.consent(other, "ada")), services, "could not be verified", 403)


def test_a_code_that_the_provider_does_not_know_is_refused(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    with browser_of(api) as client:
        state = query_of(begin(client))["state"]
        answer = client.get(CALLBACK, params={"state": state, "code": "guessed", "lang": "en"})
        refused(answer, services, "The identity provider refused", 403)
        state = query_of(begin(client))["state"]
        given_up = client.get(CALLBACK, params={"state": state, "error": "access_denied", "lang": "en"})
        refused(given_up, services, "You gave up signing in", 403)
        state = query_of(begin(client))["state"]
        refused(client.get(CALLBACK, params={"state": state, "lang": "en"}), services, "provider refused", 403)
        state = query_of(begin(client))["state"]
        other = client.get(CALLBACK, params={"state": state, "code": "c", "iss": "https://other.test", "lang": "en"})
        refused(other, services, "isn’t the one to your sign-in")


def signed(provider: ProviderServer, given: dict[str, Any], key: Any = None, alg: str = "RS256", **changes: Any) -> str:
    """The identity token of an answer, with other claims, and signed otherwise."""
    import base64

    text = given["id_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))) | changes
    return jwt.encode({"alg": alg, "kid": "other"}, claims, key or RSAKey.generate_key(2048), algorithms=[alg])


def unsigned(given: dict[str, Any]) -> str:
    import base64

    header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    return f"{header}.{given['id_token'].split('.')[1]}."


KEY = RSAKey.generate_key(2048, {"kid": "other", "use": "sig"})
LONG_AGO, FAR_AHEAD = 1_600_000_000, 4_000_000_000  # seconds of the epoch: 2020 and 2096


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"aud": "another-client"}, "aud"),
        ({"aud": [CLIENT, "another-client"]}, "azp"),
        ({"iss": "https://another.test"}, "iss"),
        ({"exp": LONG_AGO}, "exp"),
        ({"iat": LONG_AGO}, "iat"),
        ({"iat": FAR_AHEAD}, "iat"),
        ({"nonce": "another"}, "nonce"),
        ({"sub": "another"}, "sub"),
    ],
    ids=str,
)
def test_an_identity_token_that_does_not_hold_is_refused_and_the_log_says_which_claim(
    api: Api, services: Services, provider: ProviderServer, ada: str, changes: dict[str, Any], claim: str
) -> None:
    provider.changes["/jwks"] = lambda keys: {"keys": [*keys["keys"], KEY.as_dict(private=False)]}
    provider.changes["/oauth2/token"] = lambda given: given | {"id_token": signed(provider, given, KEY, **changes)}
    with browser_of(api) as client, structlog.testing.capture_logs() as logs:
        refused(sign_in(client, provider), services, "could not be verified", 403)
    (line,) = [line for line in logs if line["event"] == "sign_in_refused"]
    assert (line["code"], f"({claim})" in line["why"]) == ("identity_token", True), line


@pytest.mark.parametrize(
    "make",
    [
        lambda provider, given: unsigned(given),
        lambda provider, given: signed(provider, given, OctKey.import_key(SECRET), "HS256"),
        lambda provider, given: signed(provider, given, KEY, "PS256"),
        signed,
        lambda provider, given: "no.token",
        lambda provider, given: "",
    ],
    ids=["none", "by the shared secret", "an algorithm not in the list", "an unknown key", "garbage", "missing"],
)
def test_what_the_provider_did_not_sign_as_it_should_is_refused(
    api: Api, services: Services, provider: ProviderServer, ada: str, make: Any
) -> None:
    provider.changes["/oauth2/token"] = lambda given: given | {"id_token": make(provider, given)}
    with browser_of(api) as client:
        refused(sign_in(client, provider), services, "could not be verified", 403)


def test_an_expired_token_of_the_provider_itself_is_refused(api: Api, services: Services, ada: str) -> None:
    with serving_provider(life=timedelta(minutes=-5)) as late, signing_as(services, oidc_issuer=late.issuer):
        late.add("ada", email=EMAIL, siret=SIRET)
        with browser_of(api) as client:
            refused(sign_in(client, late), services, "could not be verified", 403)


def test_keys_are_read_again_once_where_one_is_unknown(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    with browser_of(api) as client:
        assert sign_in(client, provider).status_code == 303
        known = [path for path, _form in provider.asked].count("/jwks")
        assert sign_in(client, provider).status_code == 303
        assert [path for path, _form in provider.asked].count("/jwks") == known == 1
        provider.changes["/jwks"] = lambda keys: {"keys": [KEY.as_dict(private=False)]}  # the provider's key changes
        provider.changes["/oauth2/token"] = lambda given: given | {"id_token": signed(provider, given, KEY)}
        assert sign_in(client, provider).status_code == 303
        assert [path for path, _form in provider.asked].count("/jwks") == 2


def test_what_the_provider_says_of_a_person_may_be_signed_as_proconnect_does(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    provider.changes["/jwks"] = lambda keys: {"keys": [KEY.as_dict(private=False)]}
    provider.changes["/oauth2/token"] = lambda given: given | {"id_token": signed(provider, given, KEY)}

    def by(key: Any, **changes: Any) -> None:
        own = {"iss": provider.issuer, "aud": CLIENT} | changes
        provider.changes["/userinfo"] = lambda person: jwt.encode(
            {"alg": "RS256", "kid": "other"}, person | own, key, algorithms=["RS256"]
        ).encode()

    for key, changes in ((RSAKey.generate_key(2048), {}), (KEY, {"aud": "another"}), (KEY, {"sub": "another"})):
        by(key, **changes)
        with browser_of(api) as client:
            refused(sign_in(client, provider), services, "could not be verified", 403)
    by(KEY)
    with browser_of(api) as client:
        assert sign_in(client, provider).headers["location"] == "/usage?lang=en"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/.well-known/openid-configuration", {"issuer": "https://another.test"}),
        ("/jwks", {"keys": []}),
        ("/jwks", {"keys": [{"kty": "RSA"}]}),
    ],
)
def test_a_provider_that_is_not_itself_is_as_good_as_away(
    api: Api, services: Services, provider: ProviderServer, path: str, answer: dict[str, Any]
) -> None:
    provider.changes[path] = lambda _told: answer
    with browser_of(api) as client:
        away = client.get("/sign-in/provider?lang=en")
        assert (away.status_code, away.headers["retry-after"]) == (503, "30")
        assert "doesn’t answer" in away.text
        provider.changes.clear()
        assert client.get("/sign-in/provider").status_code == 303  # an outage isn't remembered


def test_a_provider_that_is_away_leaves_the_token_and_the_way_out(
    api: Api, services: Services, provider: ProviderServer, ada: str
) -> None:
    token = add_agent(services, "dinum", "member")[1]
    with browser_of(api) as before, browser_of(api) as client, structlog.testing.capture_logs() as logs:
        sign_in(before, provider)
        with serving_provider() as short:
            pass
        with signing_as(services, oidc_issuer=short.issuer):
            away = client.get("/sign-in/provider?next=/usage&lang=en")
            assert (away.status_code, away.headers["retry-after"]) == (503, "30")
            assert "use an access token" in away.text
            assert client.post("/sign-in/token", data={"token": token}).status_code == 303
            csrf = csrf_on(before.get("/quotas"))
            assert before.post("/sign-out", data={"csrf": csrf}).headers["location"] == "/sign-in?said=signed_out"
    assert [line["why"] for line in logs if line["event"] == "identity_provider_away"] == ["ConnectError"] * 2


def test_without_a_store_for_attempts_nobody_begins_one_and_tokens_still_sign_in(
    api: Api, services: Services, ada: str
) -> None:
    token = add_agent(services, "dinum", "member")[1]
    with browser_of(api) as client, signing_as(services, store="redis://127.0.0.1:1"):
        away = client.get("/sign-in/provider?lang=en")
        assert (away.status_code, "isn’t possible for a moment" in away.text) == (503, True)
        assert client.post("/sign-in/token", data={"token": token}).status_code == 303


# In a real Chromium


def test_the_whole_path_in_a_browser_from_a_page_to_signing_out_at_the_provider(
    api: Api, provider: ProviderServer, ada: str, browser: Browser
) -> None:
    context = browser.new_context(java_script_enabled=False, locale="fr-FR")
    page = context.new_page()
    page.goto(f"{api.url}/quotas")
    page.get_by_role("link", name="Se connecter avec ProConnect").click()
    page.locator("input[name=sub]").fill("ada")
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{api.url}/quotas**")
    assert page.locator(".person-name").inner_text() == ada
    cookies = {one["name"]: one for one in context.cookies(api.url)}
    assert set(cookies) == {"jauge"}
    assert (cookies["jauge"]["httpOnly"], cookies["jauge"]["sameSite"]) == (True, "Lax")
    page.get_by_role("button", name="Se déconnecter").click()
    page.wait_for_url(f"{provider.issuer}/oauth2/end_session**")
    left = query_of(page.url)
    assert (left["post_logout_redirect_uri"], left["id_token_hint"].count(".")) == (f"{api.url}/sign-out", 2)
    assert len(left["state"]) >= 32
    page.get_by_role("button").first.click()
    page.get_by_text("Vous êtes déconnecté.").wait_for()
    assert context.cookies(api.url) == []
    assert page.url.startswith(f"{api.url}/sign-in")
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["fr", "en"])
def test_axe_finds_nothing_on_the_pages_around_signing_in(
    api: Api, provider: ProviderServer, ada: str, browser: Browser, theme: Any, language: str
) -> None:
    provider.add("new", email="new@elsewhere.example.fr", siret=OTHER_SIRET)
    context = browser.new_context(color_scheme=theme, locale="fr-FR", viewport={"width": 320, "height": 700})
    page = context.new_page()
    with browser_of(api) as client:
        sign_in(client, provider, "new")
        context.add_cookies([{"name": name, "value": value, "url": api.url} for name, value in client.cookies.items()])
        page.goto(f"{api.url}/access?lang={language}")
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        sign_in(client, provider)
        context.add_cookies([{"name": name, "value": value, "url": api.url} for name, value in client.cookies.items()])
    for path in ("/sign-in", "/sign-in?said=access_waits", "/sessions", "/sign-in/callback"):
        page.goto(f"{api.url}{path}{'&' if '?' in path else '?'}lang={language}")
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
    expect(page.get_by_role("alert")).to_be_visible()
    context.close()
