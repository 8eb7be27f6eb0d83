"""lochness apply: make the cluster's networks, subnets, images, flavors, groups and VLANs what a file says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lochness.cli.collection import modify_seen
from lochness.cli.exits import FAILED
from lochness.cli.output import Format, print_lines, print_records
from lochness.cli.session import Kind, Session, identity_of, say
from lochness.cli.whole_files import read_whole
from lochness.errors import LochnessError, NotFoundError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lochness.cli.apply_plan import Change, Observed, Plan
    from lochness.model.record import JSONObject

_FILE_BYTES_MAX: Final = 16 << 20


def apply(
    session: Session,
    file: Annotated[
        Path, typer.Option("--file", "-f", metavar="FILE", help="TOML; '-' is standard input.", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.", show_default=False)
    ] = False,
) -> None:
    """Make networks, subnets, images, flavors, firewall groups and VLANs what a file says; shows the changes first.

    What the file does not name is left alone, and nothing is ever deleted. Done twice, the second time finds nothing to
    do. The form of the file is in docs/cli.md.

    Example: lochness apply -f cluster.toml --dry-run
    """
    from lochness.cli.apply_plan import RECORDS, decide_changes, difference, named
    from lochness.ids import new_id

    wanted = _read(file)
    observed = {kind: session.records(kind) for kind in RECORDS}
    tags_of = _tags_of(session, wanted)
    try:
        plan = decide_changes(wanted, observed, tags_of, new_id)
        tags, fresh = _seen(session, plan)
        if fresh:
            # What is shown and what is then asked for rests on the records that have these tags.
            plan = decide_changes(wanted, _with(observed, fresh), tags_of, new_id)
    except (ValidationError, NotFoundError) as error:
        error.message = f"{file}: {error.message}"
        raise
    if session.form is Format.TABLE:
        print_lines(difference(plan, named(observed, plan)))
    if plan.changes and not dry_run and (yes or _is_agreed(file, plan)):
        _carry_out(session, plan, tags)
    elif session.form is not Format.TABLE:
        print_records([_record(change) for change in plan.changes], session.form)


def _read(file: Path) -> dict[str, Any]:
    import tomllib

    content = read_whole(file, limit_bytes=_FILE_BYTES_MAX, field="file")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ValidationError(f"{file} is not valid TOML: it is not UTF-8", field="file") from error
    except tomllib.TOMLDecodeError as error:
        raise ValidationError(f"{file} is not valid TOML: {error}", field="file") from error


def _tags_of(session: Session, wanted: dict[str, Any]) -> dict[str, list[int]]:
    """The tags of the VLAN groups that the file names and that are there."""
    named = wanted.get("vlangroup")
    found = {}
    for name in named if isinstance(named, dict) else ():
        for record in session.records(Kind.VLANGROUP):
            if (record.get("metadata") or {}).get("name") == name:
                path = f"{Kind.VLANGROUP.path}/{record.get('id')}"
                found[str(record.get("id"))] = [int(tag) for tag in session.client.strings(f"{path}/tags")]
    return found


def _seen(session: Session, plan: Plan) -> tuple[dict[str, str], dict[str, JSONObject]]:
    """The tag, and the record, of each object that is to be changed: by its path, and by its id."""
    tags, fresh = {}, {}
    for change in plan.changes:
        if not change.is_new and change.fields:
            fresh[change.id], tags[change.path] = session.client.seen(change.path)
    return tags, fresh


def _with(observed: Observed, fresh: Mapping[str, JSONObject]) -> Observed:
    return {kind: [fresh.get(identity_of(each), each) for each in records] for kind, records in observed.items()}


def _is_agreed(file: Path, plan: Plan) -> bool:
    if str(file) == "-" or not sys.stdin.isatty():
        raise ValidationError("nobody is there to be asked: say --yes to do it, --dry-run to only look", field="yes")
    sys.stderr.write(f"{len(plan.changes)} changes; do them? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _carry_out(session: Session, plan: Plan, tags: Mapping[str, str]) -> None:
    before = len(session.failures)
    for change in plan.changes:
        session.attempt(_do, session, change, tags.get(change.path, ""))
    failed = len(session.failures) - before
    say(f"{len(plan.changes) - failed} of {len(plan.changes)} changes done")
    if failed:
        session.failures.insert(before, FAILED)


def _do(session: Session, change: Change, tag: str) -> None:
    client = session.client
    try:
        if change.is_new:
            client.create(change.kind.path, change.fields)
        elif change.fields:
            modify_seen(session, change.path, change.fields, tag)
        if change.tags is not None:
            client.set_list(f"{change.path}/tags", change.tags)
    except LochnessError as error:
        error.message = f"{change.kind} {change.name}: {error.message}"
        raise
    if session.form is not Format.TABLE:
        print_records([_record(change)], session.form)


def _record(change: Change) -> dict[str, Any]:
    return {
        "id": change.id,
        "kind": str(change.kind),
        "name": change.name,
        "action": "create" if change.is_new else "modify",
        "fields": change.fields,
        **({"tags": list(change.tags)} if change.tags is not None else {}),
    }
