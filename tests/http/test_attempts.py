"""Guessing tokens and codes over HTTP: so many attempts from an address, and who has a secret isn't held up."""

import httpx
import pytest

from metering.catalog.tokens import TOKEN_PREFIX
from metering.services import Services
from metering.throttling import BY_ADDRESS, TOKENS_BY_ADDRESS, by_address
from tests.conftest import Api
from tests.people import add_agent


def used_up(services: Services, kind: str, attempts: int) -> None:
    """Count attempts from the loopback, as if all but the last had been made."""
    with services.redis() as store:
        store.set(by_address("127.0.0.1", kind).key, attempts - 1, ex=900)


def ask(api: Api, authorization: str) -> httpx.Response:
    return httpx.get(f"{api.url}/v1/me", headers={"Authorization": authorization})


def test_guessing_tokens_is_refused_and_says_when_to_come_back(api: Api, services: Services) -> None:
    _account, right = add_agent(services, "dinum")
    guesses = [f"Bearer {TOKEN_PREFIX}{number:043}" for number in range(TOKENS_BY_ADDRESS.attempts + 2)]
    answers = [ask(api, guess) for guess in guesses]
    assert [one.status_code for one in answers] == [401] * TOKENS_BY_ADDRESS.attempts + [429] * 2
    refused = answers[-1]
    assert (refused.json()["code"], refused.headers["content-type"]) == (
        "too_many_attempts",
        "application/problem+json",
    )
    assert 0 < int(refused.headers["retry-after"]) <= TOKENS_BY_ADDRESS.within_s
    assert ask(api, "Basic " + "eDpqYXVnZV94eHh4").status_code == 429  # a browser's password is a token too
    assert ask(api, "").status_code == 401  # who shows none tries none
    for known in (api.gateway_token, api.operator_token):
        assert httpx.get(f"{api.url}/v1/models", headers={"Authorization": f"Bearer {known}"}).status_code != 429
    services.catalog.refresh()
    assert ask(api, f"Bearer {right}").status_code == 200  # as the catalogue learns of it by itself, moments later


def test_new_tokens_that_are_right_do_not_count(api: Api, services: Services) -> None:
    used_up(services, "token", TOKENS_BY_ADDRESS.attempts)
    for _ in range(3):
        assert ask(api, f"Bearer {add_agent(services, 'dinum')[1]}").status_code == 200
    for _ in range(3):  # right, though not for this
        new = add_agent(services, "dinum")[1]
        answer = httpx.get(f"{api.url}/v1/quarantine", headers={"Authorization": f"Bearer {new}"})
        assert answer.status_code == 403
    assert ask(api, f"Bearer {TOKEN_PREFIX}{'x' * 43}").status_code == 401
    assert ask(api, f"Bearer {TOKEN_PREFIX}{'y' * 43}").status_code == 429


@pytest.mark.parametrize("way", ["api", "page"])
def test_guessing_codes_of_activation_is_refused(api: Api, services: Services, way: str) -> None:
    used_up(services, "activation", BY_ADDRESS.attempts)

    def guess() -> httpx.Response:
        if way == "api":
            return httpx.post(f"{api.url}/v1/activations", json={"code": "guessed"})
        return httpx.post(f"{api.url}/activation?lang=fr", data={"code": "guessed"})

    assert guess().status_code == 404
    refused = guess()
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= BY_ADDRESS.within_s
    said = refused.json()["code"] if way == "api" else refused.text
    assert {"api": "too_many_attempts", "page": "Trop de tentatives"}[way] in said
    assert ask(api, f"Bearer {api.operator_token}").status_code != 429  # each kind of secret is counted apart
