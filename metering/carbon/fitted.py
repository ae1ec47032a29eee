"""The coefficients that are shipped: the committed result of `jauge carbon fit`."""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from metering.rules.carbon.modelling import Fit

FILE = "coefficients.json"
SOURCE = (
    "ML.ENERGY benchmark v3 (Chung et al. 2026, arXiv:2601.22076), ml-energy/leaderboard at 0cd52dab,"
    " public/data/tasks/*.json; rows of Qwen, nvidia and deepseek-ai"
)


@cache
def shipped_fit() -> Fit:
    """The fit that estimates use."""
    return msgspec.convert(shipped()["fit"], Fit)


def shipped() -> dict[str, Any]:
    """What is committed: where it comes from, how good it is, and the fit."""
    document: dict[str, Any] = msgspec.json.decode(files(__package__).joinpath(FILE).read_bytes())
    return document


def file_of(result: Any) -> bytes:
    """The file of a result of fitting."""
    return msgspec.json.format(msgspec.json.encode({"source": SOURCE, **msgspec.to_builtins(result)}), indent=2) + b"\n"
