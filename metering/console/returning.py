"""Where somebody who signs in goes back to: pages of ours only."""

from urllib.parse import quote, urlsplit

HOME = "/"
PATH_LENGTH_MAX = 2000


def safe_path(text: str | None) -> str:
    """A path of ours as it was asked for; the first page instead of anything else.

    Browsers read `//host`, `/\\host` and control characters as they please, so a path holds none of them.
    """
    path = text or HOME
    parts = urlsplit(path) if path.startswith("/") and len(path) <= PATH_LENGTH_MAX else None
    if parts is None or parts.scheme or parts.netloc or path.startswith("//"):
        return HOME
    return path if path.isascii() and path.isprintable() and "\\" not in path else HOME


def sign_in_path(path: str) -> str:
    """Address of the page that signs in and then leads back."""
    return f"/sign-in?next={quote(path, safe='/')}"
