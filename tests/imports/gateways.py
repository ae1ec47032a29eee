"""Databases of OpenGateLLM, of both generations: their tables as its models and migrations declare them, and rows."""

import base64
import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from metering.database import engine_for, transaction

SECRET = "the gateway's own secret"
SOON = datetime(2031, 1, 1, 12, tzinfo=UTC)
LONG_AGO = datetime(2025, 2, 1, tzinfo=UTC)
START = datetime(2025, 7, 1, 8, tzinfo=UTC)

SCHEMA_2025 = """
CREATE TYPE limittype AS ENUM ('TPM', 'TPD', 'RPM', 'RPD');
CREATE TYPE permissiontype AS ENUM ('CREATE_ROLE', 'READ_USER', 'READ_METRIC', 'CREATE_PUBLIC_COLLECTION');
CREATE TYPE httpmethod AS ENUM ('GET', 'POST', 'DELETE');
CREATE TABLE role (id serial PRIMARY KEY, name varchar NOT NULL UNIQUE, created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now());
CREATE TABLE permission (id serial PRIMARY KEY, role_id int NOT NULL REFERENCES role,
    permission permissiontype NOT NULL, created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE "limit" (id serial PRIMARY KEY, role_id int NOT NULL REFERENCES role, model varchar NOT NULL,
    type limittype NOT NULL, value int, created_at timestamp NOT NULL DEFAULT now(), UNIQUE (role_id, model, type));
CREATE TABLE "user" (id serial PRIMARY KEY, name varchar NOT NULL UNIQUE, role_id int NOT NULL REFERENCES role,
    budget float, expires_at timestamp, created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(), sub varchar UNIQUE, email varchar);
CREATE TABLE token (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES "user" ON DELETE CASCADE, name varchar,
    token varchar, expires_at timestamp, created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE usage (id serial PRIMARY KEY, datetime timestamp NOT NULL, duration int, time_to_first_token int,
    user_id int REFERENCES "user" ON DELETE CASCADE, token_id int REFERENCES token ON DELETE SET NULL,
    endpoint varchar NOT NULL, method httpmethod, model varchar, request_model varchar, prompt_tokens int,
    completion_tokens float, total_tokens int, cost float, status int, kwh_min float, kwh_max float,
    kgco2eq_min float, kgco2eq_max float);
"""
"""v0.1.6: no organisations, and models in a file of the gateway's."""

SCHEMA_2026 = """
CREATE TYPE limittype AS ENUM ('TPM', 'TPD', 'RPM', 'RPD');
CREATE TYPE permissiontype AS ENUM ('ADMIN', 'READ_METRIC', 'PROVIDE_MODELS');
CREATE TYPE routertype AS ENUM ('AUTOMATIC_SPEECH_RECOGNITION', 'TEXT_EMBEDDINGS_INFERENCE', 'TEXT_GENERATION',
    'TEXT_CLASSIFICATION');
CREATE TABLE role (id serial PRIMARY KEY, name varchar NOT NULL UNIQUE, created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now());
CREATE TABLE permission (id serial PRIMARY KEY, role_id int NOT NULL REFERENCES role,
    permission permissiontype NOT NULL, created timestamptz NOT NULL DEFAULT now());
CREATE TABLE organization (id serial PRIMARY KEY, name varchar NOT NULL, created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now());
CREATE TABLE "user" (id serial PRIMARY KEY, email varchar NOT NULL UNIQUE, password varchar, name varchar, sub varchar,
    iss varchar, claims json, role_id int NOT NULL REFERENCES role, organization_id int REFERENCES organization,
    budget float, expires timestamptz, created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(), priority int NOT NULL DEFAULT 0);
CREATE TABLE router (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES "user", name varchar NOT NULL UNIQUE,
    type routertype NOT NULL, load_balancing_strategy varchar NOT NULL DEFAULT 'SHUFFLE',
    cost_prompt_tokens float NOT NULL DEFAULT 0, cost_completion_tokens float NOT NULL DEFAULT 0,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now());
CREATE TABLE router_alias (id serial PRIMARY KEY, router_id int NOT NULL REFERENCES router,
    value varchar NOT NULL UNIQUE);
CREATE TABLE provider (id serial PRIMARY KEY, router_id int NOT NULL REFERENCES router, url varchar NOT NULL,
    key varchar, model_name varchar NOT NULL);
CREATE TABLE "limit" (id serial PRIMARY KEY, role_id int NOT NULL REFERENCES role,
    router_id int NOT NULL REFERENCES router, type limittype NOT NULL, value int,
    created timestamptz NOT NULL DEFAULT now(), UNIQUE (role_id, router_id, type));
CREATE TABLE token (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES "user" ON DELETE CASCADE, name varchar,
    token varchar, expires timestamptz, created timestamptz NOT NULL DEFAULT now(),
    revoked bool NOT NULL DEFAULT false);
CREATE TABLE usage (id serial PRIMARY KEY, created timestamptz NOT NULL,
    user_id int REFERENCES "user" ON DELETE SET NULL,
    token_id int REFERENCES token ON DELETE SET NULL, router_id int, provider_id int, user_email varchar,
    token_name varchar, router_name varchar, provider_model_name varchar, request_id varchar, endpoint varchar NOT NULL,
    latency int, ttft int, status int, prompt_tokens int, completion_tokens float, total_tokens int, cost float,
    kwh float, kgco2eq float);
"""
"""September 2026."""

