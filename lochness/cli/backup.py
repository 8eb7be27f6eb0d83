"""lochness backup, lochness restore: the key space to a file, and back."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lochness import keys
from lochness.cli.etcd_access import DEFAULT_ETCD, CaOption, CertOption, EtcdOption, KeyOption, opened_store
from lochness.cli.exits import FAILED
from lochness.cli.output import shown
from lochness.cli.session import Session, say
from lochness.cli.whole_files import read_whole, write_whole
from lochness.errors import AmbiguousWriteError, ConflictError, LochnessError, ValidationError

if TYPE_CHECKING:
    from lochness.backup import Backup, RestorePlan
    from lochness.store.protocol import Store

_KEYS_SHOWN_MAX: Final = 20
#: As much as etcd holds by default.
_BACKUP_BYTES_MAX: Final = 2 << 30

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="'-' is standard output or input.")]


class RestoreRefusedError(LochnessError):
    """The store is in use, or holds what a restore would take away."""

    reason = "restore_refused"


def backup(
    session: Session,  # noqa: ARG001  # every command has one
    file: FileArgument,
    etcd: EtcdOption = DEFAULT_ETCD,
    etcd_ca: CaOption = "",
    etcd_cert: CertOption = "",
    etcd_key: KeyOption = "",
) -> None:
    """Write the whole key space, at one revision, to a file that only you can read.

    The file appears whole or not at all. Heartbeats and the like, which live under leases, are not in it.

    Example: lochness backup /var/backups/lochness.jsonl
    """
    from lochness.backup import backup_lines
    from lochness.model.job import rfc3339
    from lochness.store.protocol import Prefix

    with opened_store(etcd, etcd_ca, etcd_cert, etcd_key) as store:
        reading = store.read(Prefix(keys.ROOT))
    lines = list(backup_lines(reading, rfc3339(datetime.now(UTC))))
    if str(file) == "-":
        sys.stdout.buffer.writelines(lines)
        sys.stdout.buffer.flush()
    else:
        _write(file, lines)
    say(f"{len(lines) - 2} keys of revision {reading.revision} are in {file}")


def _write(file: Path, lines: Iterable[bytes]) -> None:
    try:
        write_whole(file, lines)  # it holds user data of guests
    except OSError as error:
        raise ValidationError(f"cannot write {file}: {error.strerror}", field="file") from error


def restore(
    session: Session,
    file: FileArgument,
    check: Annotated[bool, typer.Option("--check", help="Say what would change, and change nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also over a store that is in use, or that holds other keys.")
    ] = False,
    etcd: EtcdOption = DEFAULT_ETCD,
    etcd_ca: CaOption = "",
    etcd_cert: CertOption = "",
    etcd_key: KeyOption = "",
) -> None:
    """Make the key space what a backup says. Stop the controllers and the node's daemons first.

    Refused while daemons or controllers are alive, or when keys would be changed or deleted, unless forced. Jobs that
    were unfinished are left out. Afterwards ask lochness fsck.

    Example: lochness restore /var/backups/lochness.jsonl --check
    """
    from lochness.backup import decide_restore, read_backup
    from lochness.store.protocol import Prefix

    saved = read_backup(read_whole(file, limit_bytes=_BACKUP_BYTES_MAX, field="file"))
    with opened_store(etcd, etcd_ca, etcd_cert, etcd_key) as store:
        plan = decide_restore(saved, store.read(Prefix(keys.ROOT)))
        is_sound = _tell(saved, plan)
        if check:
            session.failures += [] if is_sound else [FAILED]
            return
        if not force:
            _refuse_danger(plan)
        restore_by(session, store, plan)


def _tell(saved: Backup, plan: RestorePlan) -> bool:
    """Say what is in the backup and what would change; whether the backup keeps every promise."""
    from lochness.invariants import check

    broken = check(saved.items())
    say(f"a whole backup of {saved.header.created_at}: {len(saved.entries)} keys of revision {saved.header.revision}")
    for violation in broken[:_KEYS_SHOWN_MAX]:
        say(f"the backup itself breaks a promise: {violation.kind}: {violation.text}")
    for verb, names in (("add", plan.added), ("change", plan.changed), ("delete", plan.deleted)):
        say(f"{len(names)} keys to {verb}")
        for name in names[:_KEYS_SHOWN_MAX]:
            sys.stdout.write(f"{verb} {shown(name)}\n")
        if len(names) > _KEYS_SHOWN_MAX:
            sys.stdout.write(f"{verb} {len(names) - _KEYS_SHOWN_MAX} more\n")
    if plan.unfinished:
        say(f"{len(plan.unfinished)} jobs that were unfinished are left out")
    if plan.alive:
        say(f"alive now: {', '.join(plan.alive[:_KEYS_SHOWN_MAX])}")
    return not broken


def _refuse_danger(plan: RestorePlan) -> None:
    if plan.alive:
        raise RestoreRefusedError(
            f"refused: {len(plan.alive)} daemons or controllers are alive; stop them, or say --force"
        )
    if plan.changed or plan.deleted:
        raise RestoreRefusedError(
            f"refused: {len(plan.changed)} keys would change and {len(plan.deleted)} be deleted; say --force"
        )


def restore_by(session: Session, store: Store, plan: RestorePlan) -> None:
    """Carry the plan out, step by step, up to the first that finds the store another."""
    for done, transaction in enumerate(plan.transactions):
        try:
            transaction.commit(store)
        except (ConflictError, AmbiguousWriteError) as error:
            say(f"stopped after {done} of {len(plan.transactions)} steps: {error.message}; run it again to go on")
            session.failures.append(FAILED)
            return
    say("restored; now ask lochness fsck, then start the controllers and the nodes' daemons")
