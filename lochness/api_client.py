"""What can a program ask of the controller over HTTP (WIRE.md)? One method for each kind of call.

Every call ends within its limit and goes wrong as `api_connection` says, which does the asking.

Not guaranteed: that records have the fields of WIRE.md; a caller reads them with a default.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from lochness.api_connection import ApiConnection, Shape, UnexpectedAnswerError
from lochness.defaults import DEFAULT_SERVER
from lochness.errors import DeadlineError, UnavailableError
from lochness.model.record import JSONObject
from lochness.sse import parsed

DEFAULT_TIMEOUT_S: Final = 30.0
JOB_HEADER: Final = "X-Guest-Job-ID"
CONSOLE_END_HEADER: Final = "X-Console-End"
JOB_POLL_S: Final = 0.2
"""Between two looks at a job when the controller answers at once instead of waiting."""
JOB_WAIT_S: Final = 2
"""How long the controller is asked to hold back its answer about a job that has not changed."""
OUTAGE_MAX_S: Final = 15.0
"""How long a controller may be away while a job is followed: it restarts within that."""
EVENTS_SILENCE_MAX_S: Final = 45.0
"""A stream of events says something every 15 s."""
EVENTS_OUTAGE_MAX_S: Final = 60.0
EVENTS_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """An asynchronous call was accepted: the guest as it is now, and the id of the job that does the work."""

    guest: JSONObject
    job: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something of the stream: its name (a kind, or "ready", "alive"), what it says, the id to resume from, or ""."""

    name: str
    data: JSONObject
    id: str


