"""The real LiteLLM proxy, from its wheel in an environment of its own, before a provider of ours."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gateways" / "litellm.md"
PROGRAMS = ROOT / ".venv-litellm" / "bin"
MASTER_KEY = "sk-a-master-key-for-tests-0123456789abcdef"
START_S_MAX = 180  # 7 to 11 s of one core of its own; many times that where others want it too


@dataclass(frozen=True)
class Proxy:
    """Where the proxy is, and where it writes its log."""

    url: str
    log: Path


def environment(**more: str) -> dict[str, str]:
    """What the proxy's processes are started with."""
    return {"PATH": os.environ["PATH"], "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": str(ROOT), **more}


def configuration(models: Sequence[str]) -> dict[str, Any]:
    """What the documentation shows, with more models of the same provider, and none of the proxy's own patience."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    whole: dict[str, Any] = yaml.safe_load(shown)
    (documented,) = whole["model_list"]
    # The provider of the tests tells users apart by `user`, which the proxy passes on if it is told to, and has no
    # API of responses.
    documented["litellm_params"] |= {"allowed_openai_params": ["user"], "use_chat_completions_api": True}
    whole["model_list"] += [
        {"model_name": name, "litellm_params": documented["litellm_params"] | {"model": f"hosted_vllm/{name}"}}
        for name in models
    ]
    whole["router_settings"] = {"num_retries": 0, "disable_cooldowns": True}
    whole["litellm_settings"] |= {"cache": True, "cache_params": {"type": "local", "mode": "default_off"}}
    return whole


@contextmanager
def proxying(folder: Path, models: Sequence[str], variables: dict[str, str]) -> Iterator[Proxy]:
    """The proxy, as long as the block runs."""
    config, log = folder / "config.yaml", folder / "proxy.log"
    config.write_text(yaml.safe_dump(configuration(models)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PROGRAMS / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output,
            env=environment(HOME=str(folder), LITELLM_MASTER_KEY=MASTER_KEY, **variables),
        )  # fmt: skip
    try:
        _wait_until_served(f"http://127.0.0.1:{port}", process, log)
        yield Proxy(f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_served(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S_MAX
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            httpx.get(f"{url}/health/liveliness").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
