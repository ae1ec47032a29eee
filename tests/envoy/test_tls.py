"""The door for Envoy behind TLS: who gets through, and with which certificates. Real gRPC, real Envoy."""

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
import yaml
from litestar.testing import TestClient
from pydantic import ValidationError
from structlog.testing import capture_logs

from metering import embedded
from metering.app import create_app
from metering.catalog.tokens import add_token
from metering.envoy.certificates import Certificates, credentials_of
from metering.envoy.messages import OK
from metering.services import Services
from metering.settings import Settings
from tests.bench.serving import free_port
from tests.client.conftest import until
from tests.envoy.authorities import Authority, Issued
from tests.envoy.calls import connected
from tests.envoy.conftest import CATALOGUE, SECRET, WHO, add_key, answering, opened
from tests.envoy.test_real_envoy import configuration, running_envoy
from tests.gateways.upstream import Upstream, serving
from tests.people import add_agent
from tests.quotas.conftest import declare

PAGE = (Path(__file__).parents[2] / "docs" / "gateways" / "envoy.md").read_text()


@dataclass(frozen=True)
class Ground:
    """Jauge with its certificate; `other` is an authority that nobody trusts."""

    services: Services
    token: str
    authority: Authority
    other: Authority
    own: Issued


@pytest.fixture(scope="module")
def ground(servers: embedded.Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("authorities")
    authority, other = Authority(folder, "authority"), Authority(folder, "other")
    with opened(servers, template, "envoy_tls") as services:
        declare(services, CATALOGUE)
        add_agent(services, "dinum", "member", "alice")
        add_key(services, SECRET, "dinum", "alice", "k-alice")
        yield Ground(services, add_token(services.engine, "envoy", "gateway"), authority, other, authority.issue("own"))


def trusting(authority: Authority, shown: Issued | None = None) -> grpc.ChannelCredentials:
    pair = {} if shown is None else {"private_key": shown.key.read_bytes(), "certificate_chain": _bytes(shown)}
    return grpc.ssl_channel_credentials(authority.file.read_bytes(), **pair)


def asked(ground: Ground, port: int, credentials: grpc.ChannelCredentials | None) -> Any:
    """How a question is answered: a code of ours, or gRPC's."""
    with connected(port, ground.token, credentials) as caller:
        try:
            return caller.ask(WHO | {"hits": 0}).overall_code
        except grpc.RpcError as error:
            return error.code()


def test_who_knows_our_authority_is_answered_and_nobody_without_tls(ground: Ground) -> None:
    with answering(ground.services, Certificates(*ground.own)) as port:
        assert asked(ground, port, trusting(ground.authority)) == OK
        assert asked(ground, port, trusting(ground.other)) == grpc.StatusCode.UNAVAILABLE
        assert asked(ground, port, None) == grpc.StatusCode.UNAVAILABLE


def test_where_callers_have_to_show_a_certificate_a_token_is_not_enough(ground: Ground) -> None:
    with answering(ground.services, Certificates(*ground.own, ground.authority.file)) as port:
        assert asked(ground, port, trusting(ground.authority, ground.authority.issue("envoy"))) == OK
        assert asked(ground, port, trusting(ground.authority)) == grpc.StatusCode.UNAVAILABLE
        stranger = trusting(ground.authority, ground.other.issue("stranger"))
        assert asked(ground, port, stranger) == grpc.StatusCode.UNAVAILABLE


def test_a_certificate_that_is_replaced_holds_for_the_next_connection(ground: Ground, tmp_path: Path) -> None:
    files = Issued(tmp_path / "certificate.pem", tmp_path / "key.pem")
    _replace(files, ground.own)
    with answering(ground.services, Certificates(*files)) as port:
        assert asked(ground, port, trusting(ground.authority)) == OK
        newer = ground.other.issue("newer")
        with capture_logs() as logs:
            files.certificate.write_bytes(_bytes(newer))  # its key isn't there yet
            assert asked(ground, port, trusting(ground.authority)) == OK
            files.key.unlink()
            assert asked(ground, port, trusting(ground.authority)) == OK
            _replace(files, newer)
            assert asked(ground, port, trusting(ground.other)) == OK
        assert asked(ground, port, trusting(ground.authority)) == grpc.StatusCode.UNAVAILABLE
    events = [entry["event"] for entry in logs if entry["event"].startswith("certificate")]
    assert set(events[:-1]) == {"certificate_unreadable"}
    assert events[-1] == "certificate_replaced"
    assert "PRIVATE" not in str(logs)


def test_what_cannot_be_used_is_told_at_the_start(ground: Ground, tmp_path: Path) -> None:
    words = tmp_path / "words.pem"
    words.write_text("words")
    other, own = ground.authority.issue("another"), ground.own
    for wrong in (
        Certificates(own.certificate, other.key), Certificates(words, own.key), Certificates(own.certificate, words),
        Certificates(own.certificate, tmp_path / "none.pem"), Certificates(*own, words),
        Certificates(own.certificate, _locked(own.key, tmp_path)),
    ):  # fmt: skip
        with pytest.raises(OSError):  # noqa: PT011 - of each kind
            credentials_of(wrong)


@pytest.mark.parametrize(
    "half", [{"envoy_certificate": "a"}, {"envoy_key": "a"}, {"envoy_client_ca": "a"}], ids=lambda half: str(*half)
)
def test_half_of_it_is_a_mistake(half: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"JAUGE_ENVOY_\w+ needs?|need each other"):
        Settings(**half)
    assert Settings(envoy_certificate="a", envoy_key="b", envoy_client_ca="c").envoy_key == Path("b")


def test_the_application_has_it_where_the_settings_say_so(ground: Ground) -> None:
    port = free_port()
    chosen: dict[str, Any] = {
        "envoy_address": f"127.0.0.1:{port}", "envoy_certificate": ground.own.certificate, "envoy_key": ground.own.key,
        "envoy_client_ca": ground.authority.file,
    }  # fmt: skip
    settings = ground.services.settings.model_copy(update=chosen)
    app = create_app(replace(ground.services, settings=settings))
    with TestClient(app):
        assert asked(ground, port, trusting(ground.authority, ground.authority.issue("caller"))) == OK
        assert asked(ground, port, trusting(ground.authority)) == grpc.StatusCode.UNAVAILABLE


def test_envoy_asks_over_tls_as_the_page_shows_it(ground: Ground, tmp_path: Path) -> None:
    (shown,) = re.findall(r"<!-- tls -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    own, envoys = ground.authority.issue("jauge", "jauge.example"), ground.authority.issue("envoys")
    for documented, file in (("envoy.pem", envoys.certificate), ("envoy-key.pem", envoys.key), ("ca.pem", _ca(ground))):
        assert shown.count(f"/etc/envoy/{documented}}}") == 1
        shown = shown.replace(f"/etc/envoy/{documented}}}", f"{file}}}")
    with answering(ground.services, Certificates(*own, _ca(ground))) as asked_at, serving(Upstream()) as provider_url:
        listened, provider = free_port(), urlsplit(provider_url).port
        assert provider is not None
        config = configuration(ground.token, {10000: listened, 9000: provider, 8081: asked_at}, free_port())
        config["static_resources"]["clusters"][1] |= yaml.safe_load(shown)
        with running_envoy(tmp_path, config):
            until(lambda: chat(listened) == 200)


def chat(port: int) -> int:
    try:
        return httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions", headers={"authorization": f"Bearer {SECRET}"},
            json={"model": "small", "messages": []},
        ).status_code  # fmt: skip
    except httpx.TransportError:
        time.sleep(0.1)
        return 0


def _ca(ground: Ground) -> Path:
    return ground.authority.file


def _bytes(issued: Issued) -> bytes:
    return issued.certificate.read_bytes()


def _replace(files: Issued, by: Issued) -> None:
    for file, new in zip(files, by, strict=True):
        file.write_bytes(new.read_bytes())


def _locked(key: Path, folder: Path) -> Path:
    """The key under a passphrase."""
    locked = folder / "locked.pem"
    command = ["openssl", "pkcs8", "-topk8", "-in", key, "-out", locked, "-passout", "pass:words"]
    subprocess.run(command, check=True, capture_output=True)
    return locked
