"""`mm doctor`: whether this machine is fit to run."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import NamedTuple

from packaging.requirements import Requirement

from mmcore import storage
from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.errors import MmError
from mmcore.recipe.execute import absolute_root

app = new_app()
_MIN_FREE_BYTES = 2 * 2**30
_MIN_MEMORY_BYTES = 6 * 2**30
_MIN_SHM_BYTES = 128 * 2**20
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - looked at, never written


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


@app.command()
def doctor(root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> int:
    """Check versions, memory, disk, the storage root and services before something long starts."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _packages,
        _machine,
        lambda: _root(absolute_root(root)),
        _services,
    ]
    findings = [finding for check in checks for finding in check()]
    bad = [finding for finding in findings if not finding.ok]
    if as_json:
        print_json("doctor", {"findings": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else 'BAD'}  {finding.what:<22} {finding.found}")
            if not finding.ok:
                print(f"     {finding.remedy}")
        say("all is well" if not bad else f"{len(bad)} of {len(findings)} checks failed")
    return 1 if bad else 0


def _python() -> Iterator[Finding]:
    ok = (3, 11) <= sys.version_info[:2] < (3, 13)
    yield Finding("python", ok, platform.python_version(), "Use Python 3.11 or 3.12.")


def _packages() -> Iterator[Finding]:
    """Compare what is installed with what this package asks for; an extra may be absent whole."""
    seen = {"mmcore"}
    for requirement in map(Requirement, requires("mmcore") or []):
        extra = "extra" in str(requirement.marker or "")
        if requirement.name in seen or "dev" in str(requirement.marker or ""):
            continue
        seen.add(requirement.name)
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(
                requirement.name,
                extra,
                "not installed" + (" (an extra)" if extra else ""),
                f"pip install '{requirement.name}{requirement.specifier}'",
            )
            continue
        ok = requirement.specifier.contains(found, prereleases=True)
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        yield Finding(requirement.name, ok, found, remedy)


def _machine() -> Iterator[Finding]:
    yield Finding("cores", True, str(os.cpu_count()))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    remedy = "Training on two ranks wants 6 GB; use --until shard for data alone."
    yield Finding("memory", memory >= _MIN_MEMORY_BYTES, f"{memory / 2**30:.1f} GiB", remedy)
    free = shutil.disk_usage(_SHARED_MEMORY).free if os.path.isdir(_SHARED_MEMORY) else 0
    remedy = "Ray keeps its object store there; in a container give it --shm-size=1g."
    yield Finding(_SHARED_MEMORY, free >= _MIN_SHM_BYTES, f"{free / 2**20:.0f} MiB free", remedy)
    gpus = sorted(name for name in os.listdir("/dev") if name.removeprefix("nvidia").isdigit())
    yield Finding("GPUs", True, ", ".join(gpus) or "none; training runs on the CPU with gloo")


def _root(root: str) -> Iterator[Finding]:
    probe = storage.join(root, "state", f"doctor-{os.getpid()}")
    try:
        storage.delete(probe)
        first = storage.create(probe, b"1")
        second = storage.create(probe, b"2")
        storage.delete(probe)
    except MmError as error:
        yield Finding("storage root", False, root, str(error))
        return
    remedy = "This storage lets two writers create one file, so two runs could both commit."
    yield Finding("storage root", first and not second, f"{root}: create-only holds", remedy)
    if storage.is_local(root):
        free = shutil.disk_usage(root).free
        remedy = "Free some room, or choose another root with MM_ROOT."
        yield Finding("disk", free >= _MIN_FREE_BYTES, f"{free / 2**30:.1f} GiB free", remedy)


def _services() -> Iterator[Finding]:
    for name, meaning in (
        ("PREFECT_API_URL", "none set; flows start their own server"),
        ("RAY_ADDRESS", "none set; runs start their own cluster"),
        ("MLFLOW_TRACKING_URI", "none set; models go to mlflow.db below the root"),
    ):
        yield Finding(name, True, os.environ.get(name, meaning))
    tools = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool)]
    yield Finding("corpus fetch", True, ", ".join(tools) or "no apt-get; use `mm corpus make`")
