"""What drivers and exporters say, as samples."""

import subprocess
import sys
from pathlib import Path

import pytest

from metering.agent.dcgm import ENERGY_MJ, POWER_LIMIT_W, POWER_W, DcgmExporter, parse
from metering.agent.nvml import LocalGpus, driver_version, find_devices
from metering.agent.troubles import Troubles
from tests.agent.doubles import Card, dcgm_page, exporting, gpus_of

ROOT = Path(__file__).parents[2]


def test_a_driver_is_read_in_whole_millijoules_and_milliwatts():
    cards = [Card(), Card(uuid="GPU-2", name="NVIDIA L40S", energy_mj=2**53 - 1, power_w=71.0, limit_w=350.0)]
    first, second = LocalGpus(Troubles(), lambda: gpus_of(*cards)).read()
    assert (first.uuid, first.place, first.model) == (cards[0].uuid, 0, "H100-SXM")
    assert (first.energy_mj, first.power_mw, first.power_limit_mw) == (1_000_000, 412_345, 700_000)
    assert (second.place, second.model, second.energy_mj) == (1, "L40S", 2**53 - 1)


def test_what_a_driver_does_not_offer_is_unknown_and_not_zero():
    (one,) = LocalGpus(Troubles(), lambda: gpus_of(Card(energy_mj=None, limit_w=None))).read()
    assert (one.energy_mj, one.power_mw, one.power_limit_mw) == (None, 412_345, None)
    (one,) = LocalGpus(Troubles(), lambda: gpus_of(Card(power_w=None))).read()
    assert (one.energy_mj, one.power_mw) == (1_000_000, None)


def test_a_gpu_that_is_lost_leaves_the_others_and_is_told_once(told):
    cards = [Card(uuid="GPU-a"), Card(uuid="GPU-b")]
    looks = 0

    def find():
        nonlocal looks
        looks += 1
        return [] if cards[0].is_lost else gpus_of(*cards)

    gpus = LocalGpus(Troubles(), find)
    cards[0].is_lost = False
    assert len(gpus.read()) == 2
    cards[0].is_lost = True
    for _ in range(3):
        assert [one.uuid for one in gpus.read()] == ["GPU-b"]
    assert told == ["gpu_unreadable"]
    cards[0].is_lost = False
    assert len(gpus.read()) == 2
    assert told == ["gpu_unreadable", "gpu_unreadable over"]
    assert looks == 4


def test_a_driver_that_is_loaded_later_is_found():
    cards: list[Card] = []
    gpus = LocalGpus(Troubles(), lambda: gpus_of(*cards))
    assert gpus.read() == []
    cards.append(Card())
    assert len(gpus.read()) == 1


def test_a_machine_without_gpu_is_looked_through_without_noise():
    code = "from metering.agent.nvml import find_devices; print(len(find_devices()), len(find_devices()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == ([str(len(find_devices()))] * 2, "")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n", "535.129.03"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65  Release Build\nGCC version: 12.3.0",
            "580.65",
        ),
        ("", "0"),
    ],
)
def test_the_version_of_the_driver_is_known(tmp_path, text, version):
    (tmp_path / "version").write_text(text)
    assert driver_version(tmp_path / "version") == version
    assert driver_version(tmp_path / "absent") == "0"


def test_an_exporter_is_read_for_several_gpus():
    page = dcgm_page(
        (ENERGY_MJ, "0", 15_152_422_938), (POWER_W, "0", 68.244), (POWER_LIMIT_W, "0", 700),
        (ENERGY_MJ, "1", 7), (POWER_W, "1", 0), ("DCGM_FI_DEV_GPU_UTIL", "2", 99),
    )  # fmt: skip
    first, second = parse(page, is_local=False)
    assert (first.uuid, first.place, first.model, first.node, first.driver) == (
        "GPU-0", 0, "H100-SXM", "gpu-node-7", "535.129.03",
    )  # fmt: skip
    assert (first.energy_mj, first.power_mw, first.power_limit_mw) == (15_152_422_938, 68_244, 700_000)
    assert (second.energy_mj, second.power_mw, second.power_limit_mw) == (7, 0, None)


def test_a_metric_that_is_missing_or_no_number_is_unknown():
    (one,) = parse(dcgm_page((POWER_W, "0", 68.244)), is_local=True)
    assert (one.energy_mj, one.power_mw, one.node) == (None, 68_244, None)
    (one,) = parse(dcgm_page((POWER_W, "0", float("nan")), (ENERGY_MJ, "0", 5)), is_local=True)
    assert (one.energy_mj, one.power_mw) == (5, None)
    assert list(parse(dcgm_page((ENERGY_MJ, "0", 5), UUID=""), is_local=True)) == []
    assert list(parse("", is_local=True)) == []


def test_instances_and_containers_of_one_gpu_are_one_counter():
    """As dcgm-exporter 3.1 to 4.8 write them: the counter of the GPU, again for each."""
    whole = dcgm_page((ENERGY_MJ, "0", 257_858_316))
    page = whole + "".join(
        dcgm_page((ENERGY_MJ, "0", 257_858_316 + at), GPU_I_PROFILE="2g.20gb", GPU_I_ID=str(at), pod=f"p-{at}")
        for at in (3, 5)
    )
    (one,) = parse(page, is_local=True)
    assert one.energy_mj == 257_858_321


def test_an_exporter_that_is_away_or_talks_nonsense_is_told_once(told):
    with exporting() as exporter:
        source = DcgmExporter(exporter.url, Troubles())
        assert source.is_local
        exporter.page = dcgm_page((ENERGY_MJ, "0", 5))
        assert len(source.read()) == 1
        exporter.status = 503
        assert source.read() == source.read() == []
        exporter.status, exporter.page = 200, "<html>not this</html> {"
        assert source.read() == []
        exporter.page = dcgm_page((ENERGY_MJ, "0", 6))
        assert len(source.read()) == 1
    assert source.read() == []
    assert told == ["dcgm_unreadable", "dcgm_unreadable over", "dcgm_unreadable"]


@pytest.mark.parametrize(("url", "is_local"), [("http://localhost:9400/metrics", True), ("http://[::1]:9400/", True),
                                               ("http://gpu-node-7:9400/metrics", False)])  # fmt: skip
def test_an_exporter_on_the_loopback_is_this_machines(url, is_local):
    assert DcgmExporter(url, Troubles()).is_local == is_local


@pytest.mark.parametrize("url", ["127.0.0.1:9400/metrics", "file:///etc/passwd", "http://", "http://host:port/metrics"])
def test_what_is_no_address_of_an_exporter_is_refused_at_the_start(url):
    with pytest.raises(ValueError, match=r"http://127|[Pp]ort"):
        DcgmExporter(url, Troubles())
