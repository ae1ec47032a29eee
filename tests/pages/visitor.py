"""A browser without a window: signs in, sends forms of our pages, and follows where they lead."""

import re
from collections.abc import Mapping

import httpx


class Visitor:
    """Somebody who has signed in with a token."""

    def __init__(self, url: str, token: str) -> None:
        self.client = httpx.Client(base_url=url, follow_redirects=True, timeout=60)
        answer = self.client.post("/sign-in/token", data={"token": token, "next": "/terms"})
        assert answer.status_code == 200, answer.text
        found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
        assert found is not None
        self.csrf = found[1]

    def page(self, path: str) -> httpx.Response:
        """A page."""
        return self.client.get(path)

    def send(self, path: str, fields: Mapping[str, str], *, csrf: str | None = None) -> httpx.Response:
        """Send a form, and follow where it leads."""
        return self.client.post(f"{path}?lang=fr", data={**fields, "csrf": csrf or self.csrf})
