"""Commands on the test's own stores."""

import os
from pathlib import Path

import pytest

from metering.catalog.tenants import add_tenant
from metering.database import engine_for
from tests.conftest import TENANTS


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a command on the test's own stores, with five administrations registered."""
    engine = engine_for(database_url)
    for tenant in TENANTS:
        add_tenant(engine, tenant)
    engine.dispose()
    return {
        **os.environ, "JAUGE_DATABASE_URL": database_url, "JAUGE_REDIS_URL": redis_url,
        "JAUGE_DATA": str(tmp_path / "unused"), "JAUGE_STREAM_CLAIM_MS": "500",
    }  # fmt: skip
