"""The catalogue, its record of changes, who sees which rows, and the outbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

TENANT_ROLE = "jauge_tenant"

RECORDED = {
    "acceptance": ("account,document,version", ""),
    "access_request": ("id", "name,email,code_digest,motive,organisation,state_reason"),
    "account": ("id", "status_reason"),
    "api_key": ("id", "digest"),
    "convention": ("id,version", ""),
    "deployment": ("id", ""),
    "experiment": ("id", ""),
    "limit_override": ("id", "motive"),
    "model": ("id", ""),
    "model_alias": ("id", ""),
    "model_category": ("id", ""),
    "notice": ("id", ""),
    "person": ("account", "name,email"),
    "plan": ("id", ""),
    "platform": ("id", ""),
    "project": ("tenant,id", ""),
    "raise_request": ("id", "motive,study,decision_reason"),
    "retirement": ("id", ""),
    "tenant": ("id", ""),
    "terms": ("document,version", ""),
    "token": ("name", "digest"),
    "webhook": ("id", "salt,old_salt,url"),
}
"""Table to the columns of its key, and those whose values the record of changes must not keep."""

APPEND_ONLY = ("acceptance", "catalog_change", "convention", "terms")

RECORD_CHANGE = """
CREATE FUNCTION record_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    old_row jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    new_row jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    any_row jsonb := coalesce(new_row, old_row);
    hidden text[] := string_to_array(TG_ARGV[1], ',');
BEGIN
    IF old_row = new_row THEN
        RETURN NULL;
    END IF;
    INSERT INTO catalog_change (author, entity, key, tenant, action, before, after)
    SELECT coalesce(nullif(current_setting('jauge.author', true), ''), session_user),
           TG_TABLE_NAME,
           (SELECT string_agg(any_row ->> part, '/' ORDER BY place)
              FROM unnest(string_to_array(TG_ARGV[0], ',')) WITH ORDINALITY AS named (part, place)),
           CASE WHEN TG_TABLE_NAME = 'tenant' THEN any_row ->> 'id' ELSE any_row ->> 'tenant' END,
           lower(TG_OP),
           old_row - hidden,
           new_row - hidden;
    PERFORM pg_notify('jauge_catalog', '');
    RETURN NULL;
END $$
"""

HOLD_CATALOG = """
CREATE FUNCTION hold_catalog() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- One change at a time, so that numbers of changes are committed in order and a reader misses none.
    PERFORM pg_advisory_xact_lock(x'4A415543'::bigint);
    RETURN NULL;
