"""Authorities of the tests' own, and the certificates that they give out."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Issued(NamedTuple):
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Whose certificates are trusted by whoever has `file`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._own = self._make(name, "-addext", "basicConstraints=critical,CA:TRUE")
        self.file = self._own.certificate

    def issue(self, name: str, host: str = "localhost") -> Issued:
        """A certificate for a host."""
        signer = ("-CA", str(self._own.certificate), "-CAkey", str(self._own.key))
        return self._make(name, "-addext", f"subjectAltName=DNS:{host}", *signer)

    def _make(self, name: str, *options: str) -> Issued:
        made = Issued(self._folder / f"{name}.pem", self._folder / f"{name}-key.pem")
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "2", "-subj", f"/CN={name}", *options, "-keyout", made.key, "-out", made.certificate,
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        return made
