"""lochness fsck: does the store keep its promises, and what mends it where it does not?

In two steps, with a person between them: a report with a plan, and the plan carried out. A repair is done only while
every key it rests on is as the report saw it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lochness import keys
from lochness.cli.etcd_access import DEFAULT_ETCD, CaOption, CertOption, EtcdOption, KeyOption, opened_store
from lochness.cli.exits import FAILED
from lochness.cli.output import Format, print_records
from lochness.cli.session import Session, say
from lochness.cli.whole_files import read_whole
from lochness.errors import AmbiguousWriteError, ConflictError, ValidationError

if TYPE_CHECKING:
    from lochness.store.protocol import Store

_PLAN_BYTES_MAX: Final = 256 << 20

PlanOption = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="Write what can be mended to it.", show_default=False)
]
RepairOption = Annotated[
    Path | None, typer.Option("--repair", metavar="FILE", help="Carry out this plan.", show_default=False)
]


def fsck(
    session: Session,
    plan: PlanOption = None,
    repair: RepairOption = None,
    etcd: EtcdOption = DEFAULT_ETCD,
    etcd_ca: CaOption = "",
    etcd_cert: CertOption = "",
    etcd_key: KeyOption = "",
) -> None:
    """Check every promise over one snapshot of the store; exit status 1 when one is broken.

    With --plan the proposed repairs are written to a file to be read; with --repair such a file is carried out, each
    repair only while the keys it rests on are as they were.

    Example: lochness fsck --plan repairs.json
    """
    if plan is not None and repair is not None:
        raise ValidationError("--plan and --repair exclude each other: read the plan in between", field="plan")
    with opened_store(etcd, etcd_ca, etcd_cert, etcd_key) as store:
        if repair is not None:
            repair_by(session, store, repair)
        else:
            _report(session, store, plan)


def _report(session: Session, store: Store, plan: Path | None) -> None:
    from lochness.invariants import check
    from lochness.repair_plan import repair_plan
    from lochness.store.protocol import Prefix

    reading = store.read(Prefix(keys.ROOT))
    violations = check(reading.ranges[0])
    records = [
        {
            "kind": str(each.kind),
            "text": each.text,
            "repair": each.repair_text or "none: a person must decide",
            "keys": list(each.keys),
        }
        for each in violations
    ]
    print_records(records, Format.JSON if session.form is Format.JSON else Format.TABLE)
    counted = f"{len(reading.ranges[0])} keys at revision {reading.revision}"
    if plan is not None:
        proposed = repair_plan(reading.revision, violations)
        try:
            plan.write_bytes(proposed.to_json())
        except OSError as error:
            raise ValidationError(f"cannot write {plan}: {error.strerror}", field="plan") from error
        say(f"{len(proposed.repairs)} repairs are in {plan}; read it, then: lochness fsck --repair {plan}")
    if violations:
        mendable = sum(each.repair is not None for each in violations)
        say(f"{counted}: {len(violations)} broken promises, {mendable} of them can be mended by a plan")
        session.failures.append(FAILED)
    else:
        say(f"{counted}: every promise is kept")


def repair_by(session: Session, store: Store, file: Path) -> None:
    """Carry out each repair of the plan in `file`; one that fails does not stop the others."""
    from lochness.repair_plan import RepairPlan

    content = read_whole(file, limit_bytes=_PLAN_BYTES_MAX, field="repair")
    done = 0
    repairs = RepairPlan.from_json(content).repairs
    for repair in repairs:
        try:
            repair.transaction().commit(store)
        except ConflictError:
            say(f"left alone, its keys have changed since the plan was made: {repair.repair}")
            session.failures.append(FAILED)
        except AmbiguousWriteError as error:
            say(f"done or not done, ask fsck again: {repair.repair}: {error.message}")
            session.failures.append(FAILED)
        else:
            say(f"done: {repair.repair}")
            done += 1
    say(f"{done} of {len(repairs)} repairs done")
