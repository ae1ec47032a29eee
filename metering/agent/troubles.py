"""Troubles, told in one line when they begin and one when they are over, however long they last."""

import logging
import time

import structlog

log = structlog.get_logger(__name__)

REPEATED_AFTER_S = 3600


class Troubles:
    """What is wrong now."""

    def __init__(self) -> None:
        self._now: set[tuple[str, str]] = set()

    def begin(self, code: str, about: str = "", **fields: str | int) -> None:
        """Tell a trouble, unless it is known. about: which of several things of one kind has it."""
        if (code, about) not in self._now:
            self._now.add((code, about))
            log.warning(code, **({"about": about} if about else {}), **fields)

    def end(self, code: str, about: str = "") -> None:
        """Tell that a trouble is over, if there was one."""
        if (code, about) in self._now:
            self._now.remove((code, about))
            log.info("over", trouble=code, **({"about": about} if about else {}))


class Seldom(logging.Filter):
    """Lets a line of another's log through once an hour: a sender that waits says so at each try."""

    def __init__(self) -> None:
        super().__init__()
        self._told_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line, now_s = record.getMessage(), time.monotonic()
        if now_s - self._told_s.get(line, -REPEATED_AFTER_S) < REPEATED_AFTER_S:
            return False
        self._told_s[line] = now_s
        return True
