"""How does a guest come to run on this host, and how does it leave without a trace?

1. Nothing is made for a guest that is not bound here: that is read first, under the guest's lock.
2. A create of an active guest is done; what an earlier create left is completed or replaced (plan.decide_leftover).
3. A create that fails removes what it made itself, or says what is left. The directory goes only after the domain.
4. A delete works from any state, also when nothing is there.

Not guaranteed: that the guest boots; the job ends when its domain runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lochness.errors import ConflictError, LochnessError, NotFoundError, UnavailableError
from lochness.identity import GuestID
from lochness_node.agent.guests.disks import make_disk
from lochness_node.agent.guests.host import Host, Progress
from lochness_node.agent.guests.iso import write_seed
from lochness_node.agent.guests.plan import GuestPlan, boot_image, decide_leftover, images_of, plan_guest
from lochness_node.agent.images.decide import CachedImage
from lochness_node.agent.wire import Guest
from lochness_node.agent.wishes import firmware

UEFI_NOT_SUPPORTED: Final = "uefi_not_supported"
KERNEL_NOT_EFI: Final = "kernel_not_efi"
#: What every program for UEFI begins with, a kernel's too; without it the firmware would end in its own shell.
_EFI_MAGIC: Final = b"MZ"


def create_guest(host: Host, guest: Guest, progress: Progress) -> str:
    """Make and start a valid `guest`, answer the closing message.

    Raises NotFoundError (an image is not here), ConflictError (not bound here, foreign_domain, guest_differs),
    ValidationError (a disk smaller than its image), UnavailableError, DeadlineError, DriverError.
    """
    guest_id = GuestID(guest.id)
    with host.images.held(images_of(guest)) as images, host.locked(guest_id):
        revision = host.verified_revision(guest_id)
        domain = host.domain(guest_id)
        if domain is not None and domain.state.is_active:
            return f"guest {guest_id} is {domain.state} already"
        fate = decide_leftover(host.records.remembered(guest_id), guest, has_domain=domain is not None)
        plan = planned(host, guest, images, revision)
        if fate == "replace":
            host.records.remove(guest_id)
        try:
            _make(host, guest, plan, progress)
            return f"guest {guest_id} is running ({plan.spec.domain_type})"
        except BaseException as error:
            left = _undo(host, guest_id, domain_too=domain is None, directory_too=fate == "replace")
            if left and isinstance(error, LochnessError):
                error.message = f"{error.message}; left behind: {left}"
            raise


def delete_guest(host: Host, guest_id: GuestID, progress: Progress) -> str:
    """Remove the guest's domain and files, answer the closing message.

    Raises ConflictError (foreign_domain), UnavailableError, DeadlineError, DriverError; ask again after each.
    """
    with host.locked(guest_id):
        progress("removing the domain")
        has_domain = _undefined(host, guest_id)
        progress("removing the files")
        has_files = host.records.remove(guest_id)
    if has_domain or has_files:
        return f"guest {guest_id} was deleted"
    return f"guest {guest_id} was not here"


def planned(host: Host, guest: Guest, images: Mapping[str, CachedImage], revision: int) -> GuestPlan:
    """`plan_guest` for this host. Raises as that, ConflictError (uefi_not_supported, kernel_not_efi)."""
    if firmware(guest.metadata) == "uefi" and host.domain_type() != "test":
        _require_uefi(host, images.get(boot_image(guest)))
    return plan_guest(
        guest,
        host.records.path(GuestID(guest.id)),
        images,
        binding_revision=revision,
        domain_type=host.domain_type(),
        disk_format=host.disk_format(),
        bridges={nic.network: host.bridge(nic.network) for nic in guest.nics},
    )


def _require_uefi(host: Host, image: CachedImage | None) -> None:
    if "efi" not in host.driver.firmwares():
        raise ConflictError(
            "the guest wants UEFI, and libvirt knows no such firmware on this host; install it (Debian package ovmf)",
            reason=UEFI_NOT_SUPPORTED,
        )
    if image is None or image.boot is None:
        return
    try:
        with Path(image.boot.kernel).open("rb") as kernel:
            is_efi = kernel.read(len(_EFI_MAGIC)) == _EFI_MAGIC
    except OSError as error:
        raise UnavailableError(f"cannot read {image.boot.kernel}: {error.strerror}") from error
    if not is_efi:
        raise ConflictError(
            f"the guest wants UEFI, and the kernel of its image {image.id} is no program for UEFI (a bzImage is one, "
            "an unpacked vmlinux is not)",
            reason=KERNEL_NOT_EFI,
        )


def _make(host: Host, guest: Guest, plan: GuestPlan, progress: Progress) -> None:
    try:
        progress("writing its files")
        host.records.remember(guest)
        for disk in plan.disks:
            progress(f"making {disk.path.name}")
            make_disk(disk)
        write_seed(plan.seed_path, plan.seed)
    except OSError as error:
        raise UnavailableError(f"cannot write in {plan.directory}: {error.strerror}") from error
    progress("defining the domain")
    host.driver.define(plan.spec)
    progress("starting")
    host.start(plan.spec.guest_id)


def _undo(host: Host, guest_id: GuestID, *, domain_too: bool, directory_too: bool) -> str:
    """Remove what a failed create made; answer what could not be removed, "" for nothing."""
    try:
        if domain_too:
            _undefined(host, guest_id)
    except LochnessError as error:
        # A domain that may be there may also run, on these very disks.
        return f"possibly domain {guest_id} ({error.message}) and {host.records.path(guest_id)}"
    try:
        if directory_too:
            host.records.remove(guest_id)
    except LochnessError as error:
        return f"{host.records.path(guest_id)} ({error.message})"
    return ""


def _undefined(host: Host, guest_id: GuestID) -> bool:
    try:
        host.driver.undefine(guest_id)
    except NotFoundError:
        return False
    return True
