"""The life of an account, through HTTP: asked for, approved, activated, used, suspended, deleted, forgotten."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from litestar.testing import TestClient

from metering.catalog import documents
from metering.catalog.keys import check_key
from metering.catalog.kinds import KINDS, put
from metering.catalog.snapshot import digest_of
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.errors import Forbidden, Unauthorized
from metering.outbox.delivery import deliver_due
from metering.outbox.mail import MailCourier
from metering.outbox.messages import SENT
from metering.services import Services
from tests.applications import application
from tests.http.conftest import client_with
from tests.people import add_agent

LONG_AGO = "2026-01-01T00:00:00Z"
NAME, EMAIL = "Camille Zephirine Desbois", "camille.zephirine@ministere.example.fr"
ASKED = {
    "kind": "individual",
    "organisation": "Ministère",
    "name": NAME,
    "email": EMAIL,
    "motive": "Summaries of letters, asked by Camille Zephirine Desbois.",
}


@dataclass
class Mailbox:
    """Takes mails, and holds them by address."""

    mails: list[Any] = field(default_factory=list)

    def send(self, mail: Any) -> Any:
        self.mails.append(mail)
        return SENT

    def last(self, address: str) -> str:
        return next(mail.get_content() for mail in reversed(self.mails) if mail["To"].lower() == address.lower())

    def code(self, address: str) -> str:
        return self.last(address).split("code=")[1].split()[0]


@dataclass
class Platform:
    """The application with an operator, a mailbox, and clients for whom it knows."""

    services: Services
    client: TestClient[Any]
    mailbox: Mailbox
    operator: str
    gateway: str

    def call(self, method: str, path: str, token: str | None = None, body: Any = None) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.client.request(method, path, headers=headers, json=body)

    def deliver(self) -> None:
        """Send all mails that wait."""
        courier = MailCourier(
            self.services.master_key, self.mailbox, sender="Jauge <jauge@example.fr>", public_url="https://jauge.example",
            operator=None,
        )  # fmt: skip
        later = datetime.now(UTC) + timedelta(seconds=1)
        while deliver_due(self.services.engine, {"mail": courier}, later).total:
            pass

    def last_mail(self) -> str:
        return str(self.mailbox.mails[-1].get_content())

    def ask(self, **changes: Any) -> httpx.Response:
        return self.call("POST", "/v1/access-requests", body=ASKED | changes)

    def approve(self, request_id: str, tenant: str = "dinum", **more: Any) -> httpx.Response:
        body = {"decision": "approve", "tenant": tenant, **more}
        return self.call("POST", f"/v1/admin/access-requests/{request_id}/decision", self.operator, body)

    def join(self, tenant: str, email: str = EMAIL, **more: Any) -> dict[str, Any]:
        """Ask, be approved, and activate: the answer to the activation."""
        assert self.approve(self.ask(email=email).json()["id"], tenant, **more).status_code == 200
        self.deliver()
        answer = self.call("POST", "/v1/activations", body={"code": self.mailbox.code(email)})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def publish(self, document: str = "terms", version: str = "1", at: str = LONG_AGO) -> None:
        texts = {"title_fr": "T", "title_en": "T", "text_fr": "Texte", "text_en": "Text"}
        wanted = {"document": document, "version": version, **texts, "effective_at": at, "enforced_at": at}
        with transaction(self.services.engine) as connection:
            put(connection, KINDS["terms"], msgspec.convert(wanted, documents.Terms))
        self.services.catalog.refresh()

    def set_platform(self, **changes: Any) -> None:
        wanted = {"default_plan": "experimentation", **changes}
        with transaction(self.services.engine) as connection:
            put(connection, KINDS["platform"], msgspec.convert(wanted, documents.Platform))

    def check(self, secret: str) -> str:
        """What the hot path says of a key: `ok`, or the code of the refusal."""
        try:
            check_key(self.services.catalog.current(), digest_of(secret), datetime.now(UTC))
        except (Unauthorized, Forbidden) as error:
            return error.code
        return "ok"

    def told(self) -> set[str]:
        """Subjects of all mails and events."""
        with self.services.engine.connect() as connection:
            return set(connection.scalars(sa.text("SELECT subject FROM outbox")))

    def everything_stored(self) -> str:
        """The text of every row of every table."""
        with self.services.engine.connect() as connection:
            tables = connection.scalars(sa.text("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') "
                                                "AND relnamespace = 'public'::regnamespace")).all()  # fmt: skip
            return "\n".join(
                text for table in tables for text in connection.scalars(sa.text(f'SELECT t::text FROM "{table}" t'))
            )


@pytest.fixture
def platform(services: Services) -> Iterator[Platform]:
    operator = add_token(services.engine, "operator", "operator")
    gateway = add_token(services.engine, "gateway", "gateway")
    with client_with(application(services)) as client:
        yield Platform(services, client, Mailbox(), operator, gateway)


def eventually(said: Any, wanted: str) -> None:
    """Within a second."""
    deadline = time.monotonic() + 1
    while (now := said()) != wanted:
        assert time.monotonic() < deadline, now
        time.sleep(0.01)


def check_a_raise_is_granted(platform: Platform, token: str, account: str) -> None:
    daily = {"scope": "user", "selector": "model:*", "meter": "requests", "window": "day", "value": 5_000}
    wanted = {"limit": daily, "motive": "Letters of a whole year."}
    asked = platform.call("POST", "/v1/tenants/dinum/limit-requests", token, wanted).json()
    assert (asked["state"], asked["subject"], asked["study"]["is_measured"]) == ("pending", account, True)
    decision = {"decision": "approve", "reason": "A fair use.", "value": 3_000}
    place = f"/v1/admin/limit-requests/{asked['id']}/decision"
    assert platform.call("POST", place, token, decision).status_code == 403
    decided = platform.call("POST", place, platform.operator, decision).json()
    assert (decided["state"], decided["granted"]["value"]) == ("approved", 3_000)
    in_force = platform.call("GET", "/v1/tenants/dinum/limits", token).json()["items"]
    assert ("override", account, 3_000) in {(one["source"], one["subject"], one["value"]) for one in in_force}


def test_the_life_of_an_account(platform, make_event) -> None:
    platform.publish("terms")
    platform.publish("data_policy")
    asked = platform.ask()
    assert (asked.status_code, asked.json()["state"]) == (202, "pending")
    waiting = platform.call("GET", "/v1/admin/access-requests?state=pending", platform.operator).json()["items"]
    assert [(one["id"], one["email"]) for one in waiting] == [(asked.json()["id"], EMAIL)]
    assert platform.approve(asked.json()["id"]).json()["state"] == "approved"
    platform.deliver()
    activated = platform.call("POST", "/v1/activations", body={"code": platform.mailbox.code(EMAIL)}).json()
    token, account = activated["token"], activated["account"]
    assert (activated["tenant"], activated["role"]) == ("dinum", "member")

    me = platform.call("GET", "/v1/me", token).json()
    assert (me["account"], me["person"]["name"], me["administration"]["id"]) == (account, NAME, "dinum")
    refused = platform.call("POST", "/v1/tenants/dinum/keys", token, {"name": "laptop"})
    assert (refused.status_code, refused.json()["code"]) == (403, "terms_not_accepted")
    assert refused.json()["expected"] == "data_policy 1, terms 1"
    assert {(one["document"], one["accepted_at"]) for one in me["terms"]} == {("terms", None), ("data_policy", None)}
    for one in platform.call("GET", "/v1/terms").json()["items"]:
        accepted = platform.call(
            "POST", "/v1/me/acceptances", token, {name: one[name] for name in ("document", "version")}
        )
        assert accepted.status_code == 200
    key = platform.call("POST", "/v1/tenants/dinum/keys", token, {"name": "laptop"}).json()
    assert platform.check(key["secret"]) == "ok"

    used = [make_event(user=account, api_key=key["id"]) for _ in range(3)]
    assert platform.call("POST", "/v1/events", platform.gateway, used).status_code == 200
    (listed,) = platform.call("GET", "/v1/tenants/dinum/keys", token).json()["items"]
    assert listed["last_used_on"] == "2026-10-05"
    check_a_raise_is_granted(platform, token, account)

    question = "/v1/usage?start=2026-10-01&end=2026-11-01&group_by=user"
    sums = platform.call("GET", question, platform.operator).json()["items"]
    path = f"/v1/tenants/dinum/accounts/{account}"
    assert platform.call("POST", f"{path}/suspension", platform.operator, {"reason": "abuse"}).status_code == 200
    eventually(lambda: platform.check(key["secret"]), "account_suspended")
    assert platform.call("GET", "/v1/me", token).json()["code"] == "account_suspended"
    assert platform.call("DELETE", f"{path}/suspension", platform.operator).status_code == 204
    eventually(lambda: platform.check(key["secret"]), "ok")

    assert platform.call("DELETE", "/v1/me", token).status_code == 204
    eventually(lambda: platform.check(key["secret"]), "invalid_key")
    assert platform.call("GET", "/v1/me", token).status_code == 401
    platform.deliver()
    assert platform.told() == {
        "access.requested", "access_received", "access_to_validate", "access.decided", "access_approved",
        "account.activated", "key.created", "raise.requested", "raise_received", "raise.decided", "raise_decided",
        "account.suspended", "account_suspended", "key.revoked", "account.deleted", "account_deleted",
    }  # fmt: skip
    stored = platform.everything_stored()
    assert account in stored
    assert key["secret"] not in stored
    for trace in ("camille", "zephirine", "desbois", EMAIL):
        assert trace not in stored.lower()
    assert platform.call("GET", question, platform.operator).json()["items"] == sums
    assert [(row["user"], row["requests"]) for row in sums] == [(account, 3)]


def test_what_is_answered_never_tells_who_has_an_account(platform) -> None:
    platform.join("dinum")
    answers = [platform.ask().json(), platform.ask(email="nobody@ministere.example.fr").json()]
    for one in answers:
        del one["id"], one["received_at"]
    assert answers[0] == answers[1] == {"state": "pending", "reason": None}
    wrong = platform.call("POST", "/v1/activations", body={"code": "guessed"})
    assert (wrong.status_code, wrong.json()["code"], "guessed" in wrong.text) == (404, "unknown_code", False)


def test_a_code_works_once_and_not_after_its_end(platform) -> None:
    for wanted in ("code_used", "code_expired"):
        platform.approve(platform.ask().json()["id"])
        platform.deliver()
        code = platform.mailbox.code(EMAIL)
        if wanted == "code_used":
            assert platform.call("POST", "/v1/activations", body={"code": code}).status_code == 201
        else:
            with transaction(platform.services.engine) as connection:
                connection.execute(sa.text("UPDATE access_request SET code_expires_at = now()"))
        answer = platform.call("POST", "/v1/activations", body={"code": code})
        assert (answer.status_code, answer.json()["code"]) == (410, wanted)


def test_who_has_an_account_there_gets_a_token_for_it_and_elsewhere_another_account(platform) -> None:
    first, again, elsewhere = platform.join("dinum"), platform.join("dinum", EMAIL.upper()), platform.join("sante")
    assert first["account"] == again["account"] != elsewhere["account"]
    assert first["token"] != again["token"]
    for one in (first, again):
        assert platform.call("GET", "/v1/me", one["token"]).json()["account"] == first["account"]
    path = f"/v1/tenants/dinum/accounts/{first['account']}/suspension"
    platform.call("POST", path, platform.operator, {"reason": "abuse"})
    platform.approve(platform.ask().json()["id"])
    platform.deliver()
    refused = platform.call("POST", "/v1/activations", body={"code": platform.mailbox.code(EMAIL)})
    assert (refused.status_code, refused.json()["code"]) == (403, "account_suspended")


def test_the_house_passes_at_once_but_only_an_owner_of_the_address_gets_in(platform) -> None:
    siret = "13002526500013"
    platform.set_platform(house_sirets=[siret], house_domains=["numerique.example.fr"], house_tenant="dinum")
    cases = {
        "a@numerique.example.fr": "approved",
        "a@equipe.numerique.example.fr": "approved",
        "a@notnumerique.example.fr": "pending",
        "a@numerique.example.fr.attacker.example": "pending",
    }
    assert {email: platform.ask(email=email).json()["state"] for email in cases} == cases
    # A SIRET is public: without an address of the house it proves nothing.
    assert platform.ask(email="a@attacker.example", siret=siret).json()["state"] == "pending"
    answer = platform.ask(email="b@numerique.example.fr", siret=siret)
    assert (answer.json()["state"], set(answer.json())) == ("approved", {"id", "state", "reason", "received_at"})
    with platform.services.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM account")) == 0
    platform.deliver()
    code = platform.mailbox.code("b@numerique.example.fr")
    assert platform.call("POST", "/v1/activations", body={"code": code}).json()["tenant"] == "dinum"


def test_an_address_is_asked_for_a_few_times_a_day_at_most(platform) -> None:
    assert [platform.ask().status_code for _ in range(5)] == [202] * 5
    flooded = platform.ask(email=EMAIL.upper())
    assert (flooded.status_code, flooded.json()["code"]) == (429, "too_many_requests")
    assert int(flooded.headers["retry-after"]) > 0
    assert platform.ask(email="other@ministere.example.fr").status_code == 202


def test_a_request_against_a_rule_is_refused_without_its_words(platform) -> None:
    refused: list[tuple[dict[str, Any], int, str]] = [
        ({"email": "words"}, 422, "invalid_email"),
        ({"email": "words@localhost"}, 422, "invalid_email"),
        ({"email": "wörds@example.fr"}, 422, "invalid_email"),
        ({"email": "words@example.fr\nBcc: words@example.fr"}, 422, "invalid_email"),
        ({"experiment": "words"}, 422, "unknown_experiment"),
        ({"siret": "12345678901234"}, 400, "invalid_request"),
        ({"kind": "invitation"}, 400, "invalid_request"),
        ({"state": "words"}, 400, "invalid_request"),
    ]
    for changes, status, code in refused:
        answer = platform.ask(**changes)
        assert (answer.status_code, answer.json()["code"]) == (status, code), changes
        assert "words" not in answer.text


def test_a_manager_runs_the_administration_and_nobody_elses(platform) -> None:
    manager, token = add_agent(platform.services, "dinum", "manager")
    member, member_token = add_agent(platform.services, "dinum")
    other, _ = add_agent(platform.services, "sante")
    assert platform.call("POST", "/v1/tenants/sante/projects", platform.operator, {"id": "p", "name": "P"}).is_success
    invited = platform.call("POST", "/v1/tenants/dinum/invitations", token, {"name": NAME, "email": EMAIL})
    assert invited.status_code == 202
    platform.deliver()
    joined = platform.call("POST", "/v1/activations", body={"code": platform.mailbox.code(EMAIL)}).json()
    listed = platform.call("GET", "/v1/tenants/dinum/accounts", token).json()["items"]
    assert {one["id"] for one in listed} == {manager, member, joined["account"]}
    assert next(one["email"] for one in listed if one["id"] == joined["account"]) == EMAIL

    managing: list[tuple[str, str, Any]] = [
        ("GET", "accounts", None),
        ("POST", "invitations", {"name": NAME, "email": EMAIL}),
        ("POST", "projects", {"id": "q", "name": "Q"}),
        ("PATCH", "projects/p", {"name": "Q"}),
        ("PATCH", f"accounts/{other}", {"role": "manager"}),
        ("POST", f"accounts/{other}/suspension", {"reason": "r"}),
        ("DELETE", f"accounts/{other}/suspension", None),
        ("DELETE", f"accounts/{other}", None),
    ]
    own: list[tuple[str, str, Any]] = [
        ("GET", "keys", None),
        ("GET", "projects", None),
        ("POST", "keys", {"name": "k"}),
        ("PATCH", "keys/k-1", {"name": "k"}),
        ("DELETE", "keys/k-1", None),
    ]
    for method, path, body in [*managing, *own]:
        for tenant in ("sante", "unknown"):
            answer = platform.call(method, f"/v1/tenants/{tenant}/{path}", token, body)
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_tenant"), (method, path)
    for method, path, body in managing:
        answer = platform.call(method, f"/v1/tenants/dinum/{path}", member_token, body)
        assert (answer.status_code, answer.json()["code"]) == (403, "wrong_role"), (method, path)
    # The other administration's account isn't reached through one's own either.
    for method, path, body in managing[4:]:
        answer = platform.call(method, f"/v1/tenants/dinum/{path}", token, body)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_account"), (method, path)
    for path in ("/v1/admin/access-requests", "/v1/admin/tenants/dinum/keys"):
        assert platform.call("POST", path, token, {"keys": []}).status_code in {403, 405}


def test_keys_are_listed_changed_and_revoked_and_never_shown_again(platform) -> None:
    _, manager = add_agent(platform.services, "dinum", "manager")
    _, member = add_agent(platform.services, "dinum")
    keys = "/v1/tenants/dinum/keys"
    assert platform.call("POST", "/v1/tenants/dinum/projects", manager, {"id": "p", "name": "P"}).status_code == 201
    own = platform.call("POST", keys, member, {"name": "own", "project": "p"}).json()
    program = platform.call("POST", keys, manager, {"name": "program", "for_program": True}).json()
    assert own["secret"].startswith("sk-jauge-")
    assert own["secret"][:12] == own["prefix"]
    refused = platform.call("POST", keys, member, {"name": "program", "for_program": True})
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_role")
    assert platform.call("POST", keys, platform.operator, {"name": "k"}).json()["code"] == "wrong_role"
    seen = {
        token: {one["id"] for one in platform.call("GET", keys, token).json()["items"]}
        for token in (member, manager, platform.operator)
    }
    assert seen == {
        member: {own["id"]},
        manager: {own["id"], program["id"]},
        platform.operator: {own["id"], program["id"]},
    }
    page = platform.call("GET", f"{keys}?limit=1", manager).json()
    rest = platform.call("GET", f"{keys}?limit=1&after={page['next_after']}", manager).json()
    assert {page["items"][0]["id"], rest["items"][0]["id"]} == {own["id"], program["id"]}

    assert platform.call("PATCH", f"{keys}/{program['id']}", member, {"name": "mine"}).status_code == 404
    assert platform.call("DELETE", f"{keys}/{program['id']}", member).status_code == 404
    assert platform.call("PATCH", f"{keys}/{own['id']}", member, {"name": "mine"}).json()["name"] == "mine"
    late = (datetime.now(UTC) + timedelta(days=1000)).isoformat()
    assert platform.call("PATCH", f"{keys}/{own['id']}", member, {"expires_at": late}).json()["field"] == "expires_at"
    assert platform.call("DELETE", f"{keys}/{own['id']}", manager).status_code == 204
    eventually(lambda: platform.check(own["secret"]), "invalid_key")
    assert platform.call("PATCH", f"{keys}/{own['id']}", member, {"name": "k"}).json()["code"] == "key_revoked"
    (listed,) = platform.call("GET", keys, member).json()["items"]
    assert (listed["status"], "secret" in listed) == ("revoked", False)
    for one in (own, program):
        for answer in (platform.call("GET", keys, manager).text, platform.everything_stored()):
            assert one["secret"] not in answer


def test_a_suspended_administration_is_out_and_a_deleted_one_is_forgotten(platform, make_event) -> None:
    joined = platform.join("dinum", role="manager")
    token = joined["token"]
    key = platform.call("POST", "/v1/tenants/dinum/keys", token, {"name": "k"}).json()
    program = platform.call("POST", "/v1/tenants/dinum/keys", token, {"name": "p", "for_program": True}).json()
    platform.call("POST", "/v1/tenants/dinum/invitations", token, {"name": NAME, "email": "new." + EMAIL})
    platform.call("POST", "/v1/events", platform.gateway, make_event(user=joined["account"]))
    admin = "/v1/admin/tenants/dinum"
    assert platform.call("POST", f"{admin}/suspension", platform.operator, {"reason": "unpaid"}).status_code == 204
    for one in (key, program):
        eventually(lambda one=one: platform.check(one["secret"]), "tenant_suspended")
    assert {"tenant.suspended", "account_suspended"} <= platform.told()
    body = {"name": NAME, "email": "late." + EMAIL}
    refused = platform.call("POST", "/v1/tenants/dinum/invitations", platform.operator, body)
    assert (refused.status_code, refused.json()["code"]) == (409, "tenant_not_active")
    assert platform.call("GET", "/v1/me", token).json()["code"] == "tenant_suspended"
    assert platform.call("DELETE", f"{admin}/suspension", platform.operator).status_code == 204
    eventually(lambda: platform.check(key["secret"]), "ok")

    platform.deliver()
    invited = platform.mailbox.code("new." + EMAIL)
    gone = platform.client.request(
        "DELETE", admin, headers={"Authorization": f"Bearer {platform.operator}"}, json={"reason": "left"}
    )
    assert gone.status_code == 204
    for one in (key, program):
        eventually(lambda one=one: platform.check(one["secret"]), "invalid_key")
    assert platform.call("GET", "/v1/me", token).status_code == 401
    assert platform.call("POST", "/v1/activations", body={"code": invited}).json()["code"] == "code_expired"
    restored = platform.call("DELETE", f"{admin}/suspension", platform.operator)
    assert (restored.status_code, restored.json()["code"]) == (409, "tenant_deleted")
    platform.deliver()
    for trace in ("zephirine", EMAIL):
        assert trace not in platform.everything_stored().lower()
    late = platform.call("POST", "/v1/events", platform.gateway, make_event(user=joined["account"]))
    assert late.json()["accepted"] == 1


def test_tokens_of_ones_own_are_made_listed_and_revoked(platform) -> None:
    _, token = add_agent(platform.services, "dinum")
    _, other = add_agent(platform.services, "dinum")
    made = platform.call("POST", "/v1/me/tokens", token, {"name": "phone"}).json()
    assert platform.call("POST", "/v1/me/tokens", token, {"name": "phone"}).json()["code"] == "token_exists"
    assert platform.call("POST", "/v1/me/tokens", other, {"name": "phone"}).status_code == 201
    assert platform.call("GET", "/v1/me", made["token"]).json()["token"]["name"] == "phone"
    listed = platform.call("GET", "/v1/me/tokens", token)
    assert "phone" in {one["name"] for one in listed.json()["items"]}
    assert made["token"] not in listed.text
    late = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    refused = platform.call("POST", "/v1/me/tokens", token, {"name": "late", "expires_at": late})
    assert (refused.status_code, refused.json()["field"]) == (422, "expires_at")
    assert platform.call("DELETE", "/v1/me/tokens/phone", token).status_code == 204
    assert platform.call("GET", "/v1/me", made["token"]).status_code == 401
    assert platform.call("DELETE", "/v1/me/tokens/unknown", token).status_code == 404


def test_ones_name_and_language_can_be_changed(platform) -> None:
    _, token = add_agent(platform.services, "dinum")
    changed = platform.call("PATCH", "/v1/me", token, {"language": "en", "name": "New"}).json()
    assert (changed["language"], changed["name"]) == ("en", "New")
    assert platform.call("PATCH", "/v1/me", token, {"email": "new@example.fr"}).status_code == 400
    assert platform.call("GET", "/v1/me", token).json()["person"]["name"] == "New"


@pytest.mark.parametrize("end", ["suspended", "deleted", "made a member"])
def test_an_invitation_holds_as_long_as_who_invited_manages(platform, end: str) -> None:
    manager, token = add_agent(platform.services, "dinum", "manager")
    add_agent(platform.services, "dinum", "manager")
    body = {"name": NAME, "email": EMAIL, "role": "manager"}
    assert platform.call("POST", "/v1/tenants/dinum/invitations", token, body).status_code == 202
    platform.deliver()
    account = f"/v1/tenants/dinum/accounts/{manager}"
    ended = {
        "suspended": lambda: platform.call("POST", f"{account}/suspension", platform.operator, {"reason": "abuse"}),
        "deleted": lambda: platform.call("DELETE", account, platform.operator),
        "made a member": lambda: platform.call("PATCH", account, platform.operator, {"role": "member"}),
    }[end]()
    assert ended.is_success
    answer = platform.call("POST", "/v1/activations", body={"code": platform.mailbox.code(EMAIL)})
    assert (answer.status_code, answer.json()["code"]) == (410, "code_expired")


def test_a_reason_is_told_and_not_kept(platform) -> None:
    account, _token = add_agent(platform.services, "dinum")
    body = {"reason": "Zephirine shared the key."}
    path = f"/v1/tenants/dinum/accounts/{account}"
    assert platform.call("POST", f"{path}/suspension", platform.operator, body).status_code == 200
    platform.deliver()
    assert body["reason"] in platform.last_mail()
    assert platform.call("DELETE", path, platform.operator).status_code == 204
    assert "Zephirine" not in platform.everything_stored()
