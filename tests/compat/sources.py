"""Source distributions of peers, whose tests and examples run on ipcq: downloaded once, and kept."""

import subprocess
import sys
import tarfile
from pathlib import Path

#: The directory that keeps them: in the checkout, because parallel workers of the tests have separate /tmp.
PLACE = Path(__file__).parents[2] / ".pytest_cache" / "sources"

#: Timeout of a download, in seconds.
PATIENCE = 100.0


def source(name: str, version: str, digest: str) -> Path:
    """Return the directory of an unpacked source distribution.

    Args:
        name: The name of the distribution.
        version: The exact version.
        digest: The SHA-256 of the archive, in hexadecimal.

    Raises:
        subprocess.CalledProcessError: It cannot be downloaded, or has another digest.
    """
    import fcntl  # only POSIX has it

    place = PLACE / f"{name}-{version}"
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in parallel
        if not place.exists():
            fetch(f"{name}=={version} --hash=sha256:{digest}\n", place)
    return place


def fetch(requirement: str, place: Path) -> None:
    wanted = place.with_suffix(".txt")
    wanted.write_text(requirement)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # Not ":all:", which would compile the build dependencies of a peer.
    name = requirement.partition("==")[0]
    command = [*pip, f"--no-binary={name}", "--require-hashes", "-r", str(wanted), "-d", str(PLACE)]
    subprocess.run(command, check=True, timeout=PATIENCE)
    (archive,) = PLACE.glob(f"{place.name}.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(PLACE / "unpacked", filter="data")
    # In one step, so that an interrupted download starts over.
    (PLACE / "unpacked" / place.name).rename(place)