END $$
"""

OWN_TENANT = "current_setting('jauge.tenant', true)"
OWN_ROWS = f"tenant = {OWN_TENANT}"

GRANTS = {
    "account": ("SELECT, INSERT, UPDATE", OWN_ROWS),
    "acceptance": ("SELECT, INSERT", OWN_ROWS),
    "access_request": ("SELECT, INSERT", f"{OWN_ROWS} AND kind = 'invitation'"),
    "api_key": ("SELECT, INSERT, UPDATE", OWN_ROWS),
    "catalog_change": ("SELECT", OWN_ROWS),
    "convention": ("SELECT", OWN_ROWS),
    "deployment": ("SELECT", None),
    "ledger_batch": ("SELECT (seq, recorded_at)", None),
    "ledger_entry": ("SELECT", f"tenant = (SELECT number FROM tenant WHERE id = {OWN_TENANT})"),  # noqa: S608 - a constant
    "ledger_series": ("SELECT", OWN_ROWS),
    "limit_override": ("SELECT", OWN_ROWS),
    "model": ("SELECT", None),
    "model_alias": ("SELECT", None),
    "model_category": ("SELECT", None),
    "notice": ("SELECT", f"tenants = '{{}}' OR {OWN_TENANT} = ANY (tenants)"),
    "outbox": ("INSERT", OWN_ROWS),
    "person": ("SELECT, INSERT, UPDATE, DELETE", OWN_ROWS),
    "plan": ("SELECT", None),
    "platform": ("SELECT (id, default_plan, overload, overload_reason)", None),
    "project": ("SELECT, INSERT, UPDATE", OWN_ROWS),
    "raise_request": ("SELECT, INSERT", OWN_ROWS),
    "retirement": ("SELECT", None),
    "tenant": ("SELECT", f"id = {OWN_TENANT}"),
    "terms": ("SELECT", None),
    "token": ("SELECT, INSERT, UPDATE", OWN_ROWS),
    "usage_daily": ("SELECT", OWN_ROWS),
    "usage_hourly": ("SELECT", OWN_ROWS),
    "webhook": ("SELECT, INSERT, UPDATE", OWN_ROWS),
}
"""What the role of an administration may do, and with which rows; None: every row."""

EXPERIMENTATION_LIMITS = [
    {"scope": "user", "selector": "model:*", "meter": "requests", "window": "minute", "value": 10, "mode": "hard"},
    {"scope": "user", "selector": "model:*", "meter": "requests", "window": "day", "value": 1_000, "mode": "hard"},
    {
        "scope": "user",
        "selector": "model:*",
        "meter": "total_tokens",
        "window": "minute",
        "value": 100_000,
        "mode": "hard",
    },
    {
        "scope": "user",
        "selector": "model:*",
        "meter": "total_tokens",
        "window": "day",
        "value": 2_000_000,
        "mode": "hard",
    },
    {
        "scope": "tenant",
        "selector": "*",
        "meter": "total_tokens",
        "window": "month",
        "value": 500_000_000,
        "mode": "hard",
    },
]


def upgrade() -> None:
    create_tables()
    op.drop_constraint("token_role_check", "token")
    op.create_check_constraint(op.f("token_role_check"), "token", "role IN ('gateway', 'operator', 'account')")
    op.create_check_constraint(
        op.f("token_account_check"), "token", "(role = 'account') = (account IS NOT NULL AND tenant IS NOT NULL)"
    )
    op.create_check_constraint(op.f("tenant_status_check"), "tenant", "status IN ('active', 'suspended', 'deleted')")
    record_changes()
    separate_tenants()
    first_rows()


def record_changes() -> None:
    """Triggers that record every change, one change at a time."""
    op.execute(RECORD_CHANGE)
    op.execute(HOLD_CATALOG)
    for table, (key, hidden) in RECORDED.items():
        op.execute(
            f"CREATE TRIGGER hold_catalog BEFORE INSERT OR UPDATE OR DELETE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION hold_catalog()"
        )
        op.execute(
            f"CREATE TRIGGER record_change AFTER INSERT OR UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION record_change('{key}', '{hidden}')"
        )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    for table in (*RECORDED, "catalog_change"):
        op.execute(
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def separate_tenants() -> None:
    """A role that sees one administration: the one that the transaction's setting `jauge.tenant` names."""
    op.execute(
        f"""
        DO $$ BEGIN
            CREATE ROLE {TENANT_ROLE} NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
        """
    )
    op.execute(f"GRANT {TENANT_ROLE} TO CURRENT_USER")
    op.execute(f"GRANT USAGE ON SCHEMA public TO {TENANT_ROLE}")
    for table, (privileges, rows) in GRANTS.items():
        op.execute(f"GRANT {privileges} ON {table} TO {TENANT_ROLE}")
        if rows is not None:
            new_rows = f"{rows} AND state = 'pending'" if table == "raise_request" else rows
            op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            op.execute(f"CREATE POLICY own_rows ON {table} TO {TENANT_ROLE} USING ({rows}) WITH CHECK ({new_rows})")


def first_rows() -> None:
    """The plan of everybody who has no other."""
    plan = sa.table("plan", *map(sa.column, ("id", "name", "tier", "outage")), sa.column("limits", postgresql.JSONB))
    op.bulk_insert(
        plan,
        [
            {
                "id": "experimentation",
                "name": "Expérimentation",
                "tier": "free",
                "outage": "local",
                "limits": EXPERIMENTATION_LIMITS,
            }
        ],
    )
    op.execute("INSERT INTO platform (default_plan) VALUES ('experimentation')")


