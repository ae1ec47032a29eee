"""Settings, read from the environment (prefix `JAUGE_`) and a `.env` file of the working folder."""

from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

STATE_LOGO = "component/logo/logo.main.min.css"
STATE_FONTS = ("fonts/Marianne-Regular.woff2", "fonts/Marianne-Bold.woff2")
"""What pages take from the State's design system: its mark, and its typeface."""


class Settings(BaseSettings):
    """Every setting of Jauge. `docs/operating.md` lists them, and a test holds the list to this class."""

    model_config = SettingsConfigDict(env_prefix="JAUGE_", env_file=".env", extra="ignore")

    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL 15 or later, as a libpq URL. Unset: the embedded server is used."
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Valkey or Redis 7 or later, as a redis://, unix:// or redis+cluster:// URL. Unset: the embedded "
        "server.",
    )
    data: Path = Field(default=Path(".jauge"), description="Folder of the embedded servers' data.")
    host: str = Field(default="127.0.0.1", description="Address the HTTP server listens on.")
    port: int = Field(default=8321, ge=0, le=65535, description="Port the HTTP server listens on; 0 takes a free one.")
    envoy_address: str | None = Field(
        default=None,
        pattern="^[^ ]+:[0-9]+$",
        description="Address (HOST:PORT) at which the API answers Envoy's rate limit calls over gRPC. Unset: nowhere.",
    )
    envoy_certificate: Path | None = Field(
        default=None, description="File (PEM) of that port's certificate and its chain. Unset: no TLS."
    )
    envoy_key: Path | None = Field(default=None, description="File (PEM) of the certificate's key.")
    envoy_client_ca: Path | None = Field(
        default=None, description="File (PEM) of who vouches for Envoy's own certificate. Unset: Envoy needs none."
    )
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
        description="Address at which people reach the pages, for links in mails; with https:// cookies are secure.",
    )
    session_idle_min: int = Field(
        default=120, ge=1, description="Minutes after which a session that isn't used ends on the pages."
    )
    session_most_h: int = Field(default=12, ge=1, description="Hours after which a session ends in any case.")
    trusted_proxies: str = Field(
        default="127.0.0.1",
        pattern="^[^ ]+$",
        description="Addresses and networks, separated by commas, of proxies whose X-Forwarded-For tells who asks: "
        "attempts at tokens and codes are counted by address.",
    )
    oidc_issuer: str | None = Field(
        default=None,
        pattern=r"^(https://[^ ]+|http://(localhost|127\.0\.0\.1)(:[0-9]+)?(/[^ ]*)?)$",
        description="Issuer of the OpenID Connect provider that people sign in at, as its configuration spells it. "
        "Unset: people sign in with an access token.",
    )
    oidc_name: str = Field(default="ProConnect", min_length=1, description="What people call this provider.")
    oidc_client_id: str | None = Field(default=None, description="Our name at the provider.")
    oidc_client_secret: SecretStr | None = Field(default=None, description="Our secret at the provider.")
    oidc_client_secret_file: Path | None = Field(default=None, description="File that holds our secret instead.")
    oidc_scopes: str = Field(
        default="openid given_name usual_name email siret uid",
        pattern="^(.* )?openid( .*)?$",
        description="What the provider is asked for.",
    )
    oidc_algorithms: str = Field(
        default="RS256 ES256",
        pattern="^(RS|PS|ES)(256|384|512)( (RS|PS|ES)(256|384|512))*$",
        description="Algorithms of signatures of the provider's that are accepted.",
    )
    oidc_operators: dict[str, str] = Field(
        default={},
        description="Operators that the provider lets in: a JSON object of names, as they are recorded with changes, "
        "and addresses of mail or subjects.",
    )
    demo_accounts: dict[Literal["manager", "member"], str] = Field(
        default={},
        description="Set by `jauge demo` alone, on the loopback alone: accounts of the switch that signs in without a "
        "password.",
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
    operator_name: str | None = Field(
        default=None, description="Who answers for the pages, in the accessibility statement. Unset: “the operator”."
    )
    accessibility_contact: str | None = Field(
        default=None, description="Address to write to about accessibility, in the statement. Unset: none is given."
    )
    state_design: Path | None = Field(
        default=None,
        description="Folder `dist` of the French State’s design system, for services that may use it. "
        "Unset: pages look neutral.",
    )
    embed_ancestors: str = Field(
        default="'none'",
        pattern=r"^('none'|'self'|https?://[A-Za-z0-9.:*-]+)( https?://[A-Za-z0-9.:*-]+)*$",
        description="Sites whose pages may frame the charts of `/v1/embeds`, as in the policy `frame-ancestors`.",
    )
    webhook_private: bool = Field(
        default=False,
        description="Whether webhooks may lead to private addresses and over plain http: for development only.",
    )
    account_journal: str = Field(default="VE", min_length=1, description="Journal of exported accounting entries.")
    account_customer: str = Field(default="411000", min_length=1, description="Account of customers in such entries.")
    account_revenue: str = Field(default="706000", min_length=1, description="Account of revenue in such entries.")
    account_vat: str = Field(default="445710", min_length=1, description="Account of VAT in such entries.")
    close_grace_days: int = Field(
        default=3,
        ge=0,
        le=60,
        description="Days after the end of a month during which it stays open for usage that comes late.",
    )
    chorus_url: str | None = Field(
        default=None, description="Address of Chorus Pro's API. Unset: nothing is deposited."
    )
    chorus_token_url: str | None = Field(default=None, description="Address at which PISTE gives tokens for it.")
    chorus_client_id: str | None = Field(default=None, description="Our name at PISTE.")
    chorus_client_secret: SecretStr | None = Field(default=None, description="Our secret at PISTE.")
    chorus_login: str | None = Field(default=None, description="Technical account at Chorus Pro.")
    chorus_password: SecretStr | None = Field(default=None, description="Its password.")
    exports_waiting_max: int = Field(
        default=10, ge=1, description="Exports of one administration, or of the platform, that may wait or be made."
    )
    exports_keep_h: int = Field(default=168, ge=1, description="Hours for which the file of an export can be fetched.")
    quarantine_keep_days: int | None = Field(
        default=None,
        ge=1,
        description="Days for which refused events are kept after they were replayed or dismissed. Unset: for ever.",
    )
    messages_keep_days: int | None = Field(
        default=None,
        ge=1,
        description="Days for which it is kept what mails and calls of webhooks said, once sent. Unset: for ever.",
    )
    deliveries: Path | None = Field(
        default=None,
        description="File (YAML) of the exports that the worker delivers to folders and buckets; it holds their "
        "secrets. Unset: nothing is delivered.",
    )
    verify_at_hour: int = Field(
        default=3,
        ge=0,
        le=23,
        description="Hour (Europe/Paris) at which the worker verifies the whole ledger every day.",
    )

    @model_validator(mode="after")
    def _certificate_is_whole(self) -> Self:
        """Half of it would leave a port open that was meant to be closed."""
        if (self.envoy_certificate is None) != (self.envoy_key is None):
            raise ValueError("JAUGE_ENVOY_CERTIFICATE and JAUGE_ENVOY_KEY need each other")
        if self.envoy_client_ca is not None and self.envoy_certificate is None:
            raise ValueError("JAUGE_ENVOY_CLIENT_CA needs JAUGE_ENVOY_CERTIFICATE")
        return self

    @model_validator(mode="after")
    def _design_is_there(self) -> Self:
        """A folder of another form would only be seen as pages without their typeface."""
        if self.state_design is not None:
            for name in (STATE_LOGO, *STATE_FONTS):
                if not (self.state_design / name).is_file():
                    raise ValueError(f"JAUGE_STATE_DESIGN needs a folder that has {name}")
        return self

    @model_validator(mode="after")
    def _provider_is_whole(self) -> Self:
        """Half a provider is a mistake that nobody would see before the first sign-in."""
        secrets = (self.oidc_client_secret, self.oidc_client_secret_file)
        if self.oidc_issuer and not (self.oidc_client_id and any(secrets) and not all(secrets)):
            raise ValueError(
                "JAUGE_OIDC_ISSUER needs JAUGE_OIDC_CLIENT_ID and one of JAUGE_OIDC_CLIENT_SECRET and "
                "JAUGE_OIDC_CLIENT_SECRET_FILE"
            )
        return self


@cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
