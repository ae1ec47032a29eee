"""What a store keeps for a browser and can't read itself: only the secret of the browser's cookie opens it."""

import hashlib

_ALGORITHMS = ["dir", "A256GCM"]


def hide(secret: str, text: str) -> str:
    """A text that `shown` gives back to who has the secret."""
    from joserfc import jwe  # noqa: PLC0415 - cryptography, which commands don't need
    from joserfc.jwk import OctKey  # noqa: PLC0415

    header = {"alg": "dir", "enc": "A256GCM"}
    return jwe.encrypt_compact(header, text.encode(), OctKey.import_key(_key(secret)), _ALGORITHMS)


def shown(secret: str, hidden: str) -> str:
    """The text that was hidden under this very secret. Raises: joserfc's JoseError under any other."""
    from joserfc import jwe  # noqa: PLC0415
    from joserfc.jwk import OctKey  # noqa: PLC0415

    plaintext = jwe.decrypt_compact(hidden, OctKey.import_key(_key(secret)), _ALGORITHMS).plaintext
    assert plaintext is not None
    return plaintext.decode()


def _key(secret: str) -> bytes:
    return hashlib.sha256(b"jauge hidden\0" + secret.encode()).digest()
