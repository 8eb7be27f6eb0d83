"""How is something asked of guests, and its jobs followed?

What was accepted is printed with the job's id in the field "job"; after a wait each guest as it is then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lochness.cli.follow import follow
from lochness.cli.output import Format, print_records
from lochness.cli.session import Kind, Session

if TYPE_CHECKING:
    from lochness.model.record import JSONObject


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent for one guest, which people know as `name`: the path and the body."""

    name: str
    path: str
    record: JSONObject | None = None


def carry_out(
    session: Session,
    method: str,
    requests: Sequence[Request],
    *,
    limit_s: float | None,
    is_gone: bool = False,
    **query: str,
) -> None:
    """Send each request, then follow the jobs for up to `limit_s` seconds each, None: do not wait.

    A guest that `is_gone` by then is printed as it was.
    """
    accepted: list[tuple[str, JSONObject, str]] = []

    def send(request: Request) -> None:
        answer = session.client.accept(method, request.path, request.record, **query)
        if limit_s is None:
            print_records([{**answer.guest, "job": answer.job}], session.form)
        accepted.append((request.name, answer.guest, answer.job))

    def finish(name: str, guest: JSONObject, job: str) -> None:
        follow(session, job, name, limit_s=limit_s or 0)
        if not is_gone:
            guest = session.client.record(f"{Kind.GUEST.path}/{guest.get('id')}")
        if session.form is not Format.TABLE or not is_gone:
            print_records([guest], session.form)

    for request in requests:
        session.attempt(send, request)
    if limit_s is not None:
        for each in accepted:
            session.attempt(finish, *each)
