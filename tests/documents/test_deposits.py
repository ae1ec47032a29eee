"""Deposits at a double of Chorus Pro: once each, whatever fails, and no credential in anything that is said."""

import base64
import io
import json
import logging
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from metering.billing.chorus import Account, ChorusPro
from metering.billing.deposits import deposit_once, deposit_state, file_name, package, prepared, read_receipt
from metering.errors import Conflict, JaugeError, Unavailable, Unprocessable
from reports.documents import files_of
from tests.documents.examples import credit_note, draft, francs, invoice, statement

SECRET, PASSWORD = "piste-secret-of-tests", "technical-password"


class Double(ThreadingHTTPServer):
    """Chorus Pro and PISTE on loopback. plan: how the next deposits are answered."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.plan: list[int | str] = []
        self.tokens = 0
        self.deposits: list[dict[str, Any]] = []
        self.seen: list[str] = []

    @property
    def account(self) -> Account:
        url = f"http://127.0.0.1:{self.server_port}"
        return Account(url, f"{url}/api/oauth/token", "client", SECRET, "TECH@cpro.example", PASSWORD)


class Answering(BaseHTTPRequestHandler):
    server: Double

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/api/oauth/token":
            assert f"client_secret={SECRET}" in body
            self.server.tokens += 1
            return self._answer(200, {"access_token": f"token-{self.server.tokens}", "expires_in": 3600})
        assert self.headers["Authorization"] == f"Bearer token-{self.server.tokens}"
        assert base64.b64decode(self.headers["cpro-account"]).decode() == f"TECH@cpro.example:{PASSWORD}"
        if self.path == "/cpro/transverses/v1/consulterCR":
            flow = json.loads(body)["numeroFluxDepot"]
            return self._answer(200, {"codeRetour": 0, "numeroFluxDepot": flow, "etatCourantFlux": "IN_INTEGRE"})
        assert self.path == "/cpro/factures/v1/deposer/flux"
        plan = self.server.plan.pop(0) if self.server.plan else "taken"
        if plan in {"taken", "taken and lost"}:
            self.server.deposits.append(json.loads(body))
        if plan == "taken and lost":
            return self.connection.close()
        if plan == "refused":
            return self._answer(200, {"codeRetour": 12, "libelle": PASSWORD})
        if isinstance(plan, int):
            return self._answer(plan, {"message": PASSWORD})
        number = f"CPP{len(self.server.deposits):07d}"
        return self._answer(200, {"codeRetour": 0, "numeroFluxDepot": number, "dateDepot": "2026-11-03"})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def double() -> Iterator[Double]:
    server = Double()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_invoice_is_deposited_once_and_its_state_is_known(
    double: Double, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    document = invoice()
    files = files_of(document)
    one, path, waits = prepared(document, files, "pdf"), tmp_path / "receipt.json", []
    double.plan = [503, 429]
    with httpx.Client() as http:
        chorus = ChorusPro(double.account, http, sleep=waits.append)
        receipt = deposit_once(chorus, document.number or "", one, path)
        assert receipt.flow == "CPP0000001"
        assert waits == [1.0, 7.0]
        assert deposit_once(chorus, document.number or "", one, path) == receipt == read_receipt(path)
        state = deposit_state(chorus, receipt)
    assert state is not None
    assert state.state == "IN_INTEGRE"
    (sent,) = double.deposits
    assert base64.b64decode(sent["fichierFlux"]) == files["pdf"]
    assert (sent["nomFichier"], sent["syntaxeFlux"]) == ("FA-2026-10-0042.pdf", "IN_DP_E2_CII_FACTURX")
    assert double.tokens == 1
    said = caplog.text + path.read_text() + repr(double.account)
    assert not [secret for secret in (SECRET, PASSWORD, "token-1", sent["fichierFlux"][:40]) if secret in said]


@pytest.mark.parametrize("plan", [["refused"], [403], [503] * 4])
def test_what_was_not_taken_may_be_tried_again(double: Double, tmp_path: Path, plan: list[int | str]) -> None:
    document = invoice()
    one, path = prepared(document, files_of(document), "ubl.xml"), tmp_path / "receipt.json"
    double.plan = plan
    with httpx.Client() as http:
        chorus = ChorusPro(double.account, http, sleep=lambda _s: None)
        with pytest.raises((Unprocessable, Unavailable)) as refused:
            deposit_once(chorus, "n", one, path)
        assert PASSWORD not in str(refused.value.problem())
        assert read_receipt(path) is None
        assert deposit_once(chorus, "n", one, path).flow == "CPP0000001"
    assert double.deposits[0]["syntaxeFlux"] == "IN_DP_E1_UBL_INVOICE"


@pytest.mark.parametrize("plan", ["taken and lost", 500])
def test_what_may_have_been_taken_waits_for_a_human(double: Double, tmp_path: Path, plan: int | str) -> None:
    document = invoice()
    one, path = prepared(document, files_of(document), "pdf"), tmp_path / "receipt.json"
    double.plan = [plan]
    with httpx.Client() as http:
        chorus = ChorusPro(double.account, http, sleep=lambda _s: None)
        with pytest.raises(Unavailable, match="may have been taken"):
            deposit_once(chorus, "n", one, path)
        before = len(double.deposits)
        with pytest.raises(Conflict):
            deposit_once(chorus, "n", one, path)
        assert len(double.deposits) == before
        assert deposit_once(chorus, "n", one, path, again=True).flow is not None


def test_nobody_there(tmp_path: Path) -> None:
    account = Account("http://127.0.0.1:9", "http://127.0.0.1:9/token", "c", SECRET, "l", PASSWORD)
    document, waits = invoice(), []
    one = prepared(document, files_of(document), "pdf")
    with httpx.Client() as http, pytest.raises(Unavailable):
        deposit_once(ChorusPro(account, http, sleep=waits.append), "n", one, tmp_path / "receipt.json")
    assert waits == [1.0, 2.0, 4.0]


def test_a_package_is_the_same_whenever_it_is_made() -> None:
    documents = [(one, files_of(one)["pdf"]) for one in (credit_note(), invoice())]
    content = package(documents, "pdf")
    assert package(documents[::-1], "pdf") == content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        entries = archive.getmembers()
        assert [entry.name for entry in entries] == ["AV-2026-10-0003.pdf", "FA-2026-10-0042.pdf"]
        assert archive.extractfile(entries[1]).read() == documents[1][1]  # type: ignore[union-attr]
    assert len(file_name("A/" * 17 + "B", "ubl.xml")) <= 50


@pytest.mark.parametrize("make", [statement, draft, francs])
def test_what_chorus_pro_cannot_take(make: Any) -> None:
    document = make()
    with pytest.raises(JaugeError):
        prepared(document, files_of(document), "pdf")
