"""Where does the demo guest come from? It is built here, within seconds, from two Debian packages.

1. A directory of the cache is complete or does not exist: it is built aside and renamed.
2. Two processes that build at once do not clash: the second waits for the first and takes its image.
3. The same packages and the same sources give the same kernel and initramfs, byte for byte; the directory's name says
   which ones they were, and a change of the sources is a new image.

An image that is there is used as it is: it is not rebuilt because Debian has a newer kernel.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.resources
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lochness.errors import ConfigurationError
from lochness_lab.initramfs import Initramfs, load_order, module_name, unpacked_module
from lochness_lab.kernel import unpacked_kernel
from lochness_lab.processes import require_program
from lochness_lab.waiting import wait_until

KERNEL_PACKAGE = "linux-image-cloud-amd64"
BUSYBOX_PACKAGE = "busybox-static"
#: Loaded with what they need: "first" at every boot, "seldom" when no virtio disk carries the seed (drives on IDE
#: and SCSI), "later" when the guest has said that it is ready.
MODULES = {
    "first": ("virtio_pci", "virtio_blk", "virtio_net", "isofs", "button", "evdev"),
    "seldom": ("ata_piix", "virtio_scsi", "sr_mod", "sd_mod"),
    "later": ("virtio_balloon", "virtio_console", "virtio_rng"),
}
#: The second line leaves out what a guest of a minute does not need: calibrations, self-tests, absent devices.
CMDLINE = (
    "console=ttyS0 quiet panic=-1 "
    "tsc=reliable no_timer_check nokaslr audit=0 mitigations=off cryptomgr.notests 8250.nr_uarts=1 i8042.noaux"
)
#: What a guest of this image needs to boot.
MEMORY_MB = 96
DISK_BYTES = 16 * 1024 * 1024
BUILD_LIMIT_S = 300.0

_DIRECTORIES = (
    *("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "proc", "root", "run", "seed", "sys", "tmp", "www"),
    *("modules", "modules/first", "modules/seldom", "modules/later"),
)

_POWER_BUTTON = b"#!/bin/sh\necho GUEST-POWERBUTTON >/dev/console\nexec /bin/poweroff -f\n"

_UDHCPC = b"""#!/bin/sh
case $1 in bound | renew) ;; *) exit 0 ;; esac
ip address flush dev "$interface"
ip address add "$ip/${mask:-24}" dev "$interface"
[ -z "$router" ] || ip route replace default via "${router%% *}" dev "$interface"
[ "$1" = renew ] || echo "GUEST-IP $ip $(cut -d' ' -f1 /proc/uptime)" >/dev/console
"""


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A built image: absolute paths below `directory`, the kernel's command line, SHA-256 in hex by field name.

    `kernel` starts at once, with a BIOS only; `efi_kernel` is the same one as Debian packs it, which UEFI can start.
    """

    directory: Path
    kernel: Path
    efi_kernel: Path
    initrd: Path
    disk: Path
    cmdline: str
    sha256: Mapping[str, str]


def default_cache() -> Path:
    """$XDG_CACHE_HOME/lochness-lab, else ~/.cache/lochness-lab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lochness-lab"


def guest_image(cache: Path | None = None) -> GuestImage:
    """The image from the cache, built first when it is not there.

    Raises ConfigurationError when a needed program is missing or Debian's packages cannot be had, DeadlineError when
    another process has been building for 300 s.
    """
    cache = cache or default_cache()
    recipe = _recipe()
    if image := _cached(cache, recipe):
        return image
    cache.mkdir(parents=True, exist_ok=True)
    with _only_builder(cache):
        return _cached(cache, recipe) or _build(cache, recipe)


def read_image(directory: Path) -> GuestImage:
    """The image that `directory`/image.json describes."""
    record = json.loads((directory / "image.json").read_text())
    files = {name: directory / record[name] for name in ("kernel", "efi_kernel", "initrd", "disk")}
    return GuestImage(directory=directory, cmdline=record["cmdline"], sha256=record["sha256"], **files)


def _recipe() -> str:
    """A digest of all that decides about the image but the packages: the sources of this package."""
    digest = hashlib.sha256()
    for name in ("guest_image.py", "initramfs.py", "kernel.py", "guest-init.sh"):
        digest.update(importlib.resources.files("lochness_lab").joinpath(name).read_bytes())
    return digest.hexdigest()[:12]


def _cached(cache: Path, recipe: str) -> GuestImage | None:
    complete = sorted(cache.glob(f"image-{recipe}-*/image.json"))
    return read_image(complete[-1].parent) if complete else None


@contextlib.contextmanager
def _only_builder(cache: Path) -> Iterator[None]:
    with (cache / "lock").open("w") as lock:

        def is_ours() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        wait_until(is_ours, limit_s=BUILD_LIMIT_S, what=f"end of another build in {cache}")
        yield


def _build(cache: Path, recipe: str) -> GuestImage:
    packages = cache / "packages"
    packages.mkdir(exist_ok=True)
    kernel_package, busybox_package = _download(packages)
    version = kernel_package.name.split("_")[1].replace("%3a", "-")
    workshop = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
    try:
        image, modules = _kernel_files(kernel_package)
        busybox = _package_files(busybox_package, r"\./bin/busybox")["./bin/busybox"]
        (workshop / "vmlinux").write_bytes(unpacked_kernel(image))
        (workshop / "vmlinuz").write_bytes(image)
        (workshop / "initrd.img").write_bytes(_initramfs(busybox, modules))
        qemu_img = require_program("qemu-img", "qemu-utils")
        _run([qemu_img, "create", "-q", "-f", "qcow2", "disk.qcow2", str(DISK_BYTES)], workshop)
        record = {"kernel": "vmlinux", "efi_kernel": "vmlinuz", "initrd": "initrd.img", "disk": "disk.qcow2"}
        sha256 = {name: hashlib.sha256((workshop / file).read_bytes()).hexdigest() for name, file in record.items()}
        (workshop / "image.json").write_text(json.dumps({**record, "cmdline": CMDLINE, "sha256": sha256}, indent=2))
        workshop.chmod(0o755)
        complete = cache / f"image-{recipe}-{version}"
        workshop.rename(complete)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return read_image(complete)


def _download(packages: Path) -> tuple[Path, Path]:
    """The two package files, fetched into `packages` unless they lie there; apt checks their signatures' digests."""
    require_program("apt-get", "apt")
    kernel = _newest_kernel(packages)
    if kernel is None and os.geteuid() == 0:
        _run(["apt-get", "update", "-qq"], packages, limit_s=BUILD_LIMIT_S)
        kernel = _newest_kernel(packages)
    if kernel is None:
        raise ConfigurationError(f"apt knows no {KERNEL_PACKAGE}: it needs Debian for amd64, and apt-get update")
    names = (kernel, BUSYBOX_PACKAGE)
    # apt would drop its rights to a user that may not write here; the option keeps it from complaining about that.
    _run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *names], packages, limit_s=BUILD_LIMIT_S)
    newest = [max(packages.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime) for name in names]
    return newest[0], newest[1]


