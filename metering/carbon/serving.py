"""What a model runs on, from names: kinds of GPU, precisions, and what is taken where the catalogue doesn't say."""

import re
from math import isqrt

from metering.rules.carbon.hardware import GPU_MODELS, GpuModel
from metering.rules.carbon.modelling import BILLION, Serving

BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4, "mxfp4": 4, "nvfp4": 4}
"""Bits of a weight by precision, as the catalogue names it; other precisions are taken for 16 bits."""

DEFAULT_GPU = GPU_MODELS["H100-SXM"]
"""Stands for a kind of GPU that isn't known; bounds are wider then."""
DEFAULT_BITS = 16
GPU_BYTES = 80 * BILLION
"""Memory of a GPU, where the number of GPUs isn't known: it is the least power of two that holds the model and a fifth
more, as EcoLogits 0.11 takes it (`model_required_memory`, `gpu_required_count`)."""
KV_BYTES_OF_A_BILLION = 45_000
"""KV bytes a token of a model of which a token uses 10^9 parameters; they grow with the square root. Of published
configurations with grouped heads at 16 bits: Qwen3 8B 147,456 (127,279 by the rule), 32B 262,144 (254,558), 30B-A3B
98,304 (77,942), 235B-A22B 192,512 (211,069); Llama 3.1 70B 327,680 (376,497)."""

_BITS_IN_NAME = re.compile(r"(?:^|[^0-9])(32|16|8|6|5|4)(?![0-9])")


def find_gpu(name: str | None) -> GpuModel | None:
    """The data sheet of a kind of GPU as people call it ("NVIDIA H100 80GB HBM3", "A100 80 Go"); None: no sheet."""
    words = re.findall(r"[A-Z]+\d*[A-Z]?|\d+", (name or "").upper())
    of_family = [gpu for gpu in GPU_MODELS.values() if gpu.id.split("-")[0].upper() in words]
    return max(of_family, key=lambda gpu: _likeness(gpu, "".join(words).replace("GO", "GB")), default=None)


def _likeness(gpu: GpuModel, wanted: str) -> tuple[int, int]:
    """How many parts of a variant's name are in the wanted one; of equals, the fastest."""
    variant = gpu.id.upper().split("-")[1:]
    return sum(part in wanted for part in variant), gpu.sheet.bandwidth_bytes if "SXM" in variant else 0


def bits_of(precision: str | None) -> int:
    """Bits of a weight by the name of its precision; of a name that says nothing, 16."""
    if precision is None:
        return DEFAULT_BITS
    known = BITS.get(precision.lower())
    said = _BITS_IN_NAME.search(precision)
    return known if known is not None else int(said[1]) if said else DEFAULT_BITS


def weight_bytes_of(params: int, precision: str | None) -> int:
    """Bytes of so many weights."""
    return max(params * bits_of(precision) // 8, 1)


def kv_bytes_of(active_params: int) -> int:
    """KV bytes a token, where nobody says."""
    return max(KV_BYTES_OF_A_BILLION * isqrt(active_params * 10**6 // BILLION) // 1_000, 1)


def gpus_for(weight_bytes: int) -> int:
    """GPUs of a replica, where nobody says."""
    needed = -(-12 * weight_bytes // (10 * GPU_BYTES))
    return 1 << (needed - 1).bit_length()


def serving_of(
    *,
    total_params: int,
    active_params: int | None,
    precision: str | None,
    kv_bytes_per_token: int | None,
    accelerator: str | None,
    accelerators: int | None,
) -> Serving:
    """What a model runs on; what isn't said (None) is taken from what is."""
    active = min(active_params or total_params, total_params)
    weight_bytes = weight_bytes_of(total_params, precision)
    found = find_gpu(accelerator)
    gpu = found or DEFAULT_GPU
    return Serving(
        active_params=active,
        total_params=total_params,
        weight_bytes=weight_bytes,
        kv_bytes_per_token=kv_bytes_per_token or kv_bytes_of(active),
        gpus=accelerators or gpus_for(weight_bytes),
        gpu_model=None if found is None else found.id,
        gpu=gpu.sheet,
        power_limit_mw=gpu.power_limit_mw,
    )