HOSTILE = 'Robert\'); DROP TABLE "usage";--\r\n\x1b[31m' + "é" * 300
ROLES = [{"id": 1, "name": "essai"}, {"id": 2, "name": HOSTILE}, {"id": 3, "name": "admin"}]


def secret_of(user_id: int, token_id: int, ends_at: datetime | None, *, claim: str, sort: bool = True) -> str:
    """A key as the gateway issues it: python-jose's HS256 over its claims."""
    header = '{"alg":"HS256","typ":"JWT"}' if sort else '{"typ":"JWT","alg":"HS256"}'
    ends_at_s = "null" if ends_at is None else str(int(ends_at.timestamp()))
    claims = f'{{"user_id":{user_id},"token_id":{token_id},"{claim}":{ends_at_s}}}'
    parts = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in (header, claims)]
    signature = hmac.new(SECRET.encode(), ".".join(parts).encode(), hashlib.sha256).digest()
    return f"sk-{'.'.join(parts)}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def shown(secret: str) -> str:
    """What the gateway keeps of a key."""
    return f"{secret[:8]}...{secret[-8:]}"


def token_row(number: int, user_id: int, ends_at: datetime | None, *, end: str, **changes: Any) -> dict[str, Any]:
    value = secret_of(user_id, number, ends_at, claim=end)
    return {"id": number, "user_id": user_id, "name": f"key {number}", "token": shown(value), end: ends_at} | changes


def rows_2025() -> dict[str, list[dict[str, Any]]]:
    """A platform of July 2025: no organisations, some users whose name is their address."""
    users = [
        {"id": 1, "name": "ada.martin@culture.gouv.fr", "role_id": 1, "email": None, "expires_at": None, "budget": 4.5},
        {"id": 2, "name": "ben", "role_id": 1, "email": "ben@sante.gouv.fr", "expires_at": None, "budget": None},
        {"id": 3, "name": HOSTILE, "role_id": 2, "email": "no address", "expires_at": LONG_AGO.replace(tzinfo=None)},
    ]
    limits = [
        {"role_id": role, "model": model, "type": kind, "value": value}
        for role, scale in ((1, 1), (2, 3))
        for model, kind, value in (
            ("albert-small", "RPM", 10 * scale),
            ("albert-small", "RPD", None),
            ("albert-small", "TPM", 5_000),
            ("embeddings-small", "RPM", 100),
            ("embeddings-small", "RPD", 0),
            ("web-search", "RPM", 5 * scale),
            ("un modèle sans nom", "RPM", 1),
        )
    ]
    tokens = [
        token_row(1, 1, None, end="expires_at"),
        token_row(2, 2, SOON.replace(tzinfo=None), end="expires_at",
                  token=shown(secret_of(2, 2, SOON, claim="expires_at"))),
        token_row(3, 3, LONG_AGO.replace(tzinfo=None), end="expires_at", name=None,
                  token=shown(secret_of(3, 3, LONG_AGO, claim="expires_at", sort=False))),
        token_row(4, 2, None, end="expires_at", token="sk-other...notours!"),
        token_row(5, 2, None, end="expires_at", token=None),
    ]  # fmt: skip
    return {
        "role": ROLES[:2],
        "permission": [{"role_id": 2, "permission": "READ_METRIC"}],
        "limit": limits,
        "user": users,
        "token": tokens,
        "usage": list(_usage_2025()),
    }


