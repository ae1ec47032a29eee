"""The chain of documents: what each of them commits to."""

import hashlib
from collections.abc import Mapping


def document_link(previous: bytes, seq: int, canonical: bytes, files: Mapping[str, str]) -> bytes:
    """SHA-256 of the previous link, a document in its canonical form, and its files (suffix to SHA-256 in hex)."""
    listed = "".join(f"{suffix} {digest}\n" for suffix, digest in sorted(files.items()))
    header = f"jauge-document-1\n{seq}\n{hashlib.sha256(canonical).hexdigest()}\n{listed}"
    return hashlib.sha256(previous + header.encode()).digest()
