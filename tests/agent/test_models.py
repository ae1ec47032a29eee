"""Names of GPUs, as drivers give them."""

import pytest

from metering.agent.models import NAME_LENGTH_MAX, as_name, gpu_model
from metering.events.envelope import is_name
from metering.rules.carbon.hardware import GPU_MODELS

KNOWN = {
    "NVIDIA A10": "A10",
    "A100-SXM4-40GB": "A100-SXM-40GB",
    "NVIDIA A100-SXM4-40GB": "A100-SXM-40GB",
    "NVIDIA A100-SXM4-80GB": "A100-SXM-80GB",
    "NVIDIA A100 80GB PCIe": "A100-PCIe-80GB",
    "NVIDIA B200": "B200",
    "NVIDIA GH200 480GB": "GH200",
    "NVIDIA GH200 144G HBM3e": "GH200",
    "NVIDIA H100 80GB HBM3": "H100-SXM",
    "NVIDIA H100 PCIe": "H100-PCIe",
    "NVIDIA H100 NVL": "H100-NVL",
    "NVIDIA H200": "H200",
    "NVIDIA H200 NVL": "H200",
    "NVIDIA L4": "L4",
    "NVIDIA L40S": "L40S",
    "Tesla V100-SXM2-16GB": "V100-SXM",
    "Tesla V100-SXM2-32GB-LS": "V100-SXM",
    "Tesla V100-SXM3-32GB": "V100-SXM",
    "AMD Instinct MI300X": "MI300X",
    "AMD Instinct MI300X OAM": "MI300X",
}


@pytest.mark.parametrize(("name", "model"), KNOWN.items())
def test_a_model_with_a_data_sheet_is_known_by_its_drivers_name(name, model):
    assert gpu_model(name) == model
    assert model in GPU_MODELS


def test_every_data_sheet_can_be_reached():
    assert set(KNOWN.values()) == set(GPU_MODELS)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada-Generation"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA A100-PCIE-40GB", "A100-PCIE-40GB"),
        ("NVIDIA A800-SXM4-80GB", "A800-SXM4-80GB"),
        ("Tesla T4", "T4"),
        ("Tesla V100-PCIE-32GB", "V100-PCIE-32GB"),
        ("NVIDIA B200 Special (engineering)", "B200-Special-engineering"),
        ("  ", None),
        ("", None),
    ],
)
def test_another_model_keeps_its_name_in_the_form_of_one(name, model):
    assert gpu_model(name) == model
    assert model is None or (is_name(model) and model not in GPU_MODELS)


@pytest.mark.parametrize("text", ["-a b@c.d%", "été", "x" * 200, "…", "a\nb"])
def test_any_text_becomes_a_name_or_none(text):
    name = as_name(text)
    assert name is None or (is_name(name) and len(name) <= NAME_LENGTH_MAX)