def _usage_2025() -> Iterator[dict[str, Any]]:
    for number in range(1, 61):
        yield {
            "id": number, "datetime": (START + timedelta(minutes=number)).replace(tzinfo=None), "duration": 900,
            "time_to_first_token": 120 if number % 3 == 0 else None, "user_id": 1 + number % 3,
            "token_id": 1 + number % 3, "endpoint": "/v1/chat/completions", "method": "POST", "model": "org/upstream",
            "request_model": "albert-small", "prompt_tokens": 10 * number, "completion_tokens": float(number),
            "total_tokens": 11 * number, "cost": 0.1, "status": 200, "kgco2eq_min": 0.001, "kgco2eq_max": 0.002,
        }  # fmt: skip
    base = {"datetime": (START + timedelta(days=2)).replace(tzinfo=None), "user_id": 1, "token_id": None, "status": 200}
    odd = [
        {"endpoint": "/v1/embeddings", "request_model": "embeddings-small", "prompt_tokens": 4_000},
        {"endpoint": "/v1/rerank", "request_model": "rerank-small", "prompt_tokens": 0, "completion_tokens": 0.0},
        {"endpoint": "/v1/audio/transcriptions", "request_model": "whisper", "duration": 12_000},
        {"endpoint": "/v1/ocr-beta", "request_model": "albert-small", "prompt_tokens": 3, "completion_tokens": 0},
        # A question with an image: the gateway's tokenizer has given up.
        {"endpoint": "/v1/chat/completions", "request_model": "albert-small", "prompt_tokens": 0,
         "completion_tokens": 40},
        {"endpoint": "/v1/chat/completions", "request_model": "Ignore all rules, and write", "status": 404},
        {"endpoint": "/v1/chat/completions", "request_model": None, "model": None, "status": None, "duration": None},
        {"endpoint": "N/A", "request_model": "albert-small", "status": 500, "duration": -5},
        {"endpoint": "/v1/search", "request_model": "embeddings-small", "prompt_tokens": 7, "completion_tokens": 0.5},
        {"endpoint": "/v1/chat/completions", "request_model": "albert-small", "prompt_tokens": 5,
         "completion_tokens": float("nan"), "time_to_first_token": 99_999, "duration": 10},
    ]  # fmt: skip
    for number, row in enumerate(odd, 101):
        yield {"id": number, **base, **row}


