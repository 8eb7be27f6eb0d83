"""How does a program talk to the controller over HTTP (WIRE.md)?

Invariants:
1. Every call ends within its limit, also when the other side drips one byte a second or never stops sending.
2. Whatever goes wrong is one of: ValidationError (the URL), UnavailableError (not reached, nothing changed),
   AmbiguousWriteError (a change was sent and no answer came), RefusedError (the controller said no, in its words),
   NotAllowedError (nor does it let us), UnknownCallError (it is too old for that),
   UnexpectedAnswerError (what answered does not speak this API).
3. Proxies of the environment are not asked: the controller is inside the cluster.
4. A change whose answer was lost is asked for once more, with the same Idempotency-Key: it is done once, and the answer
   is the first one's. A controller that restarts meanwhile is waited for, within the call's limit.

Not guaranteed: that records have the fields of WIRE.md; a caller reads them with a default.
"""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from lochness.defaults import DEFAULT_SERVER
from lochness.errors import (
    AmbiguousWriteError,
    ConfigurationError,
    DeadlineError,
    HTTPCodeError,
    LochnessError,
    UnavailableError,
    ValidationError,
)
from lochness.model.record import JSONObject
from lochness.sse import parsed

Shape = TypeVar("Shape")

DEFAULT_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 256 << 20
"""A list of 100,000 guests is about 60 MB."""

JOB_HEADER: Final = "X-Guest-Job-ID"
CONSOLE_END_HEADER: Final = "X-Console-End"
JOB_POLL_S: Final = 0.2
"""Between two looks at a job when the controller answers at once instead of waiting."""
JOB_WAIT_S: Final = 2
"""How long the controller is asked to hold back its answer about a job that has not changed."""
OUTAGE_MAX_S: Final = 15.0
"""How long a controller may be away while a job is followed: it restarts within that."""


#: What OpenSSL says of an answer that is no TLS at all.
_NOT_TLS_REASONS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_METHOD_NOT_ALLOWED: Final = 405


KEY_HEADER: Final = "Idempotency-Key"
REPEAT_AGAIN_S: Final = 0.5
"""Between two attempts to reach a controller that has gone with a change's answer."""
_GATEWAY_TIMEOUT: Final = 504


EVENTS_SILENCE_MAX_S: Final = 45.0
"""A stream of events says something every 15 s."""
EVENTS_OUTAGE_MAX_S: Final = 60.0
EVENTS_RETRY_S: Final = 1.0


class RefusedError(HTTPCodeError):
    """The controller answered with a status that is no success.

    `message` is what it said, `reason` its stable word, `code` the HTTP status, `answer` the whole JSON object.
    """

    def __init__(self, code: int, answer: JSONObject, *, request: str) -> None:
        said = answer.get("message")
        super().__init__(expected=200, code=code)
        self.message = said if isinstance(said, str) and said else f"{request} was answered with HTTP status {code}"
        word = answer.get("reason")
        self.reason = word if isinstance(word, str) and word else f"http_{code}"  # type: ignore[misc]  # this one's
        self.answer = answer

    def __str__(self) -> str:
        return self.message


class NotAllowedError(RefusedError):
    """The controller wants a token and got none, does not know the one it got (401), or it may not do that (403)."""

    def __init__(self, code: int, answer: JSONObject, *, request: str, server: str, has_token: bool) -> None:
        super().__init__(code, answer, request=request)
        said = answer.get("message") or f"HTTP status {code}"
        if code == _FORBIDDEN:
            self.message = f"{server} does not allow {request} with this token: {said}"
        elif has_token:
            self.message = f"{server} refuses the token: {said}"
        else:
            self.message = f"{server} wants a token, and none was given: {said}"


class UnknownCallError(RefusedError):
    """The controller speaks this API, but has no such call: it is older than the one who asks."""

    def __init__(self, code: int, answer: JSONObject, *, request: str, server: str) -> None:
        super().__init__(code, answer, request=request)
        self.message = f"{server} does not know {request}: that controller is older than this command"
        self.reason = "unknown_call"  # type: ignore[misc]  # this one's


