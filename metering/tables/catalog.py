"""The catalogue: administrations and their people, plans and conventions, models, access, notices.

A trigger records each change of a table of `KEYS` in `catalog_change`, with author, before and after. Where a table has
a column `tenant`, the role `jauge_tenant` sees the rows of one administration only (row-level security); see
`database.transaction`.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.tables.base import Column, Timestamp, metadata
from metering.tables.billing import exchange_rate, price_book, price_version


def _text(name: str, *, nullable: bool = False, comment: str | None = None) -> Column:
    return sa.Column(name, sa.Text, nullable=nullable, comment=comment)


def _created() -> Column:
    return sa.Column("created_at", Timestamp, nullable=False, server_default=sa.func.now())


def _texts(name: str, *, comment: str | None = None) -> Column:
    return sa.Column(name, pg.ARRAY(sa.Text), nullable=False, server_default="{}", comment=comment)


def _documents(name: str, *, comment: str | None = None) -> Column:
    return sa.Column(name, pg.JSONB, nullable=False, server_default="[]", comment=comment)


def _document(name: str, *, comment: str) -> Column:
    return sa.Column(name, pg.JSONB(none_as_null=True), comment=comment)


def _tenant() -> Column:
    return sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id"), nullable=False)


def _one_of(column: str, *values: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


# Plans, administrations, people and keys

plan = sa.Table(
    "plan",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("name"),
    _text("tier", comment="Order of shedding under overload: free first, guaranteed last."),
    _text("outage", comment="While the counters' store is away: local bucket, open, or closed."),
    _documents("limits", comment="Limits of everybody on this plan, see documents.Limit."),
    _one_of("tier", "free", "soft", "guaranteed"),
    _one_of("outage", "local", "open", "closed"),
    comment="What an administration may use without a convention.",
)

tenant = sa.Table(
    "tenant",
    metadata,
    sa.Column("number", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    _text("name"),
    _created(),
    sa.Column("siret", sa.Text, unique=True, comment="14 digits of the French register of establishments."),
    sa.Column("status", sa.Text, nullable=False, server_default="active"),
    _text("status_reason", nullable=True),
    sa.Column("plan", sa.Text, sa.ForeignKey("plan.id"), comment="Null: the platform's default plan."),
    _document("billing", comment="How it is billed, see documents.BillingDetails; null: as it is registered."),
    _one_of("status", "active", "suspended", "deleted"),
    comment="Administrations whose usage is accepted.",
)

project = sa.Table(
    "project",
    metadata,
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id"), primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    _text("name"),
    sa.Column("status", sa.Text, nullable=False, server_default="active"),
    _created(),
    _one_of("status", "active", "closed"),
    comment="What an administration's usage is for.",
)

account = sa.Table(
    "account",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="Pseudonym: the `user` of events."),
    _tenant(),
    sa.Column("role", sa.Text, nullable=False, server_default="member"),
    sa.Column("status", sa.Text, nullable=False, server_default="active"),
    _text("status_reason", nullable=True),
    _text("suspended_by", nullable=True, comment="What an operator suspends, no manager restores."),
    _created(),
    sa.UniqueConstraint("tenant", "id"),
    _one_of("role", "manager", "member"),
    _one_of("status", "active", "suspended", "deleted"),
    _one_of("suspended_by", "operator", "manager"),
    comment="Agents of an administration, by pseudonym.",
)

person = sa.Table(
    "person",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    _tenant(),
    _text("name"),
    _text("email"),
    sa.Column("language", sa.Text, nullable=False, server_default="fr"),
    sa.ForeignKeyConstraint(["tenant", "account"], ["account.tenant", "account.id"]),
    _one_of("language", "fr", "en"),
    sa.Index("person_email_idx", sa.func.lower(sa.column("email"))),
    comment="Who a pseudonym is. A row is erased without a trace; nothing else refers to it.",
)

api_key = sa.Table(
    "api_key",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="The `api_key` of events."),
    _tenant(),
    _text("project", nullable=True),
    _text("account", nullable=True, comment="Null: a key of a program."),
    _text("name"),
    _text("prefix", comment="How the secret begins, to recognise it."),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True, comment="SHA-256 of the secret."),
    sa.Column("imported", sa.Boolean, nullable=False, server_default=sa.false(), comment="Issued by a gateway."),
    sa.Column("expires_at", Timestamp),
    sa.Column("revoked_at", Timestamp),
    _created(),
    sa.ForeignKeyConstraint(["tenant", "project"], ["project.tenant", "project.id"]),
    sa.ForeignKeyConstraint(["tenant", "account"], ["account.tenant", "account.id"]),
    sa.Index("api_key_tenant_idx", "tenant"),
    comment="API keys; the secret is shown once and never stored.",
)

token = sa.Table(
    "token",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    _text("role"),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True, comment="SHA-256 of the token."),
    _created(),
    sa.Column("revoked_at", Timestamp),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id")),
    _text("account", nullable=True),
    sa.Column("expires_at", Timestamp),
    sa.ForeignKeyConstraint(["tenant", "account"], ["account.tenant", "account.id"]),
    _one_of("role", "gateway", "operator", "account"),
    sa.CheckConstraint("(role = 'account') = (account IS NOT NULL AND tenant IS NOT NULL)", name="account"),
    comment="Tokens of services, operators and accounts; the token itself is shown once and never stored.",
)

# Conventions and limits

convention = sa.Table(
    "convention",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="Number of the convention, as on paper."),
    sa.Column("version", sa.Integer, primary_key=True, comment="1 as signed; an amendment is the next."),
    _tenant(),
    _text("title"),
    _documents("parties", comment="Names and SIRET of who signed."),
    _text("funder"),
    _text("amends", nullable=True, comment="What an amendment changes and why."),
    sa.Column("signed_on", sa.Date, nullable=False),
    sa.Column("effective_on", sa.Date, nullable=False, comment="From when this version holds."),
    sa.Column("starts_on", sa.Date, nullable=False),
    sa.Column("ends_on", sa.Date, nullable=False, comment="Last day of the term."),
    _text("settlement"),
    _text("overage"),
    _text("tier"),
    _text("outage"),
    sa.Column(
        "price_book",
        sa.Text,
        sa.ForeignKey("price_book.id"),
        comment="Prices where it has none of its own; null: the platform's.",
    ),
    _text("order_reference", nullable=True, comment="The buyer's engagement number for it."),
    sa.Column("envelope_neur", sa.BigInteger, comment="Null: no envelope in euros."),
    sa.Column("envelope_ugco2e", sa.BigInteger, comment="Null: no envelope in carbon."),
    _documents("limits"),
    _documents("prices", comment="Prices that differ from the price book, see documents.Price."),
    _documents("references", comment="Titles and addresses of documents."),
    _created(),
    _one_of("settlement", "billed", "prepaid", "envelope"),
    _one_of("overage", "block", "throttle", "bill"),
    _one_of("tier", "free", "soft", "guaranteed"),
    _one_of("outage", "local", "open", "closed"),
    sa.CheckConstraint("starts_on <= ends_on", name="term"),
    sa.Index("convention_tenant_idx", "tenant"),
    comment="Agreements that fund use; a version is never changed.",
)

raise_request = sa.Table(
    "raise_request",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _tenant(),
    _text("account", comment="Who asks."),
    _text("subject", nullable=True, comment="Project, user or key that the limit is of; null: every one."),
    sa.Column("rule", pg.JSONB, nullable=False, comment="The limit asked for, see documents.Limit."),
    _text("motive"),
    sa.Column("study", pg.JSONB, nullable=False, comment="Measured use at the time of asking, see rules.studies."),
    sa.Column("state", sa.Text, nullable=False, server_default="pending"),
    _text("decided_by", nullable=True),
    sa.Column("decided_at", Timestamp),
    _text("decision_reason", nullable=True),
    _created(),
    sa.ForeignKeyConstraint(["tenant", "account"], ["account.tenant", "account.id"]),
    _one_of("state", "pending", "approved", "refused", "withdrawn"),
    sa.Index("raise_request_tenant_idx", "tenant"),
    comment="Requests for a higher limit.",
)

limit_override = sa.Table(
    "limit_override",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _tenant(),
    _text("subject", nullable=True, comment="Project, user or key that it is of; null: every one of the scope."),
    sa.Column("rule", pg.JSONB, nullable=False, comment="See documents.Limit."),
    sa.Column("starts_at", Timestamp, nullable=False),
    sa.Column("ends_at", Timestamp, comment="Exclusive; null: until further notice."),
    _text("motive"),
    _text("approver"),
    sa.Column("raise_request", sa.Text, sa.ForeignKey("raise_request.id")),
    _created(),
    sa.CheckConstraint("ends_at IS NULL OR starts_at <= ends_at", name="period"),
    sa.Index("limit_override_tenant_idx", "tenant"),
    comment="Dated exceptions to an administration's limits.",
)

# Models

model_category = sa.Table(
    "model_category",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("name"),
    _text("model", nullable=True, comment="Model that answers for the category."),
    comment="What a caller may ask for instead of a model.",
)

model = sa.Table(
    "model",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("name"),
    sa.Column("category", sa.Text, sa.ForeignKey("model_category.id"), nullable=False),
    _text("publisher"),
    _text("licence", comment="SPDX identifier, or the licence's own name."),
    _text("licence_url", nullable=True),
    sa.Column("parameters", sa.BigInteger, comment="Weights in all."),
    sa.Column("active_parameters", sa.BigInteger, comment="Weights used for one token (mixture of experts)."),
    _text("precision", nullable=True, comment="As served: bf16, fp8, int4…"),
    sa.Column("context_tokens", sa.BigInteger),
    sa.Column("kv_bytes_per_token", sa.BigInteger, comment="Bytes that attention keeps of a token of context."),
    _texts("operations", comment="What it may be called for."),
    sa.Column("available_from", Timestamp, comment="Before it, for early access only; null: at once."),
    comment="Models offered, or that were.",
)

model_alias = sa.Table(
    "model_alias",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, sa.ForeignKey("model.id")),
    sa.Column("category", sa.Text, sa.ForeignKey("model_category.id")),
    sa.CheckConstraint("(model IS NULL) <> (category IS NULL)", name="target"),
    comment="Other names of models and categories.",
)

deployment = sa.Table(
    "deployment",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="The `deployment` of events."),
    sa.Column("model", sa.Text, sa.ForeignKey("model.id"), nullable=False),
    sa.Column("replicas", sa.Integer, nullable=False),
    _text("accelerator", nullable=True),
    sa.Column("accelerators", sa.Integer, comment="Of a replica; null: not said."),
    sa.Column("starts_at", Timestamp, nullable=False),
    sa.Column("ends_at", Timestamp),
    sa.CheckConstraint("replicas > 0", name="replicas"),
    sa.CheckConstraint("accelerators > 0", name="accelerators"),
    comment="Where a model ran, and when.",
)

site = sa.Table(
    "site",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="The `site` of readings."),
    _text("name"),
    _text("zone", comment="Zone of the electricity grid, as emission factors name it."),
    _text("contract", nullable=True, comment="Zone of the market-based factors; null: none is known."),
    sa.Column("pue_ppm", sa.Integer, nullable=False, comment="Power usage effectiveness, in millionths."),
    sa.Column("pue_lower_ppm", sa.Integer, nullable=False),
    sa.Column("pue_upper_ppm", sa.Integer, nullable=False),
    sa.CheckConstraint("pue_lower_ppm >= 1000000 AND pue_ppm BETWEEN pue_lower_ppm AND pue_upper_ppm", name="pue"),
    comment="Where nodes are: their grid, and the efficiency of the building.",
)

retirement = sa.Table(
    "retirement",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="KIND:NAME of what retires."),
    _text("kind"),
    _text("subject"),
    _text("successor", nullable=True),
    sa.Column("announced_at", Timestamp, nullable=False),
    sa.Column("retires_at", Timestamp, nullable=False, comment="From then on, refused."),
    _one_of("kind", "model", "category"),
    sa.CheckConstraint("announced_at < retires_at", name="period"),
    comment="Models and categories that are being replaced.",
)

# Access

platform = sa.Table(
    "platform",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, server_default="platform"),
    sa.Column("default_plan", sa.Text, sa.ForeignKey("plan.id"), nullable=False),
    sa.Column("overload", sa.Text, nullable=False, server_default="none"),
    _text("overload_reason", nullable=True),
    _texts("house_sirets", comment="Administrations whose agents pass at once."),
    _texts("house_domains", comment="Mail domains whose agents pass at once."),
    _text("house_tenant", nullable=True, comment="Administration that agents of the house join."),
    sa.Column(
        "price_book",
        sa.Text,
        sa.ForeignKey("price_book.id"),
        comment="Prices of those whose convention names none, and of free use.",
    ),
    _document("issuer", comment="Who sells, see documents.Issuer; null while nothing is billed."),
    sa.CheckConstraint("id = 'platform'", name="one"),
    _one_of("overload", "none", "batch", "free", "soft", "guaranteed"),
    comment="One row: what holds for everybody.",
)

access_request = sa.Table(
    "access_request",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("kind"),
    _text("organisation"),
    _text("siret", nullable=True),
    _text("name", nullable=True, comment="Erased when activated, or 30 days after a refusal."),
    _text("email", nullable=True, comment="Erased when activated, or 30 days after a refusal."),
    sa.Column("language", sa.Text, nullable=False, server_default="fr"),
    _text("motive"),
    sa.Column("experiment", sa.Text, sa.ForeignKey("experiment.id")),
    _text("state"),
    _text("state_reason", nullable=True),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenant.id"), comment="Administration it was approved for."),
    sa.Column("role", sa.Text, nullable=False, server_default="member"),
    _text("decided_by", nullable=True),
    sa.Column("decided_at", Timestamp),
    sa.Column("code_digest", sa.LargeBinary, unique=True, comment="SHA-256 of the activation code."),
    sa.Column("code_expires_at", Timestamp),
    _text("account", nullable=True, comment="Account that came of it."),
    _created(),
    sa.Column(
        "siret_proven",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="Whether the identity provider said the SIRET, and not only who asks.",
    ),
    _one_of("kind", "individual", "partner", "invitation"),
    _one_of("role", "manager", "member"),
    _one_of("state", "pending", "delayed", "approved", "refused", "activated", "expired"),
    sa.Index("access_request_email_idx", sa.func.lower(sa.column("email"))),
    comment="Requests for an account.",
)

experiment = sa.Table(
    "experiment",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("name"),
    _texts("models", comment="Models it is about; empty: the platform as a whole."),
    _texts("early_access", comment="Administrations that may use its models before everybody."),
    _documents("phases", comment="Dated phases, see documents.Phase."),
    comment="Experiments and their phases.",
)

terms = sa.Table(
    "terms",
    metadata,
    sa.Column("document", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    _text("title_fr"),
    _text("title_en"),
    _text("text_fr"),
    _text("text_en"),
    sa.Column("effective_at", Timestamp, nullable=False, comment="From then on it is the one to accept."),
    sa.Column("enforced_at", Timestamp, nullable=False, comment="From then on, no use without acceptance."),
    _created(),
    _one_of("document", "terms", "data_policy"),
    sa.CheckConstraint("effective_at <= enforced_at", name="order"),
    comment="Versions of the terms of use and the data policy; never changed.",
)

acceptance = sa.Table(
    "acceptance",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("document", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    _tenant(),
    sa.Column("accepted_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.ForeignKeyConstraint(["tenant", "account"], ["account.tenant", "account.id"]),
    sa.ForeignKeyConstraint(["document", "version"], ["terms.document", "terms.version"]),
    comment="Who accepted what; never changed.",
)

notice = sa.Table(
    "notice",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("kind"),
    _text("title_fr"),
    _text("title_en"),
    _text("text_fr"),
    _text("text_en"),
    sa.Column("starts_at", Timestamp, nullable=False),
    sa.Column("ends_at", Timestamp),
    _texts("tenants", comment="Administrations concerned; empty: all."),
    _one_of("kind", "maintenance", "incident", "information"),
    comment="What everybody, or some, are told.",
)

catalog_change = sa.Table(
    "catalog_change",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="Version of the catalogue."),
    sa.Column("changed_at", Timestamp, nullable=False, server_default=sa.func.clock_timestamp()),
    _text("author"),
    _text("entity", comment="Name of the table."),
    _text("key", comment="Primary key; several columns are joined by /."),
    _text("tenant", nullable=True),
    _text("action"),
    sa.Column("before", pg.JSONB, comment="Without hashes, names and addresses."),
    sa.Column("after", pg.JSONB),
    _one_of("action", "insert", "update", "delete"),
    sa.Index("catalog_change_tenant_idx", "tenant", "number"),
    comment="Every change of the catalogue, by trigger; never changed.",
)

KEYS = {
    table.name: tuple(column.name for column in table.primary_key.columns)
    for table in (
        plan, project, account, person, api_key, token, convention, raise_request, limit_override, model_category,
        model, model_alias, deployment, site, retirement, platform, access_request, experiment, terms, acceptance,
        notice, price_book, price_version, exchange_rate,
    )
} | {"tenant": ("id",)}  # fmt: skip
"""Tables whose changes are recorded, and the columns of their key."""