def _newest_kernel(packages: Path) -> str | None:
    """The package that the versionless one stands for. None when apt does not know it, as without its lists."""
    try:
        words = _run(["apt-cache", "depends", KERNEL_PACKAGE], packages)
    except ConfigurationError:
        return None
    found = re.search(r"Depends: (linux-image-\S+)", words)
    return found[1] if found else None


def _kernel_files(package: Path) -> tuple[bytes, dict[str, bytes]]:
    """The packed kernel, and every module of the directories that hold a wanted one, by the kernel's names."""
    places = r"\./(usr/)?lib/modules/[^/]+/kernel/(drivers|fs|net/core|lib|crypto)/.*\.ko(\.xz)?"
    files = _package_files(package, rf"\./boot/vmlinuz-.*|{places}")
    image = next(content for path, content in files.items() if path.startswith("./boot/"))
    modules = {module_name(path): unpacked_module(path, content) for path, content in files.items() if ".ko" in path}
    return image, modules


def _package_files(package: Path, pattern: str) -> dict[str, bytes]:
    """The regular files of a Debian package whose path ("./bin/busybox") matches `pattern` as a whole."""
    argv = [require_program("dpkg-deb", "dpkg"), "--fsys-tarfile", str(package)]
    archive = subprocess.run(argv, check=False, capture_output=True, timeout=60)
    if archive.returncode != 0:
        raise ConfigurationError(f"{package} is not a sound package: {archive.stderr.decode(errors='replace').strip()}")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        for member in tar:
            if member.isfile() and re.fullmatch(pattern, member.name) and (content := tar.extractfile(member)):
                files[member.name] = content.read()
    return files


def _initramfs(busybox: bytes, modules: Mapping[str, bytes]) -> bytes:
    archive = Initramfs()
    archive.directory(*_DIRECTORIES)
    archive.character_device("dev/console", 5, 1)
    archive.character_device("dev/null", 1, 3)
    archive.file("bin/busybox", busybox, mode=0o755)
    for applet in _applets(busybox):
        archive.link(f"bin/{applet}", "busybox")
    archive.file("etc/acpi/PWRF/00000080", _POWER_BUTTON, mode=0o755)
    archive.file("etc/udhcpc.sh", _UDHCPC, mode=0o755)
    packed: list[str] = []
    for place, wanted in MODULES.items():
        names = [name for name in load_order(wanted, modules) if name not in packed]
        packed += names
        for number, name in enumerate(names):
            archive.file(f"modules/{place}/{number:02}-{name}.ko", modules[name])
    archive.file("init", importlib.resources.files("lochness_lab").joinpath("guest-init.sh").read_bytes(), mode=0o755)
    return archive.finish()


def _applets(busybox: bytes) -> list[str]:
    """The commands that this busybox offers, asked from itself: it is a program of this machine's architecture."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "busybox"
        program.write_bytes(busybox)
        program.chmod(0o755)
        return [name for name in _run([str(program), "--list"], Path(directory)).split() if name != "busybox"]


def _run(argv: list[str], cwd: Path, *, limit_s: float = 30) -> str:
    command = " ".join(argv)
    try:
        done = subprocess.run(
            argv, check=False, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{command}: {error}") from error
    if done.returncode != 0:
        raise ConfigurationError(f"{command}: status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
