"""Builds a free-threaded CPython from Debian's source package; run by `nox -s free-threaded`.

apt downloads and verifies the source from the Debian mirror that this machine uses, for any release of Debian. The
program writes only to the directory that its argument names. So it does not need root, and deleting the directory
undoes everything.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SOURCE = "python3.13"
#: The release of Debian that has this source.
RELEASE = "trixie"
#: Each program that is needed, with its Debian package.
PROGRAMS = {"apt-get": "apt", "gcc": "gcc libc6-dev", "make": "make", "tar": "tar", "xz": "xz-utils"}
#: Headers that are needed to build the modules that pip and the tests import, each with its Debian package.
HEADERS = {"ffi.h": "libffi-dev", "openssl/ssl.h": "libssl-dev", "sqlite3.h": "libsqlite3-dev", "zlib.h": "zlib1g-dev"}


def build(home: Path) -> None:
    """Build the interpreter and install it in `home`, unless that was done before."""
    complete = home / "complete"  # written last
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
        # Without the modules that only CPython's own tests need, and without pip, which each environment has.
        run("./configure", "--disable-gil", f"--prefix={home}", "--disable-test-modules", "--without-ensurepip")
        run("make", f"-j{os.cpu_count()}")
        run("make", "install")
    shutil.rmtree(work)
    complete.touch()


def check_prerequisites() -> None:
    """Exit with the command that installs what is missing."""
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
    """Download the source as its authors published it, and return the archive."""
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
    """Return the address of the Debian mirror from which this machine installs packages."""
    command = "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"
    addresses = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not addresses:
        sys.exit("this machine installs nothing from Debian, or does not know its packages yet: sudo apt-get update")
    return addresses[0]


if __name__ == "__main__":
    os.nice(10)
    build(Path(sys.argv[1]).resolve())