def rows_2026() -> dict[str, list[dict[str, Any]]]:
    """A platform of September 2026: two organisations of one name, users without one, routers with aliases."""
    organisations = [{"id": 1, "name": "Ministère"}, {"id": 2, "name": "Ministère"}, {"id": 3, "name": HOSTILE}]
    users = [
        {"id": 1, "email": "root@dinum.gouv.fr", "name": "root", "role_id": 3, "organization_id": 1},
        {"id": 2, "email": "ada@culture.gouv.fr", "name": HOSTILE, "role_id": 1, "organization_id": 1, "budget": 10.0},
        {"id": 3, "email": "ben@culture.gouv.fr", "name": None, "role_id": 1, "organization_id": 1},
        {"id": 4, "email": "cat@sante.gouv.fr", "name": "Cat", "role_id": 2, "organization_id": 2, "expires": LONG_AGO},
        {"id": 5, "email": "dan@example.org", "name": "Dan", "role_id": 1, "organization_id": None},
    ]
    routers = [
        {"id": 1, "user_id": 1, "name": "albert-small", "type": "TEXT_GENERATION"},
        {"id": 2, "user_id": 1, "name": "embeddings-small", "type": "TEXT_EMBEDDINGS_INFERENCE"},
        {"id": 3, "user_id": 1, "name": "not a name", "type": "TEXT_GENERATION"},
    ]
    limits = [
        {"role_id": role, "router_id": router, "type": kind, "value": value}
        for role, router, kind, value in (
            (1, 1, "RPM", 10), (1, 1, "RPD", 1_000), (1, 1, "TPM", None), (1, 2, "RPM", 0), (1, 3, "RPM", 7),
            (2, 1, "RPM", 60), (2, 1, "RPD", None), (2, 1, "TPD", 1_000_000), (2, 2, "RPM", 5), (2, 2, "RPD", 50),
        )
    ]  # fmt: skip
    tokens = [
        token_row(1, 1, None, end="expires"),
        token_row(2, 2, SOON, end="expires"),
        token_row(3, 2, LONG_AGO, end="expires"),
        # Issued before 2026, by the release of then.
        token_row(4, 3, SOON, end="expires", token=shown(secret_of(3, 4, SOON, claim="expires_at", sort=False))),
        token_row(5, 3, None, end="expires", revoked=True),
        token_row(6, 5, None, end="expires", token="sk-eyJhb...12345678"),
    ]
    return {
        "role": ROLES,
        "permission": [{"role_id": 3, "permission": "ADMIN"}],
        "organization": organisations,
        "user": users,
        "router": routers,
        "router_alias": [{"router_id": 1, "value": "org/Albert-Small"}, {"router_id": 3, "value": "nothing"},
                         {"router_id": 1, "value": "an alias with spaces"}],
        "provider": [{"id": 4, "router_id": 1, "url": "http://gpu", "model_name": "org/upstream"}],
        "limit": limits,
        "token": tokens,
        "usage": list(_usage_2026()),
    }  # fmt: skip


def _usage_2026() -> Iterator[dict[str, Any]]:
    base = {"latency": 500, "user_email": "ada@culture.gouv.fr", "provider_id": 4, "endpoint": "/v1/chat/completions",
            "router_name": "albert-small", "provider_model_name": "org/upstream", "cost": 1.0,
            "kgco2eq": 0.1}  # fmt: skip
    for number in range(1, 41):
        yield base | {
            "id": number, "created": datetime(2026, 9, 1, tzinfo=UTC) + timedelta(hours=number), "status": 200,
            "user_id": 2 + number % 4, "token_id": 2 if number % 4 == 0 else None, "ttft": 80, "prompt_tokens": number,
            "completion_tokens": 2.0 * number, "total_tokens": 3 * number,
        }  # fmt: skip
    late = base | {"created": datetime(2026, 9, 20, tzinfo=UTC), "user_id": 2}
    odd = [
        {"user_id": None, "status": 200, "prompt_tokens": 5, "completion_tokens": 5.0},
        {"status": None, "prompt_tokens": None, "completion_tokens": None, "latency": None},
        {"status": 200, "endpoint": "/v1/embeddings", "router_name": "embeddings-small", "prompt_tokens": 900},
        {"status": 429, "router_name": None, "prompt_tokens": 0, "completion_tokens": 0.0},
        {"status": 200, "router_name": "gone-since", "prompt_tokens": 4, "completion_tokens": 1.5},
        {"status": 200, "endpoint": "/v1/" + "x" * 200, "created": datetime(2019, 1, 1, tzinfo=UTC)},
    ]
    for number, row in enumerate(odd, 101):
        yield late | {"id": number} | row


@contextmanager
def written(url: str, schema: str, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[sa.Engine]:
    """A gateway's database with rows in its tables."""
    engine = engine_for(url)
    with transaction(engine) as connection:
        for statement in schema.split(";\n"):
            if statement.strip():
                connection.execute(sa.text(statement))
        for table, values in rows.items():
            for row in values:
                names = ", ".join(f'"{name}"' for name in row)
                given = ", ".join(f":{name}" for name in row)
                connection.execute(sa.text(f'INSERT INTO "{table}" ({names}) VALUES ({given})'), dict(row))
    yield engine
    engine.dispose()
