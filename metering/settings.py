"""Settings, read from the environment (prefix `JAUGE_`) and a `.env` file of the working folder."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting of Jauge. `docs/operating.md` lists them, and a test holds the list to this class."""

    model_config = SettingsConfigDict(env_prefix="JAUGE_", env_file=".env", extra="ignore")

    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL 15 or later, as a libpq URL. Unset: the embedded server is used."
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Valkey or Redis 7 or later, as a redis:// or unix:// URL. Unset: the embedded server.",
    )
    data: Path = Field(default=Path(".jauge"), description="Folder of the embedded servers' data.")
    host: str = Field(default="127.0.0.1", description="Address the HTTP server listens on.")
    port: int = Field(default=8321, ge=0, le=65535, description="Port the HTTP server listens on; 0 takes a free one.")
    read_access: Literal["token", "open"] = Field(
        default="token",
        description="Who may read usage and pages: holders of an operator token, or everybody who reaches the port.",
    )
    language: Literal["fr", "en"] = Field(default="fr", description="Language of pages when the reader states none.")
    log_format: Literal["json", "text"] = Field(
        default="json", description="One JSON object a line, or text for people."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least serious level that is logged."
    )
    intake_events_max: int = Field(default=10_000, ge=1, description="Events accepted in one call or stream entry.")
    intake_bytes_max: int = Field(
        default=16 * 1024 * 1024, ge=1024, description="Bytes accepted in one call, before and after decompression."
    )
    queue_events_max: int = Field(
        default=100_000, ge=1, description="Events that may wait for the ledger in one process; beyond it, 503."
    )
    group_events_max: int = Field(
        default=40_000, ge=1, description="Events that concurrent calls may share in one transaction."
    )
    stream_name: str = Field(default="jauge:events", description="Stream that gateways add usage events to.")
    stream_claim_ms: int = Field(
        default=30_000,
        ge=100,
        description="Time, in milliseconds, after which a silent consumer's messages are taken over.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Master key that webhook secrets and activation codes are derived from, 32 characters at least. "
        "Unset: with the embedded database, one is made in the data folder; otherwise both are refused.",
    )
    public_url: str = Field(
        default="http://127.0.0.1:8321",
        pattern="^https?://[^ ]+$",
        description="Address at which people reach the pages, for links in mails.",
    )
    smtp_url: SecretStr | None = Field(
        default=None,
        description="Mail server: smtp://USER:PASSWORD@HOST:PORT (STARTTLS), or smtps://. "
        "Unset: mails are written to the folder `mail` of the data folder.",
    )
    mail_from: str = Field(
        default="Jauge <jauge@localhost>", pattern="^[^\r\n]+@[^\r\n]+$", description="Sender of mails."
    )
    operator_mail: str | None = Field(
        default=None, description="Address that is told of what waits for the operator. Unset: no such mails."
    )
    webhook_private: bool = Field(
        default=False,
        description="Whether webhooks may lead to private addresses and over plain http: for development only.",
    )
    verify_at_hour: int = Field(
        default=3,
        ge=0,
        le=23,
        description="Hour (Europe/Paris) at which the worker verifies the whole ledger every day.",
    )


@cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
