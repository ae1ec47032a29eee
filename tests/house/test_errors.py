"""Errors of Jauge go from one process to another whole."""

import pickle

from metering.errors import JaugeError, Unavailable


def test_an_error_is_the_same_in_another_process() -> None:
    error = Unavailable("counters_unavailable", "The counters are being built.", field="tenant", retry_after_s=3)
    copy: JaugeError = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.problem(), copy.retry_after_s) == (
        Unavailable,
        "The counters are being built.",
        error.problem(),
        3,
    )
