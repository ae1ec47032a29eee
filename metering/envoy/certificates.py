"""TLS on the door for Envoy: our certificate, and who has to show one. Files are read again when they are replaced."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM. certificate: ours, with what is between it and its authority; key: its own, without a passphrase.

    client_ca: who vouches for the callers, which then must show a certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def read(self) -> tuple[bytes, ...]:
        """What is in the files. Raises: OSError, also where certificate and key aren't of each other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
        files = (self.certificate, self.key) if self.client_ca is None else (self.certificate, self.key, self.client_ca)
        return tuple(file.read_bytes() for file in files)


def credentials_of(certificates: Certificates) -> grpc.ServerCredentials:
    """What gRPC serves with. Raises: OSError."""
    fetched = _Fetched(certificates)
    return grpc.dynamic_ssl_server_credentials(
        fetched.initial, fetched.newer, require_client_authentication=certificates.client_ca is not None
    )


class _Fetched:
    """The files as they were last good."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._contents = certificates.read()
        self.initial = _configuration(self._contents)

    def newer(self) -> grpc.ServerCertificateConfiguration | None:
        """For a new connection: what has changed, if anything has. What isn't whole yet is looked at by the next."""
        try:
            contents = self._certificates.read()
        except OSError as error:
            log.error("certificate_unreadable", error=type(error).__name__)
            return None
        if contents == self._contents:
            return None
        self._contents = contents
        log.info("certificate_replaced")
        return _configuration(contents)


def _configuration(contents: tuple[bytes, ...]) -> grpc.ServerCertificateConfiguration:
    certificate, key, *client_ca = contents
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca[0] if client_ca else None)


def _no_passphrase() -> str:
    """Instead of a question at the terminal."""
    raise ssl.SSLError("The key has a passphrase.")
