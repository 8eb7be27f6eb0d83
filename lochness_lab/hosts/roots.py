"""Where do the hosts' file systems come from? From Debian once, from the packages in dist/ at each of their versions.

1. A root is complete or does not exist: it is built aside and renamed. Its name says what it was made of.
2. Two who build at once do not clash: the second waits and takes the first's.
3. A root with Loch Ness shares the files below /usr with Debian's by hard links: dpkg replaces files, it never writes
   into them. Hosts write to a layer of their own above it, never into a root.
4. Nothing of a root is started while it is made: no init runs there.
5. What makes a root ends with us, however we end.

Older roots with Loch Ness are removed when a newer one is made and nobody has asked for them for an hour, Debian's only
by hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lochness.errors import ConfigurationError, DeadlineError, UnavailableError
from lochness_lab.hosts.commands import run
from lochness_lab.processes import child, die_with_us, require_program
from lochness_lab.waiting import wait_until

#: What a host has of Debian: systemd, the packages that Loch Ness's depend on, etcd, and tools for whoever looks.
DEBIAN: Final = (
    *("systemd", "systemd-sysv", "libpam-systemd", "dbus", "python3", "procps", "less", "iproute2", "nftables"),
    *("iputils-ping", "dnsmasq-base", "libvirt-daemon-system", "libvirt-daemon-driver-qemu", "libvirt-clients"),
    *("qemu-system-x86", "qemu-utils", "etcd-server", "etcd-client"),
)
HYPERVISOR_PACKAGES: Final = ("lochness-common", "lochness-client", "lochness-node")
MANAGEMENT_PACKAGES: Final = ("lochness-common", "lochness-client", "lochness-controller")
BUILD_LIMIT_S: Final = 1800.0
#: A root with Loch Ness is kept for so long after somebody has asked for it.
WANTED_S: Final = 3600.0
_UNWANTED: Final = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")


Tell = Callable[[str], None]


def _tree() -> tuple[str, ...]:
    """What goes in front of a command that gets mounts and processes of its own: they end with it, and it with us."""
    return (*die_with_us(), "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL")


@contextmanager
def packages_built(checkout: Path) -> Iterator[None]:
    """The checkout's packages are made, in its dist/, while the block runs; they are ready after it.

    What the build says goes to our standard error. Raises ConfigurationError when `checkout` is none, UnavailableError
    when they cannot be made, DeadlineError.
    """
    script = checkout / "packaging" / "packages.sh"
    if not script.exists():
        raise ConfigurationError(f"{checkout} is no checkout of Loch Ness: it has no packaging/packages.sh")
    command = [*_tree(), "--mount-proc", str(script)]
    with child(command, stdin=subprocess.DEVNULL, start_new_session=True) as build:
        yield
        try:
            status = build.wait(BUILD_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(f"{script} took over {BUILD_LIMIT_S:g} s") from error
        if status != 0:
            raise UnavailableError(f"{script} ended with status {status}; it says above why")


def both_roots(cache: Path, dist: Path, *, tell: Tell) -> tuple[Path, Path]:
    """The root of a host that carries guests, and that of the host with the controller; made at the same time.

    Raises ConfigurationError, UnavailableError, DeadlineError.
    """
    packages = {
        kind: _package_files(dist, names)
        for kind, names in (("hypervisor", HYPERVISOR_PACKAGES), ("management", MANAGEMENT_PACKAGES))
    }
    debian = debian_root(cache, tell=tell)
    with ThreadPoolExecutor(max_workers=len(packages)) as threads:
        made = [threads.submit(_with_packages, cache, debian, kind, files, tell) for kind, files in packages.items()]
        hypervisor, management = (each.result() for each in made)
    return hypervisor, management


def debian_root(cache: Path, *, tell: Tell) -> Path:
    """A Debian of this machine's release with what the packages depend on. Raises as both_roots."""
    root = cache / f"debian-{debian_release()}-{digest_of(*DEBIAN)}"
    cache.mkdir(parents=True, exist_ok=True)
    with only_builder(cache / "roots.lock"):
        if not root.exists():
            tell(
                f"Debian {debian_release()} for the hosts, {len(DEBIAN)} packages and what they depend on; "
                "once, a minute or two"
            )
            with aside(root) as new:
                bootstrap(new, DEBIAN)
    return root