class ApiClient:
    """A connection to the controller at `server` (http or https URL). A context manager; not shared between threads.

    `timeout_s` bounds each call as a whole. `token` goes along as "Authorization: Bearer". `ca` is a file of PEM
    certificates that are trusted instead of the system's, "" for those. Raises ValidationError for a server that is no
    URL, ConfigurationError for a CA that cannot be used.
    """

    def __init__(
        self, server: str = DEFAULT_SERVER, *, token: str = "", ca: str = "", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self._connection = ApiConnection(server, token=token, ca=ca, timeout_s=timeout_s)

    @property
    def server(self) -> str:
        return self._connection.server

    @property
    def timeout_s(self) -> float:
        return self._connection.timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def records(self, path: str, **query: str | int | None) -> list[JSONObject]:
        """GET a list of objects."""
        return self._shaped(list[JSONObject], "a list of objects", "GET", path, query=query)

    def strings(self, path: str) -> list[str]:
        """GET a list of ids or tags."""
        found = self._shaped(list[str | int], "a list of ids", "GET", path)
        return [str(each) for each in found]

    def set_list(self, path: str, words: Sequence[str | int]) -> list[str]:
        """POST a list of ids or tags that takes the place of the one there, and get it back."""
        found = self._shaped(list[str | int], "a list of ids", "POST", path, body=words)
        return [str(each) for each in found]

    def settings(self, path: str, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """GET an object of strings, or PATCH it with `changes` and get the whole back."""
        method = "GET" if changes is None else "PATCH"
        return self._shaped(dict[str, str], "an object of strings", method, path, body=changes)

    def remaining(self, path: str) -> dict[str, str]:
        """DELETE one member of an object of strings and get the rest."""
        return self._shaped(dict[str, str], "an object of strings", "DELETE", path)

    def record(self, path: str, **query: str | int | None) -> JSONObject:
        """GET one object."""
        return self._shaped(JSONObject, "an object", "GET", path, query=query)

    def seen(self, path: str) -> tuple[JSONObject, str]:
        """GET one object, and the tag of what it is now, "" from a controller that has none."""
        answer, headers = self._connection.ask("GET", path)
        return self._connection.converted(JSONObject, "an object", answer, f"GET {path}"), headers.get("ETag", "")

    def create(self, path: str, record: Mapping[str, Any]) -> JSONObject:
        """POST a new object to a collection and get it as stored."""
        return self._shaped(JSONObject, "an object", "POST", path, body=record)

    def modify(self, path: str, changes: Mapping[str, Any], *, seen: str = "") -> JSONObject:
        """PATCH an object: only the fields in `changes`. With the tag `seen`, only while it is as it was then."""
        return self._shaped(JSONObject, "an object", "PATCH", path, body=changes, seen=seen)

    def delete(self, path: str) -> JSONObject:
        """DELETE an object and get what it was."""
        return self._shaped(JSONObject, "an object", "DELETE", path)

    def link(self, path: str, id: str) -> None:
        """Put the object `id` into the collection at `path`, such as a network's subnets."""
        self._connection.ask("PUT", f"{path}/{id}")

    def unlink(self, path: str, id: str) -> None:
        """Take the object `id` out of the collection at `path`; the object itself stays."""
        self._connection.ask("DELETE", f"{path}/{id}")

    def accept(
        self, method: str, path: str, record: Mapping[str, Any] | None = None, **query: str | int | None
    ) -> Accepted:
        """Ask for an asynchronous operation on a guest."""
        body, headers = self._connection.ask(method, path, query=query, body=record)
        guest = self._connection.converted(JSONObject, "a guest", body, f"{method} {path}")
        job = headers.get(JOB_HEADER, "")
        if not job:
            raise UnexpectedAnswerError(f"{self.server} answered {method} {path} without the header {JOB_HEADER}")
        return Accepted(guest, job)

    def console(self, guest_id: str, *, since: int | None = None, limit_bytes: int | None = None) -> tuple[str, int]:
        """The end of a guest's serial console, or what came after the place `since`; and the place behind it."""
        path = f"/guests/{guest_id}/console"
        content, headers = self._connection.ask("GET", path, query={"since": since, "limit_bytes": limit_bytes})
        end = headers.get(CONSOLE_END_HEADER, "")
        if not (end.isascii() and end.isdecimal()):
            raise self._connection.not_with("a console", content, f"GET {path}")
        return content.decode(errors="replace"), int(end)

    def cancel_job(self, id: str) -> JSONObject:
        """Ask for a job's end before its time; the job as it is now."""
        return self._shaped(JSONObject, "an object", "POST", f"/jobs/{id}/cancel")

    def events(self, *, since: int | None, kinds: str, is_following: bool) -> Generator[Event, None, None]:
        """Yield what changes, as it changes, and the signals between; from now on, or after the revision `since`.

        A controller that goes away is waited for up to 60 s at a time, and the stream resumed. Not `is_following`: the
        end of the stream is an UnavailableError at once.
        """
        last_id = ""
        heard_s = time.monotonic()
        while True:
            try:
                query = {"kind": kinds or None, "since": since}
                for event in self._event_stream(query, {"Last-Event-ID": last_id} if last_id else {}):
                    heard_s = time.monotonic()
                    last_id = event.id or last_id
                    yield event
                why: UnavailableError | None = None
            except UnavailableError as error:
                why = error
            if not last_id or not is_following or time.monotonic() - heard_s > EVENTS_OUTAGE_MAX_S:
                raise why or UnavailableError(f"{self.server} ended the stream of events")
            time.sleep(EVENTS_RETRY_S)

    def _event_stream(self, query: Mapping[str, Any], headers: Mapping[str, str]) -> Iterator[Event]:
        """One connection's events."""
        path = "/events"
        with self._connection.opened(
            "GET", path, query=query, headers=headers, read_s=EVENTS_SILENCE_MAX_S
        ) as response:
            if not response.is_success:
                content = self._connection.content(response, f"GET {path}", time.monotonic() + self.timeout_s)
                raise self._connection.refusal(response.status_code, content, f"GET {path}")
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                content = self._connection.content(response, f"GET {path}", time.monotonic() + self.timeout_s)
                raise self._connection.not_with("a stream of events", content, f"GET {path}")
            for each in parsed(response.iter_lines()):
                data = self._connection.converted(JSONObject, "an event", each.data.encode(), f"GET {path}")
                yield Event(each.name, data, each.id)

    def follow_job(self, id: str, *, limit_s: float) -> Iterator[JSONObject]:
        """Yield the job each time it has changed; the last one yielded is finished (status done or error).

        A controller that has answered once and then is away for up to 15 s is waited for. Raises DeadlineError when
        the job is not finished after `limit_s` seconds.
        """
        deadline_s = time.monotonic() + limit_s
        answered_s = time.monotonic()
        last: JSONObject = {}
        while True:
            started_s = time.monotonic()
            left_s = max(0.0, deadline_s - started_s)
            try:
                # The first answer at once, the next ones when there is something new.
                job = self.record(f"/jobs/{id}", wait_s=min(JOB_WAIT_S, int(left_s)) if last else None)
                answered_s = time.monotonic()
            except UnavailableError:
                if not last or time.monotonic() - answered_s > OUTAGE_MAX_S:
                    raise
                job = last
            if job != last:
                yield job
                last = job
            if job.get("status") in ("done", "error"):
                return
            if time.monotonic() >= deadline_s:
                raise DeadlineError(f"job {id} has not finished within {limit_s:g} s", limit_s=limit_s, job=id)
            time.sleep(max(0.0, min(JOB_POLL_S - (time.monotonic() - started_s), deadline_s - time.monotonic())))

    def _shaped(
        self,
        shape: type[Shape],
        words: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        seen: str = "",
    ) -> Shape:
        answer, _ = self._connection.ask(method, path, query=query, body=body, seen=seen)
        return self._connection.converted(shape, words, answer, f"{method} {path}")
