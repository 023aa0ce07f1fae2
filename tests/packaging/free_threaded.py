"""Builds a free-threaded CPython from Debian's source package; run by `nox -s free-threaded`.

apt fetches and verifies the source, from the mirror of Debian that this machine uses, whatever release it runs. Only
the directory that is given as the argument is written to, so this needs no root, and deleting it undoes everything.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SOURCE = "python3.13"
#: The release of Debian that has it.
RELEASE = "trixie"
#: Each program that is needed, with its Debian package.
PROGRAMS = {"apt-get": "apt", "gcc": "gcc libc6-dev", "make": "make", "tar": "tar", "xz": "xz-utils"}
#: Headers without which modules that pip or the tests import would be missing, each with its Debian package.
HEADERS = {"ffi.h": "libffi-dev", "openssl/ssl.h": "libssl-dev", "sqlite3.h": "libsqlite3-dev", "zlib.h": "zlib1g-dev"}


def build(home: Path) -> None:
    """Build the interpreter and install it in `home`, unless it is there."""
    complete = home / "complete"  # the last file to be written
    if complete.exists():
        return
    check_prerequisites()
    shutil.rmtree(home, ignore_errors=True)
    work = home / "work"
    work.mkdir(parents=True)
    print(f"building a free-threaded {SOURCE}, which takes minutes; it stays in {home}", flush=True)
    with (home / "log").open("w") as log:

        def run(*command: str) -> None:
            done = subprocess.run(command, cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
            if done.returncode != 0:
                sys.exit(f"{command[0]} failed: see {log.name}")

        archive = fetch(work, run)
        run("tar", "-xf", archive.name, "--strip-components=1")
        # Without what only CPython's own tests need, and without pip: an environment brings its own.
        run("./configure", "--disable-gil", f"--prefix={home}", "--disable-test-modules", "--without-ensurepip")
        run("make", f"-j{os.cpu_count()}")
        run("make", "install")
    shutil.rmtree(work)
    complete.touch()


def check_prerequisites() -> None:
    """End with the command that installs what is missing."""
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if "gcc" not in " ".join(missing):
        missing += [package for header, package in HEADERS.items() if not can_include(header)]
    if missing:
        sys.exit(f"to build a free-threaded Python: sudo apt-get install {' '.join(missing)}")


def can_include(header: str) -> bool:
    command = "gcc", "-E", "-x", "c", "-"
    tried = subprocess.run(command, input=f"#include <{header}>\n", text=True, capture_output=True, check=False)
    return tried.returncode == 0


def fetch(work: Path, run: Callable[..., None]) -> Path:
    """Fetch the source as its authors published it, and return the archive."""
    sources = work / "sources.list"
    sources.write_text(f"deb-src {mirror()} {RELEASE} main\n")
    options = [f"Dir::Etc::SourceList={sources}", "Dir::Etc::SourceParts=-", "APT::Sandbox::User=root"]
    for place in ("State::Lists", "Cache", "Cache::Archives"):
        directory = work / place.lower().replace("::", "-")
        (directory / "partial").mkdir(parents=True)
        options.append(f"Dir::{place}={directory}")
    apt = ["apt-get", "--quiet", *(word for option in options for word in ("-o", option))]
    run(*apt, "update")
    run(*apt, "source", "--download-only", SOURCE)
    (archive,) = work.glob(f"{SOURCE}_*.orig.tar.*z")
    return archive


def mirror() -> str:
    """Return the address of the mirror of Debian from which this machine installs packages."""
    command = "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"
    addresses = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not addresses:
        sys.exit("this machine installs nothing from Debian, or does not know its packages yet: sudo apt-get update")
    return addresses[0]


if __name__ == "__main__":
    os.nice(10)
    build(Path(sys.argv[1]).resolve())
