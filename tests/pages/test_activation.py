"""The page of the activation mail: opened by anybody's program, used once by its reader, and silent about codes."""

import html
import json
import re
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
import sqlalchemy as sa
import structlog
from litestar import Litestar
from litestar.datastructures import State
from litestar.testing import TestClient
from playwright.sync_api import Browser

from metering.catalog import documents
from metering.catalog.access import Invited, invite
from metering.catalog.kinds import KINDS, put
from metering.catalog.tenants import suspend_tenant
from metering.database import Actor, transaction
from metering.errors import Conflict, JaugeError, Unavailable
from metering.outbox.delivery import deliver_due
from metering.outbox.mail import MailCourier
from metering.outbox.messages import SENT, Outcome
from metering.services import Services
from metering.tables import access_request
from reports.activation import CODE_LENGTH_MAX, HEADERS, REFUSALS, activation_pages
from tests.conftest import Api
from tests.pages.tabs import NARROW, WIDE, follow, violations

STAFF = Actor("operator:o")
EMAIL = "ada.martin@culture.example.fr"
WRONG = "a-code-that-nobody-was-sent"
LONG_AGO = "2026-01-01T00:00:00Z"
FIELD = re.compile(r'<input id="code" name="code" value="([^"]*)"')
SECRET = re.compile(r'<code class="secret">(jauge_[^<]+)</code>')


class Mailbox(list[EmailMessage]):
    """Takes mails."""

    def send(self, mail: EmailMessage) -> Outcome:
        self.append(mail)
        return SENT


def invited(services: Services, url: str = "https://jauge.example") -> str:
    """The link of a mail that invites somebody."""
    now = datetime.now(UTC)
    who = Invited("Ada Martin", EMAIL, "member", "fr")
    invite(services.engine, services.master_key, "dinum", who, actor=STAFF, now=now)
    mailbox = Mailbox()
    courier = MailCourier(services.master_key, mailbox, sender="J <j@example.fr>", public_url=url, operator=None)
    while deliver_due(services.engine, {"mail": courier}, now + timedelta(seconds=1)).total:
        pass
    (link,) = re.findall(r"^https?://\S+code=\S+", mailbox[-1].get_content(), re.MULTILINE)
    return str(link)


def code_in(link: str) -> str:
    return parse_qs(urlsplit(link).query)["code"][0]


def states(services: Services) -> list[str]:
    with services.engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT state FROM access_request ORDER BY id")))


def send(api: Api, code: str, language: str = "fr") -> httpx.Response:
    return httpx.post(f"{api.url}/activation?lang={language}", data={"code": code})


def assert_kept_private(answer: httpx.Response) -> None:
    assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
    assert (answer.headers["referrer-policy"], answer.headers["cache-control"]) == ("no-referrer", "no-store")
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert " style=" not in answer.text


# Over a real ledger


def test_opening_the_link_of_the_mail_fills_the_form_and_uses_nothing_up(api: Api, services: Services) -> None:
    link = invited(services, api.url)
    with structlog.testing.capture_logs() as logs:
        answers = [httpx.get(link) for _ in range(3)]
    for answer in answers:
        assert answer.status_code == 200
        assert FIELD.findall(answer.text) == [code_in(link)]
        assert_kept_private(answer)
    assert states(services) == ["approved"]
    assert [line["path"] for line in logs] == ["/activation"] * 3
    assert code_in(link) not in repr(logs) + repr([answer.headers for answer in answers])
    assert send(api, code_in(link)).status_code == 200


def test_sending_the_form_shows_the_token_this_once_with_its_end_and_what_is_left_to_do(
    api: Api, services: Services
) -> None:
    code = code_in(invited(services))
    with structlog.testing.capture_logs() as logs:
        answer = send(api, f" {code}\n")
    assert_kept_private(answer)
    assert states(services) == ["activated"]
    (token,) = SECRET.findall(answer.text)
    assert answer.text.count(token) == 1
    (until,) = re.findall(r'<time datetime="([^"]+)">', answer.text)
    assert timedelta(days=364) < datetime.fromisoformat(until) - datetime.now(UTC) <= timedelta(days=365)
    assert "Ce jeton n’est affiché qu’une seule fois" in answer.text
    assert code not in answer.text
    assert token not in repr(logs)
    assert code not in repr(logs)
    again = send(api, code)
    assert (again.status_code, SECRET.findall(again.text)) == (410, [])


