"""Source distributions of peers, for the tests that are in them: fetched from the package index once, and kept."""

import subprocess
import sys
import tarfile
from pathlib import Path

#: Where they are kept: in the checkout, because side by side each worker of the tests has a /tmp of its own.
PLACE = Path(__file__).parents[2] / ".pytest_cache" / "sources"

#: Seconds that fetching one may take.
PATIENCE = 100.0


def source(name: str, version: str, digest: str) -> Path:
    """Return the directory of a source distribution, unpacked.

    Args:
        name: Of the distribution.
        version: Exactly this one.
        digest: The archive's SHA-256, in hexadecimal digits.

    Raises:
        subprocess.CalledProcessError: It cannot be fetched, or is another one.
    """
    import fcntl  # which only POSIX has

    place = PLACE / f"{name}-{version}"
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not place.exists():
            fetch(f"{name}=={version} --hash=sha256:{digest}\n", place)
    return place


def fetch(requirement: str, place: Path) -> None:
    wanted = place.with_suffix(".txt")
    wanted.write_text(requirement)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # Not ":all:", which would compile what a peer is built with.
    name = requirement.partition("==")[0]
    command = [*pip, f"--no-binary={name}", "--require-hashes", "-r", str(wanted), "-d", str(PLACE)]
    subprocess.run(command, check=True, timeout=PATIENCE)
    (archive,) = PLACE.glob(f"{place.name}.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(PLACE / "unpacked", filter="data")
    # In one step, so that what was interrupted is begun anew.
    (PLACE / "unpacked" / place.name).rename(place)
