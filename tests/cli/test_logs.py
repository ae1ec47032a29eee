"""Logs as commands configure them."""

import structlog

from metering.logs import configure_logs


def test_a_logger_that_was_used_before_follows_what_is_configured_later() -> None:
    configure_logs("json", "info")
    log = structlog.get_logger(__name__)
    log.info("before")
    configure_logs("json", "info")
    with structlog.testing.capture_logs() as lines:
        log.info("after")
    assert [line["event"] for line in lines] == ["after"]