def test_the_process_that_activated_knows_the_token_before_it_answers(
    api: Api, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metering.catalog.snapshot import CatalogReader

    monkeypatch.setattr(CatalogReader, "_watch", lambda *_: None)
    code = code_in(invited(services))
    (token,) = SECRET.findall(send(api, code).text)
    known = services.catalog.current()
    with api.client(token) as client:
        assert client.get("/v1/me").status_code == 200
    assert services.catalog.current() is known


def test_the_calls_that_the_page_shows_accept_the_terms_and_make_a_key(api: Api, services: Services) -> None:
    texts = {"title_fr": "T", "title_en": "T", "text_fr": "Texte", "text_en": "Text"}
    wanted = {"document": "terms", "version": "2026", **texts, "effective_at": LONG_AGO, "enforced_at": LONG_AGO}
    with transaction(services.engine) as connection:
        put(connection, KINDS["terms"], msgspec.convert(wanted, documents.Terms))
    answer = send(api, code_in(invited(services)), "en")
    (token,) = SECRET.findall(answer.text)
    calls = [
        html.unescape(one) for one in re.findall(r'<pre class="sample" tabindex="0"><code>(.*?)<', answer.text, re.S)
    ]
    read, accept, make = calls
    (terms,) = call(api, read, token).json()["items"]
    accept = accept.replace("DOCUMENT", terms["document"]).replace("VERSION", terms["version"])
    assert call(api, make, token).json()["code"] == "terms_not_accepted"
    assert call(api, accept, token).status_code == 200
    assert call(api, make, token).json()["secret"].startswith("sk-jauge-")


def call(api: Api, shown: str, token: str) -> httpx.Response:
    """Send what curl would."""
    public_url = "http://127.0.0.1:8321"
    command, address, *options = shlex.split(shown.replace("\\\n", " ").replace("$TOKEN", token))
    assert (command, address.startswith(public_url)) == ("curl", True)
    named = dict(zip(options[::2], options[1::2], strict=True))
    headers = dict([named["-H"].split(": ", 1)]) if "-H" in named else {}
    body = json.loads(named["--json"]) if "--json" in named else None
    return httpx.request(
        "GET" if body is None else "POST", address.replace(public_url, api.url), headers=headers, json=body
    )


def used(api: Api, services: Services) -> str:
    code = code_in(invited(services))
    assert send(api, code).status_code == 200
    return code


def expired(_api: Api, services: Services) -> str:
    code = code_in(invited(services))
    with transaction(services.engine) as connection:
        connection.execute(access_request.update().values(code_expires_at=datetime.now(UTC)))
    return code


def unknown(_api: Api, _services: Services) -> str:
    return WRONG


def suspended(_api: Api, services: Services) -> str:
    code = code_in(invited(services))
    with transaction(services.engine) as connection:
        suspend_tenant(connection, "dinum", "moving", now=datetime.now(UTC))
    return code


@pytest.mark.parametrize(
    ("made", "status", "french", "english"),
    [
        (used, 410, "Ce code a déjà servi", "This code has been used"),
        (expired, 410, "Ce code a expiré", "This code has expired"),
        (unknown, 404, "Ce code n’existe pas", "This code does not exist"),
        (suspended, 403, "Votre administration est suspendue", "Your administration is suspended"),
    ],
)
def test_a_code_that_opens_nothing_is_a_page_that_says_why_and_never_repeats_it(
    api: Api, services: Services, made: Callable[[Api, Services], str], status: int, french: str, english: str
) -> None:
    code = made(api, services)
    with structlog.testing.capture_logs() as logs:
        for language, said in (("fr", french), ("en", english)):
            answer = send(api, code, language)
            assert answer.status_code == status
            assert said in answer.text
            assert f'<html lang="{language}">' in answer.text
            assert answer.headers["content-language"] == language
            assert f"<code>{answer.headers['x-request-id']}</code>" in answer.text
            assert code not in answer.text + repr(answer.headers)
            assert_kept_private(answer)
    assert [line["event"] for line in logs].count("account_not_activated") == 2
    assert code not in repr(logs)


# Over an activation that answers as a test wants


@pytest.fixture
def asked() -> list[str]:
    """Codes that reached the activation."""
    return []


@pytest.fixture
def client_where(asked: list[str]) -> Iterator[Callable[[JaugeError], TestClient[Litestar]]]:
    """A client of the page alone, where activating fails."""
    opened: list[TestClient[Litestar]] = []

    def open_one(error: JaugeError) -> TestClient[Litestar]:
        def fail(_request: Any, code: str) -> Any:
            asked.append(code)
            raise error

        state = State({"settings": SimpleNamespace(language="fr", public_url="https://jauge.example/")})
        opened.append(TestClient(Litestar([activation_pages(fail)], state=state)).__enter__())
        return opened[-1]

    yield open_one
    for one in opened:
        one.__exit__(None, None, None)


OUTAGE = Unavailable("database_unavailable", "away", retry_after_s=5)


@pytest.mark.parametrize(
    ("language", "said"), [("fr", "Ouvrez alors de nouveau le lien"), ("en", "Then open the link of the mail again")]
)
def test_an_outage_says_when_and_how_to_try_again(client_where: Any, language: str, said: str) -> None:
    answer = client_where(OUTAGE).post(f"/activation?lang={language}", data={"code": WRONG})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert said in answer.text
    assert re.search(r"<code>[0-9a-f]{32}</code>", answer.text)
    assert WRONG not in answer.text + repr(answer.headers)
    assert_kept_private(answer)


def test_an_error_that_has_no_sentence_here_is_still_a_page(client_where: Any) -> None:
    assert "new" not in REFUSALS
    answer = client_where(Conflict("new", "It collides.")).post("/activation?lang=en", data={"code": WRONG})
    assert answer.status_code == 409
    assert "It collides." in answer.text


@pytest.mark.parametrize(
    "sent",
    [{}, {"data": {"code": "  "}}, {"data": {"other": "x"}}, {"json": {"code": WRONG}}, {"files": {"code": b"x"}}],
)
def test_a_form_without_a_code_is_asked_for_one_and_reaches_nobody(
    client_where: Any, asked: list[str], sent: dict[str, Any]
) -> None:
    answer = client_where(OUTAGE).post("/activation", **sent)
    assert answer.status_code == 400
    assert FIELD.findall(answer.text) == [""]
    assert "Saisissez le code du courriel." in answer.text
    assert asked == []


def test_a_page_reached_without_a_code_has_a_field_to_paste_one(client_where: Any) -> None:
    answer = client_where(OUTAGE).get("/activation")
    assert answer.status_code == 200
    assert FIELD.findall(answer.text) == [""]
    assert '<form class="panel activation" method="post" action="/activation?lang=fr">' in answer.text
    assert 'role="alert"' not in answer.text
    assert_kept_private(answer)


def test_the_language_can_be_changed_without_losing_the_code(client_where: Any) -> None:
    client = client_where(OUTAGE)
    french = client.get("/activation", params={"code": WRONG}, headers={"Accept-Language": "fr"})
    (link,) = re.findall(r'<a href="(/activation\?[^"]+)" lang="en"', french.text)
    english = client.get(html.unescape(link))
    assert '<html lang="en">' in english.text
    assert "Activation code" in english.text
    assert FIELD.findall(english.text) == [WRONG]


@pytest.mark.parametrize(
    ("code", "shown"),
    [('"><script>x</script>', "&#34;&gt;&lt;script&gt;x&lt;/script&gt;"), ("x" * (CODE_LENGTH_MAX + 1), "")],
)
def test_what_stands_in_an_address_is_text_of_a_bounded_length(client_where: Any, code: str, shown: str) -> None:
    answer = client_where(OUTAGE).get("/activation", params={"code": code})
    assert FIELD.findall(answer.text) == [shown]
    assert "<script" not in answer.text
    assert len(answer.text) < 10_000


# In a real Chromium


@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", NARROW)], ids=["light", "dark"])
def test_an_account_is_activated_in_a_browser_and_axe_finds_nothing(
    api: Api, services: Services, browser: Browser, theme: Any, size: Any
) -> None:
    link = invited(services, api.url)
    context = browser.new_context(color_scheme=theme, viewport=size, locale="fr-FR")
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.goto(link)
    assert violations(page) == []
    assert page.get_by_role("navigation", name="Langue").is_visible()
    follow(page.get_by_role("button", name="Activer"))
    page.get_by_role("heading", level=1, name="Votre compte est activé").wait_for()
    assert violations(page) == []
    assert page.locator(".secret").inner_text().startswith("jauge_")
    assert "code=" not in page.url
    assert not page.get_by_role("navigation", name="Langue").is_visible()  # it would lead away from the token
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert said == []
    page.goto(link)
    follow(page.get_by_role("button", name="Activer"))
    assert "Ce code a déjà servi" in page.get_by_role("alert").inner_text()
    assert violations(page) == []
    context.close()


def test_a_pasted_code_activates_without_scripts(api: Api, services: Services, browser: Browser) -> None:
    code = code_in(invited(services))
    context = browser.new_context(java_script_enabled=False, locale="en-GB")
    page = context.new_page()
    page.goto(f"{api.url}/activation")
    page.get_by_label("Activation code").fill(code)
    page.keyboard.press("Enter")
    assert page.locator(".secret").inner_text().startswith("jauge_")
    assert states(services) == ["activated"]
    context.close()