def bootstrap(root: Path, packages: Sequence[str]) -> None:
    """A Debian of this machine's release, with these packages, in the empty directory `root`. Raises as both_roots."""
    mmdebstrap = require_program("mmdebstrap", "mmdebstrap")
    mirror = run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], limit_s=30).stdout.split()
    if not mirror:
        raise ConfigurationError("apt knows no Debian mirror: apt-get update")
    run(
        [
            *(*_tree(), "--mount-proc", mmdebstrap, "--mode=root"),
            *(f"--dpkgopt=path-exclude={path}" for path in _UNWANTED),
            *("--variant=minbase", "--dpkgopt=force-unsafe-io"),
            *("--aptopt=APT::Install-Recommends false", f"--include={','.join(packages)}"),
            *(debian_release(), str(root), mirror[0]),
        ],
        limit_s=BUILD_LIMIT_S,
    )


def _with_packages(cache: Path, debian: Path, kind: str, packages: Sequence[Path], tell: Tell) -> Path:
    digest = digest_of(debian.name, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in packages))
    root = cache / f"{kind}-{digest}"
    with only_builder(cache / f"{kind}.lock"):
        if not root.exists():
            tell(f"{', '.join(path.name for path in packages)} installed for the {kind} hosts")
            with aside(root) as new:
                _copy(debian, new)
                install(new, packages)
            for older in cache.glob(f"{kind}-*"):
                if older != root and _is_stale(older):
                    shutil.rmtree(older, ignore_errors=True)
        os.utime(root)
    return root


def install(root: Path, packages: Sequence[Path]) -> None:
    """Install package files into a root in which nothing runs. Raises UnavailableError with dpkg's words."""
    within = root / "tmp" / "packages"
    within.mkdir()
    for path in packages:
        shutil.copy(path, within)
    names = [f"/tmp/packages/{path.name}" for path in packages]
    run(
        [
            *(*_tree(), f"--root={root}", "--wd=/", "--mount-proc=/proc"),
            *("env", "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"),
            *("dpkg", "--force-unsafe-io", "--install", *names),
        ],
        limit_s=BUILD_LIMIT_S,
    )
    shutil.rmtree(within)


def _package_files(dist: Path, names: Sequence[str]) -> list[Path]:
    found = []
    for name in names:
        files = sorted(dist.glob(f"{name}_*.deb"))
        if len(files) != 1:
            raise ConfigurationError(f"{dist} holds {len(files)} packages {name}: make packages")
        found += files
    return found


def _copy(source: Path, target: Path) -> None:
    """A copy that may be changed: /usr by links, see 3; the rest file by file."""
    run(["cp", "-a", "--link", f"{source}/usr", str(target)], limit_s=BUILD_LIMIT_S)
    others = [str(path) for path in source.iterdir() if path.name != "usr"]
    run(["cp", "-a", *others, str(target)], limit_s=BUILD_LIMIT_S)


def debian_release() -> str:
    """This machine's codename, as bookworm. Raises ConfigurationError where it is no Debian."""
    words = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    if words.get("ID") != "debian" or "VERSION_CODENAME" not in words:
        name = words.get("PRETTY_NAME", "unknown").strip('"')
        raise ConfigurationError(f"the hosts are Debian, built on Debian with apt; this machine is {name}")
    return words["VERSION_CODENAME"]


def digest_of(*parts: str) -> str:
    """Twelve hex digits for a name in the cache."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _is_stale(root: Path) -> bool:
    """Whether nobody has wanted that root for a while, and no laboratory has hosts on it.

    Another checkout's laboratory may have been given it a moment ago and not have booted yet.
    """
    with contextlib.suppress(FileNotFoundError):
        return time.time() - root.stat().st_mtime > WANTED_S and not _is_in_use(root)
    return False


def _is_in_use(root: Path) -> bool:
    for mounts in Path("/proc").glob("[0-9]*/mounts"):
        try:
            if str(root) in mounts.read_text(errors="replace"):
                return True
        except OSError:
            continue  # it ended, or is none of ours
    return False


@contextmanager
def aside(root: Path) -> Iterator[Path]:
    """A directory to build in, which becomes `root` when the block ends well, and is removed when not."""
    new = root.with_name(f"{root.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o755)
    try:
        yield new
        new.rename(root)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


@contextmanager
def only_builder(lock: Path) -> Iterator[None]:
    """Nobody else builds under the file `lock` while the block runs. Raises DeadlineError after `BUILD_LIMIT_S`."""
    with lock.open("w") as file:

        def is_ours() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        wait_until(is_ours, limit_s=BUILD_LIMIT_S, what=f"end of another build, which holds {lock}")
        yield


def require_root() -> None:
    """Raises ConfigurationError unless we may make namespaces and mounts."""
    if os.geteuid() != 0:
        raise ConfigurationError("the laboratory's hosts need root: sudo make lab")
