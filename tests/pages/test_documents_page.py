"""The pages of statements and invoices, over a month that was really closed."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from metering import embedded
from metering.billing.documents import document_path
from tests.pages.closed import Platform, closed_platform
from tests.pages.tabs import follow, signed_in, violations


@pytest.fixture(scope="module")
def platform(servers: embedded.Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with closed_platform(servers, template, tmp_path_factory.mktemp("documents"), "documents") as opened:
        yield opened


def numbers(platform: Platform, token: str) -> list[str]:
    answer = httpx.get(f"{platform.url}/v1/documents", headers={"Authorization": f"Bearer {token}"})
    return [one["number"] for one in answer.json()["items"]]


def test_a_manager_reads_what_is_due_apart_from_what_is_valued_and_verifies_the_seal(
    platform: Platform, browser: Browser
) -> None:
    context = signed_in(browser, platform.url, platform.manager, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{platform.url}/quotas?lang=fr")
    follow(page.get_by_role("link", name="Relevés et factures"))
    row = page.locator("#documents tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("21,60\u00a0€")
    expect(page.locator("#now")).to_contain_text("Provisoire")
    expect(page.locator("#now")).to_contain_text("21,60\u00a0€")
    with page.expect_download() as download:
        page.get_by_role("link", name="PDF").click()
    assert download.value.path().read_bytes().startswith(b"%PDF")
    follow(row.get_by_role("rowheader").get_by_role("link"))
    expect(page.locator("#lines tbody tr")).to_have_count(2)
    expect(page.get_by_text("Ce document n’en corrige aucun")).to_be_visible()
    follow(page.get_by_role("button", name="Vérifier le sceau"))
    expect(page.get_by_text("Le sceau est intact.")).to_be_visible()
    context.close()


def test_a_statement_is_valued_and_nothing_is_due(platform: Platform) -> None:
    page = platform.get("/documents?lang=fr", platform.stranger).text
    assert "18,00\u00a0€" in page
    assert "rien n’est dû" in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "\u202e" not in page


def test_an_operator_sees_all_and_filters(platform: Platform) -> None:
    found = numbers(platform, platform.operator)
    assert len(found) == 3
    every = platform.get("/documents", platform.operator).text
    assert all(number in every for number in found)
    for asked, kept in (("tenant=sante", "R2026"), ("kind=statement", "R2026"), ("month=2026-09", None)):
        page = platform.get(f"/documents?{asked}&lang=en", platform.operator).text
        assert [number for number in found if number in page] == [one for one in found if kept and kept in one], asked
    assert "No document fits" in platform.get("/documents?month=2026-09&lang=en", platform.operator).text


def test_documents_of_others_and_of_members_stay_closed(platform: Platform) -> None:
    own = numbers(platform, platform.manager)[0]
    for path, token, status in (
        ("/documents", platform.member, 403),
        (f"/documents/{own}", platform.member, 403),
        (f"/documents/{own}", platform.stranger, 404),
        (f"/documents/{own}?verify=yes", platform.stranger, 404),
        (f"/v1/documents/{own}/seal", platform.stranger, 404),
        (f"/v1/documents/{own}/files/pdf", platform.stranger, 404),
        ("/documents?tenant=dinum", platform.stranger, 404),
        ("/documents?tenant=nobody", platform.operator, 404),
        ("/documents?month=October", platform.operator, 400),
        ("/documents?kind=letter", platform.operator, 400),
        ("/documents?before=x", platform.operator, 400),
    ):
        assert platform.get(path, token).status_code == status, path
    assert httpx.get(f"{platform.url}/documents").headers["location"].startswith("/sign-in?")


def test_a_file_that_was_changed_breaks_the_seal_plainly(platform: Platform) -> None:
    own = numbers(platform, platform.stranger)[0]
    file = document_path(platform.services.settings.data, "2026-10", own, "csv")
    whole = file.read_bytes()
    file.write_bytes(whole + b" ")
    try:
        page = platform.get(f"/documents/{own}?verify=yes&lang=en", platform.stranger).text
        assert "The seal is broken" in page
        assert "it is no longer what was sealed" in page
        file.unlink()
        assert "the file can’t be read" in platform.get(f"/documents/{own}?verify=yes&lang=en", platform.stranger).text
    finally:
        file.write_bytes(whole)
    answer = httpx.get(f"{platform.url}/v1/documents/{own}/seal", auth=("reader", platform.stranger)).json()
    assert answer["is_linked"]
    assert all(one["is_intact"] for one in answer["files"])


def test_nothing_is_found_wrong_in_either_theme(platform: Platform, browser: Browser) -> None:
    own = numbers(platform, platform.manager)[0]
    for theme, language, token, paths in (
        ("light", "fr", platform.operator, ("/documents", "/documents?month=2026-01", f"/documents/{own}?verify=yes")),
        ("dark", "en", platform.manager, ("/documents", f"/documents/{own}")),
    ):
        context = signed_in(browser, platform.url, token, color_scheme=theme, viewport={"width": 320, "height": 700})
        page = context.new_page()
        for path in paths:
            answer = page.goto(f"{platform.url}{path}{'&' if '?' in path else '?'}lang={language}")
            assert answer is not None
            assert answer.status == 200, path
            assert violations(page) == [], (path, theme)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
        context.close()