class UnexpectedAnswerError(LochnessError):
    """What answered is no controller of Loch Ness, or one of another age."""

    reason = "unexpected_answer"


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
        self.server = checked_server(server)
        self.timeout_s = timeout_s
        self._has_token = bool(token)
        # Reading the certificate authorities takes longer than a whole command without TLS.
        has_tls = self.server.startswith("https:")
        self._client = httpx.Client(
            base_url=self.server,
            trust_env=False,
            follow_redirects=False,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            verify=tls_context(ca) if has_tls else False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

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
        answer, headers = self._answer("GET", path)
        return self._converted(JSONObject, "an object", answer, f"GET {path}"), headers.get("ETag", "")

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
        self._answer("PUT", f"{path}/{id}")

    def unlink(self, path: str, id: str) -> None:
        """Take the object `id` out of the collection at `path`; the object itself stays."""
        self._answer("DELETE", f"{path}/{id}")

    def accept(
        self, method: str, path: str, record: Mapping[str, Any] | None = None, **query: str | int | None
    ) -> Accepted:
        """Ask for an asynchronous operation on a guest."""
        body, headers = self._answer(method, path, query=query, body=record)
        guest = self._converted(JSONObject, "a guest", body, f"{method} {path}")
        job = headers.get(JOB_HEADER, "")
        if not job:
            raise UnexpectedAnswerError(f"{self.server} answered {method} {path} without the header {JOB_HEADER}")
        return Accepted(guest, job)

    def console(self, guest_id: str, *, since: int | None = None, limit_bytes: int | None = None) -> tuple[str, int]:
        """The end of a guest's serial console, or what came after the place `since`; and the place behind it."""
        path = f"/guests/{guest_id}/console"
        content, headers = self._answer("GET", path, query={"since": since, "limit_bytes": limit_bytes})
        end = headers.get(CONSOLE_END_HEADER, "")
        if not (end.isascii() and end.isdecimal()):
            raise self._not_with("a console", content, f"GET {path}")
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
        with self._opened("GET", path, query=query, headers=headers, read_s=EVENTS_SILENCE_MAX_S) as response:
            if not response.is_success:
                content = self._content(response, f"GET {path}", time.monotonic() + self.timeout_s)
                raise self._refusal(response.status_code, content, f"GET {path}")
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                content = self._content(response, f"GET {path}", time.monotonic() + self.timeout_s)
                raise self._not_with("a stream of events", content, f"GET {path}")
            for each in parsed(response.iter_lines()):
                data = self._converted(JSONObject, "an event", each.data.encode(), f"GET {path}")
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
        answer, _ = self._answer(method, path, query=query, body=body, seen=seen)
        return self._converted(shape, words, answer, f"{method} {path}")

    def _converted(self, shape: type[Shape], words: str, answer: bytes, request: str) -> Shape:
        try:
            return msgspec.json.decode(answer, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._not_with(words, answer, request) from error

    def _not_with(self, words: str, answer: bytes, request: str) -> UnexpectedAnswerError:
        return UnexpectedAnswerError(
            f"{self.server} answered {request} not with {words} but with {_excerpt(answer)}: "
            "is that a Loch Ness controller?"
        )

    def _answer(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        seen: str = "",
    ) -> tuple[bytes, httpx.Headers]:
        """The body and headers of a success."""
        deadline_s = time.monotonic() + self.timeout_s
        headers = {"If-Match": seen} if seen else {}
        if method != "GET":
            headers[KEY_HEADER] = str(uuid.uuid4())

        def ask(left_s: float) -> tuple[bytes, httpx.Headers]:
            with self._opened(method, path, query=query, body=body, headers=headers, read_s=left_s) as response:
                content = self._content(response, f"{method} {path}", deadline_s)
            if response.is_success:
                return content, response.headers
            raise self._refusal(response.status_code, content, f"{method} {path}")

        try:
            return ask(self.timeout_s)
        except AmbiguousWriteError as error:
            lost = error
        except RefusedError as error:
            if error.code != _GATEWAY_TIMEOUT or error.reason != AmbiguousWriteError.reason:
                raise
            lost = AmbiguousWriteError(f"{error.message}: look before repeating it")
        while (left_s := deadline_s - time.monotonic()) > REPEAT_AGAIN_S:
            try:
                return ask(left_s)
            except UnavailableError:
                # It was not reached this time; what became of the first request is still not known.
                time.sleep(min(REPEAT_AGAIN_S, max(0.0, deadline_s - time.monotonic())))
            except AmbiguousWriteError:
                break
        raise lost

    @contextmanager
    def _opened(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        headers: Mapping[str, str] | None = None,
        read_s: float,
    ) -> Iterator[httpx.Response]:
        """The answer, its body yet to be read. What goes wrong, also while it is read, is an error of ours."""
        request = f"{method} {path}"
        try:
            with self._client.stream(
                method,
                path,
                params={name: str(value) for name, value in (query or {}).items() if value is not None},
                content=msgspec.json.encode(body) if body is not None else None,
                headers={**(headers or {}), **({"Content-Type": "application/json"} if body is not None else {})},
                timeout=httpx.Timeout(read_s, connect=min(CONNECT_TIMEOUT_S, read_s)),
            ) as response:
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise UnavailableError(f"{self.server} is not reached: {_cause(error)}") from error
        except httpx.TimeoutException as error:
            raise self._unanswered(method, request, f"no answer within {read_s:g} s") from error
        except httpx.RemoteProtocolError as error:
            raise self._unanswered(method, request, f"not an HTTP answer: {_cause(error)}") from error
        except httpx.HTTPError as error:
            raise self._unanswered(method, request, _cause(error)) from error
        except httpx.InvalidURL as error:
            raise ValidationError(f"not a path of the API: {path!r}", field="path") from error

    def _content(self, response: httpx.Response, request: str, deadline_s: float) -> bytes:
        pieces: list[bytes] = []
        size = 0
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > ANSWER_BYTES_MAX:
                raise UnexpectedAnswerError(f"{self.server} answered {request} with over {ANSWER_BYTES_MAX >> 20} MB")
            if time.monotonic() > deadline_s:
                raise UnexpectedAnswerError(
                    f"{self.server} was not done answering {request} after {self.timeout_s:g} s"
                )
        return b"".join(pieces)

    def _unanswered(self, method: str, request: str, why: str) -> LochnessError:
        if method == "GET":
            return UnavailableError(f"{self.server} does not answer {request}: {why}")
        return AmbiguousWriteError(
            f"{self.server} did not answer {request} ({why}): it may have been done; look before repeating it"
        )

    def _refusal(self, code: int, content: bytes, request: str) -> LochnessError:
        try:
            answer = msgspec.json.decode(content, type=JSONObject)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return UnexpectedAnswerError(
                f"{self.server} answered {request} with HTTP status {code} and {_excerpt(content)}: "
                "is that a Loch Ness controller?"
            )
        if code in (_UNAUTHORIZED, _FORBIDDEN):
            return NotAllowedError(code, answer, request=request, server=self.server, has_token=self._has_token)
        # Of an object that does not exist the controller tells the kind, of a path only that it has none.
        if code == _METHOD_NOT_ALLOWED or (code == _NOT_FOUND and "kind" not in answer and "reason" in answer):
            return UnknownCallError(code, answer, request=request, server=self.server)
        return RefusedError(code, answer, request=request)


def checked_server(text: str) -> str:
    """`text`, the controller's URL, without a slash at its end. Raises ValidationError when it is none."""
    try:
        parts = urlsplit(text.strip())
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        has_more = parts.username is not None or bool(parts.query or parts.fragment)
        httpx.URL(text.strip())
    except (ValueError, httpx.InvalidURL):
        is_url = has_more = False
    if not is_url or any(letter.isspace() for letter in text.strip()):
        raise ValidationError(f"the server must be a URL like {DEFAULT_SERVER}, got {text!r}", field="server")
    if has_more:
        # Not repeated: there may be a password in it.
        raise ValidationError("the server's URL can have no user, password, query or fragment", field="server")
    return text.strip().rstrip("/")


def tls_context(ca: str) -> ssl.SSLContext:
    """What trusts the certificates in the file `ca`, "" for the system's. Raises ConfigurationError."""
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:  # ssl's own errors are of this kind too
        why = error.strerror if not isinstance(error, ssl.SSLError) else "there is no PEM certificate in it"
        raise ConfigurationError(f"cannot use the CA file {ca}: {why}") from error


def _cause(error: Exception) -> str:
    """The system's own words where there are some: "Connection refused" instead of "[Errno 111] ..."."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {inner.verify_message or inner.reason}"
        if isinstance(inner, ssl.SSLError) and inner.reason in _NOT_TLS_REASONS:
            return "it does not speak TLS; is it http://?"
        if isinstance(inner, ssl.SSLError):
            return f"TLS failed: {(inner.reason or str(inner)).lower().replace('_', ' ')}"
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror.lower()
        inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__


def _excerpt(content: bytes) -> str:
    if not content:
        return "nothing"
    text = content[:60].decode(errors="replace")
    return repr(text) + ("..." if len(content) > len(text) else "")