def create_tables() -> None:
    op.create_table(
        "catalog_change",
        sa.Column(
            "number", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Version of the catalogue."
        ),
        sa.Column(
            "changed_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False, comment="Name of the table."),
        sa.Column("key", sa.Text(), nullable=False, comment="Primary key; several columns are joined by /."),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column(
            "before",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Without hashes, names and addresses.",
        ),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("action IN ('insert', 'update', 'delete')", name=op.f("catalog_change_action_check")),
        sa.PrimaryKeyConstraint("number", name=op.f("catalog_change_pkey")),
        comment="Every change of the catalogue, by trigger; never changed.",
    )
    op.create_index("catalog_change_tenant_idx", "catalog_change", ["tenant", "number"], unique=False)
    op.create_table(
        "experiment",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "models",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Models it is about; empty: the platform as a whole.",
        ),
        sa.Column(
            "early_access",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Administrations that may use its models before everybody.",
        ),
        sa.Column(
            "phases",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="Dated phases, see documents.Phase.",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("experiment_pkey")),
        comment="Experiments and their phases.",
    )
    op.create_table(
        "model_category",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True, comment="Model that answers for the category."),
        sa.PrimaryKeyConstraint("id", name=op.f("model_category_pkey")),
        comment="What a caller may ask for instead of a model.",
    )
    op.create_table(
        "notice",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("title_fr", sa.Text(), nullable=False),
        sa.Column("title_en", sa.Text(), nullable=False),
        sa.Column("text_fr", sa.Text(), nullable=False),
        sa.Column("text_en", sa.Text(), nullable=False),
        sa.Column("starts_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("ends_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "tenants",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Administrations concerned; empty: all.",
        ),
        sa.CheckConstraint("kind IN ('maintenance', 'incident', 'information')", name=op.f("notice_kind_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("notice_pkey")),
        comment="What everybody, or some, are told.",
    )
    op.create_table(
        "plan",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "tier", sa.Text(), nullable=False, comment="Order of shedding under overload: free first, guaranteed last."
        ),
        sa.Column(
            "outage",
            sa.Text(),
            nullable=False,
            comment="While the counters' store is away: local bucket, open, or closed.",
        ),
        sa.Column(
            "limits",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="Limits of everybody on this plan, see documents.Limit.",
        ),
        sa.CheckConstraint("outage IN ('local', 'open', 'closed')", name=op.f("plan_outage_check")),
        sa.CheckConstraint("tier IN ('free', 'soft', 'guaranteed')", name=op.f("plan_tier_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("plan_pkey")),
        comment="What an administration may use without a convention.",
    )
    op.create_table(
        "retirement",
        sa.Column("id", sa.Text(), nullable=False, comment="KIND:NAME of what retires."),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("successor", sa.Text(), nullable=True),
        sa.Column("announced_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("retires_at", postgresql.TIMESTAMP(timezone=True), nullable=False, comment="From then on, refused."),
        sa.CheckConstraint("kind IN ('model', 'category')", name=op.f("retirement_kind_check")),
        sa.CheckConstraint("announced_at < retires_at", name=op.f("retirement_period_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("retirement_pkey")),
        comment="Models and categories that are being replaced.",
    )
    op.create_table(
        "terms",
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("title_fr", sa.Text(), nullable=False),
        sa.Column("title_en", sa.Text(), nullable=False),
        sa.Column("text_fr", sa.Text(), nullable=False),
        sa.Column("text_en", sa.Text(), nullable=False),
        sa.Column(
            "effective_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="From then on it is the one to accept.",
        ),
        sa.Column(
            "enforced_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="From then on, no use without acceptance.",
        ),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("document IN ('terms', 'data_policy')", name=op.f("terms_document_check")),
        sa.CheckConstraint("effective_at <= enforced_at", name=op.f("terms_order_check")),
        sa.PrimaryKeyConstraint("document", "version", name=op.f("terms_pkey")),
        comment="Versions of the terms of use and the data policy; never changed.",
    )
    op.create_table(
        "model",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("publisher", sa.Text(), nullable=False),
        sa.Column("licence", sa.Text(), nullable=False, comment="SPDX identifier, or the licence's own name."),
        sa.Column("licence_url", sa.Text(), nullable=True),
        sa.Column("parameters", sa.BigInteger(), nullable=True, comment="Weights in all."),
        sa.Column(
            "active_parameters",
            sa.BigInteger(),
            nullable=True,
            comment="Weights used for one token (mixture of experts).",
        ),
        sa.Column("precision", sa.Text(), nullable=True, comment="As served: bf16, fp8, int4…"),
        sa.Column("context_tokens", sa.BigInteger(), nullable=True),
        sa.Column(
            "operations",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="What it may be called for.",
        ),
        sa.Column(
            "available_from",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Before it, for early access only; null: at once.",
        ),
        sa.ForeignKeyConstraint(["category"], ["model_category.id"], name=op.f("model_category_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("model_pkey")),
        comment="Models offered, or that were.",
    )
    op.create_table(
        "platform",
        sa.Column("id", sa.Text(), server_default="platform", nullable=False),
        sa.Column("default_plan", sa.Text(), nullable=False),
        sa.Column("overload", sa.Text(), server_default="none", nullable=False),
        sa.Column("overload_reason", sa.Text(), nullable=True),
        sa.Column(
            "house_sirets",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Administrations whose agents pass at once.",
        ),
        sa.Column(
            "house_domains",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="Mail domains whose agents pass at once.",
        ),
        sa.Column("house_tenant", sa.Text(), nullable=True, comment="Administration that agents of the house join."),
        sa.CheckConstraint("id = 'platform'", name=op.f("platform_one_check")),
        sa.CheckConstraint(
            "overload IN ('none', 'batch', 'free', 'soft', 'guaranteed')", name=op.f("platform_overload_check")
        ),
        sa.ForeignKeyConstraint(["default_plan"], ["plan.id"], name=op.f("platform_default_plan_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("platform_pkey")),
        comment="One row: what holds for everybody.",
    )
    op.create_table(
        "access_request",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("siret", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True, comment="Erased when activated, or 30 days after a refusal."),
        sa.Column("email", sa.Text(), nullable=True, comment="Erased when activated, or 30 days after a refusal."),
        sa.Column("language", sa.Text(), server_default="fr", nullable=False),
        sa.Column("motive", sa.Text(), nullable=False),
        sa.Column("experiment", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("tenant", sa.Text(), nullable=True, comment="Administration it was approved for."),
        sa.Column("role", sa.Text(), server_default="member", nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("code_digest", sa.LargeBinary(), nullable=True, comment="SHA-256 of the activation code."),
        sa.Column("code_expires_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("account", sa.Text(), nullable=True, comment="Account that came of it."),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('individual', 'partner', 'invitation')", name=op.f("access_request_kind_check")),
        sa.CheckConstraint("role IN ('manager', 'member')", name=op.f("access_request_role_check")),
        sa.CheckConstraint(
            "state IN ('pending', 'delayed', 'approved', 'refused', 'activated', 'expired')",
            name=op.f("access_request_state_check"),
        ),
        sa.ForeignKeyConstraint(["experiment"], ["experiment.id"], name=op.f("access_request_experiment_fkey")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("access_request_tenant_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("access_request_pkey")),
        sa.UniqueConstraint("code_digest", name=op.f("access_request_code_digest_key")),
        comment="Requests for an account.",
    )
    op.create_index("access_request_email_idx", "access_request", [sa.literal_column("lower(email)")], unique=False)
    op.create_table(
        "account",
        sa.Column("id", sa.Text(), nullable=False, comment="Pseudonym: the `user` of events."),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), server_default="member", nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column(
            "suspended_by",
            sa.Text(),
            nullable=True,
            comment="What an operator suspends, no manager restores.",
        ),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role IN ('manager', 'member')", name=op.f("account_role_check")),
        sa.CheckConstraint("suspended_by IN ('operator', 'manager')", name=op.f("account_suspended_by_check")),
        sa.CheckConstraint("status IN ('active', 'suspended', 'deleted')", name=op.f("account_status_check")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("account_tenant_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("account_pkey")),
        sa.UniqueConstraint("tenant", "id", name=op.f("account_tenant_id_key")),
        comment="Agents of an administration, by pseudonym.",
    )
    op.create_table(
        "convention",
        sa.Column("id", sa.Text(), nullable=False, comment="Number of the convention, as on paper."),
        sa.Column("version", sa.Integer(), nullable=False, comment="1 as signed; an amendment is the next."),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column(
            "parties",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="Names and SIRET of who signed.",
        ),
        sa.Column("funder", sa.Text(), nullable=False),
        sa.Column("amends", sa.Text(), nullable=True, comment="What an amendment changes and why."),
        sa.Column("signed_on", sa.Date(), nullable=False),
        sa.Column("effective_on", sa.Date(), nullable=False, comment="From when this version holds."),
        sa.Column("starts_on", sa.Date(), nullable=False),
        sa.Column("ends_on", sa.Date(), nullable=False, comment="Last day of the term."),
        sa.Column("settlement", sa.Text(), nullable=False),
        sa.Column("overage", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("outage", sa.Text(), nullable=False),
        sa.Column("envelope_neur", sa.BigInteger(), nullable=True, comment="Null: no envelope in euros."),
        sa.Column("envelope_ugco2e", sa.BigInteger(), nullable=True, comment="Null: no envelope in carbon."),
        sa.Column("limits", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column(
            "prices",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="Prices that differ from the price book, see documents.Price.",
        ),
        sa.Column(
            "references",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="Titles and addresses of documents.",
        ),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("outage IN ('local', 'open', 'closed')", name=op.f("convention_outage_check")),
        sa.CheckConstraint("overage IN ('block', 'throttle', 'bill')", name=op.f("convention_overage_check")),
        sa.CheckConstraint("settlement IN ('billed', 'prepaid', 'envelope')", name=op.f("convention_settlement_check")),
        sa.CheckConstraint("tier IN ('free', 'soft', 'guaranteed')", name=op.f("convention_tier_check")),
        sa.CheckConstraint("starts_on <= ends_on", name=op.f("convention_term_check")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("convention_tenant_fkey")),
        sa.PrimaryKeyConstraint("id", "version", name=op.f("convention_pkey")),
        comment="Agreements that fund use; a version is never changed.",
    )
    op.create_index("convention_tenant_idx", "convention", ["tenant"], unique=False)
    op.create_table(
        "deployment",
        sa.Column("id", sa.Text(), nullable=False, comment="The `deployment` of events."),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("accelerator", sa.Text(), nullable=True),
        sa.Column("starts_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("ends_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("replicas > 0", name=op.f("deployment_replicas_check")),
        sa.ForeignKeyConstraint(["model"], ["model.id"], name=op.f("deployment_model_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("deployment_pkey")),
        comment="Where a model ran, and when.",
    )
    op.create_table(
        "model_alias",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.CheckConstraint("(model IS NULL) <> (category IS NULL)", name=op.f("model_alias_target_check")),
        sa.ForeignKeyConstraint(["category"], ["model_category.id"], name=op.f("model_alias_category_fkey")),
        sa.ForeignKeyConstraint(["model"], ["model.id"], name=op.f("model_alias_model_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("model_alias_pkey")),
        comment="Other names of models and categories.",
    )
    op.create_table(
        "outbox",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="What is told, to whom: told once."),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("recipient", sa.Text(), nullable=False, comment="Who is told, by id, see outbox.queue."),
        sa.Column("subject", sa.Text(), nullable=False, comment="Template of a mail, or type of an event."),
        sa.Column(
            "payload",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Values for the template; no name, address or secret.",
        ),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True, comment="A code; never an answer's text."),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("done_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("channel IN ('mail', 'webhook')", name=op.f("outbox_channel_check")),
        sa.CheckConstraint(
            "state IN ('waiting', 'sending', 'sent', 'dropped', 'failed')", name=op.f("outbox_state_check")
        ),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("outbox_tenant_fkey")),
        sa.PrimaryKeyConstraint("number", name=op.f("outbox_pkey")),
        sa.UniqueConstraint("key", name=op.f("outbox_key_key")),
        comment="Messages to be sent, each once.",
    )
    op.create_index(
        "outbox_due_at_idx",
        "outbox",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('waiting', 'sending')"),
    )
    op.create_table(
        "project",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status IN ('active', 'closed')", name=op.f("project_status_check")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("project_tenant_fkey")),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("project_pkey")),
        comment="What an administration's usage is for.",
    )
    op.create_table(
        "webhook",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=True, comment="Null: the operator's, told of everybody."),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False, comment="Types it is told of; empty: all."),
        sa.Column(
            "salt", sa.LargeBinary(), nullable=False, comment="What its secret is derived with; no secret itself."
        ),
        sa.Column("old_salt", sa.LargeBinary(), nullable=True),
        sa.Column(
            "old_salt_until",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Until then the old secret signs as well.",
        ),
        sa.Column("disabled_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("webhook_tenant_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_pkey")),
        comment="Addresses that are told of events.",
    )
    op.create_table(
        "acceptance",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("accepted_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["document", "version"], ["terms.document", "terms.version"], name=op.f("acceptance_document_version_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["tenant", "account"], ["account.tenant", "account.id"], name=op.f("acceptance_tenant_account_fkey")
        ),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("acceptance_tenant_fkey")),
        sa.PrimaryKeyConstraint("account", "document", "version", name=op.f("acceptance_pkey")),
        comment="Who accepted what; never changed.",
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text(), nullable=False, comment="The `api_key` of events."),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("account", sa.Text(), nullable=True, comment="Null: a key of a program."),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False, comment="How the secret begins, to recognise it."),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the secret."),
        sa.Column("imported", sa.Boolean(), server_default=sa.false(), nullable=False, comment="Issued by a gateway."),
        sa.Column("expires_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "account"], ["account.tenant", "account.id"], name=op.f("api_key_tenant_account_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["tenant", "project"], ["project.tenant", "project.id"], name=op.f("api_key_tenant_project_fkey")
        ),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("api_key_tenant_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("api_key_pkey")),
        sa.UniqueConstraint("digest", name=op.f("api_key_digest_key")),
        comment="API keys; the secret is shown once and never stored.",
    )
    op.create_index("api_key_tenant_idx", "api_key", ["tenant"], unique=False)
    op.create_table(
        "person",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), server_default="fr", nullable=False),
        sa.CheckConstraint("language IN ('fr', 'en')", name=op.f("person_language_check")),
        sa.ForeignKeyConstraint(
            ["tenant", "account"], ["account.tenant", "account.id"], name=op.f("person_tenant_account_fkey")
        ),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("person_tenant_fkey")),
        sa.PrimaryKeyConstraint("account", name=op.f("person_pkey")),
        comment="Who a pseudonym is. A row is erased without a trace; nothing else refers to it.",
    )
    op.create_index("person_email_idx", "person", [sa.literal_column("lower(email)")], unique=False)
    op.create_table(
        "raise_request",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False, comment="Who asks."),
        sa.Column(
            "subject", sa.Text(), nullable=True, comment="Project, user or key that the limit is of; null: every one."
        ),
        sa.Column(
            "rule",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="The limit asked for, see documents.Limit.",
        ),
        sa.Column("motive", sa.Text(), nullable=False),
        sa.Column(
            "study",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Measured use at the time of asking, see rules.studies.",
        ),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("decision_reason", sa.Text(), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('pending', 'approved', 'refused')", name=op.f("raise_request_state_check")),
        sa.ForeignKeyConstraint(
            ["tenant", "account"], ["account.tenant", "account.id"], name=op.f("raise_request_tenant_account_fkey")
        ),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("raise_request_tenant_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("raise_request_pkey")),
        comment="Requests for a higher limit.",
    )
    op.create_index("raise_request_tenant_idx", "raise_request", ["tenant"], unique=False)
    op.create_table(
        "limit_override",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column(
            "subject",
            sa.Text(),
            nullable=True,
            comment="Project, user or key that it is of; null: every one of the scope.",
        ),
        sa.Column("rule", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="See documents.Limit."),
        sa.Column("starts_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column(
            "ends_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Exclusive; null: until further notice.",
        ),
        sa.Column("motive", sa.Text(), nullable=False),
        sa.Column("approver", sa.Text(), nullable=False),
        sa.Column("raise_request", sa.Text(), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("ends_at IS NULL OR starts_at <= ends_at", name=op.f("limit_override_period_check")),
        sa.ForeignKeyConstraint(
            ["raise_request"], ["raise_request.id"], name=op.f("limit_override_raise_request_fkey")
        ),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("limit_override_tenant_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("limit_override_pkey")),
        comment="Dated exceptions to an administration's limits.",
    )
    op.create_index("limit_override_tenant_idx", "limit_override", ["tenant"], unique=False)
    op.add_column(
        "tenant",
        sa.Column("siret", sa.Text(), nullable=True, comment="14 digits of the French register of establishments."),
    )
    op.add_column("tenant", sa.Column("status", sa.Text(), server_default="active", nullable=False))
    op.add_column("tenant", sa.Column("status_reason", sa.Text(), nullable=True))
    op.add_column("tenant", sa.Column("plan", sa.Text(), nullable=True, comment="Null: the platform's default plan."))
    op.create_unique_constraint(op.f("tenant_siret_key"), "tenant", ["siret"])
    op.create_foreign_key(op.f("tenant_plan_fkey"), "tenant", "plan", ["plan"], ["id"])
    op.add_column("token", sa.Column("tenant", sa.Text(), nullable=True))
    op.add_column("token", sa.Column("account", sa.Text(), nullable=True))
    op.add_column("token", sa.Column("expires_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.create_foreign_key(
        op.f("token_tenant_account_fkey"), "token", "account", ["tenant", "account"], ["tenant", "id"]
    )
    op.create_foreign_key(op.f("token_tenant_fkey"), "token", "tenant", ["tenant"], ["id"])
    op.create_table_comment(
        "token",
        "Tokens of services, operators and accounts; the token itself is shown once and never stored.",
        existing_comment="Service tokens; the token itself is shown once and never stored.",
    )
