"""Structured logs: one JSON object a line on standard error, or text for people."""

import logging
import sys
from typing import Literal

import structlog

SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
"""What lines of ours and of libraries go through alike."""
OURS: list[structlog.types.Processor] = [
    structlog.stdlib.filter_by_level,
    *SHARED,
    structlog.processors.format_exc_info,
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]
"""One list however often logs are configured: a logger keeps the one that it has first seen."""


def configure_logs(log_format: Literal["json", "text"], level: Literal["debug", "info", "warning", "error"]) -> None:
    """Send our logs and those of libraries to standard error, with a time in UTC, a level and named fields."""
    last: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if log_format == "text"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=OURS,
        logger_factory=structlog.stdlib.LoggerFactory(),
        # What is below the level costs a call that does nothing.
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("uvicorn.access").disabled = True  # requests are logged once, with their id
    # Every run of a job; every address that is called; every part of a library that is found.
    for chatty in ("apscheduler", "httpx", "alembic.runtime.plugins"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
