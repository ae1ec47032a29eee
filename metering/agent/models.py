"""What drivers call a model of GPU, and what the data sheets call it."""

import re

NAME_LENGTH_MAX = 64

_MAKER = re.compile(r"^(NVIDIA|Tesla|AMD Instinct|Instinct)\s+", re.IGNORECASE)

_MODELS = tuple(
    (re.compile(pattern), model)
    for pattern, model in (
        (r"A10", "A10"),
        (r"A100-SXM4?-40GB", "A100-SXM-40GB"),
        (r"A100-SXM4?-80GB", "A100-SXM-80GB"),
        (r"A100 80GB PCIe", "A100-PCIe-80GB"),
        (r"B200", "B200"),
        (r"GH200( .*)?", "GH200"),
        (r"H100 80GB HBM3", "H100-SXM"),
        (r"H100 NVL", "H100-NVL"),
        (r"H100 PCIe", "H100-PCIe"),
        (r"H200( NVL)?", "H200"),
        (r"L4", "L4"),
        (r"L40S", "L40S"),
        (r"MI300X( .*)?", "MI300X"),
        (r"V100-SXM[23]-\d+GB(-LS)?", "V100-SXM"),
    )
)
"""Names as NVML and amdsmi give them, without the maker; ids are those of the service's data sheets."""


def gpu_model(name: str) -> str | None:
    """The id of a model by its driver's name: `NVIDIA H100 80GB HBM3` is `H100-SXM`; None for no name.

    One without a data sheet keeps its name in the form of one: `NVIDIA RTX 6000 Ada Generation` is
    `RTX-6000-Ada-Generation`.
    """
    bare = name.strip()
    while (shorter := _MAKER.sub("", bare)) != bare:
        bare = shorter
    return next((model for pattern, model in _MODELS if pattern.fullmatch(bare)), as_name(bare))


def as_name(text: str) -> str | None:
    """A text in the form of an opaque name of an event; None where nothing of it is left."""
    return re.sub(r"[^A-Za-z0-9._:/+~=-]+", "-", text).lstrip("._:/+~=-").rstrip("-")[:NAME_LENGTH_MAX] or None
