"""How does one request get to the controller and its answer back, within a limit, whatever answers?

Invariants:
1. Every request ends within its limit, also when the other side drips one byte a second or never stops sending.
2. Whatever goes wrong is one of: ValidationError (the URL), UnavailableError (not reached, nothing changed),
   AmbiguousWriteError (a change was sent and no answer came), RefusedError (the controller said no, in its words),
   NotAllowedError (nor does it let us), UnknownCallError (it is too old for that),
   UnexpectedAnswerError (what answered does not speak this API).
3. Proxies of the environment are not asked: the controller is inside the cluster.
4. A change whose answer was lost is asked for once more, with the same Idempotency-Key: it is done once, and the answer
   is the first one's. A controller that restarts meanwhile is waited for, within the limit.
"""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from lochness.defaults import DEFAULT_SERVER
from lochness.errors import (
    AmbiguousWriteError,
    ConfigurationError,
    HTTPCodeError,
    LochnessError,
    UnavailableError,
    ValidationError,
)
from lochness.model.record import JSONObject

Shape = TypeVar("Shape")

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 256 << 20
"""A list of 100,000 guests is about 60 MB."""
KEY_HEADER: Final = "Idempotency-Key"
REPEAT_AGAIN_S: Final = 0.5
"""Between two attempts to reach a controller that has gone with a change's answer."""

#: What OpenSSL says of an answer that is no TLS at all.
_NOT_TLS_REASONS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_METHOD_NOT_ALLOWED: Final = 405
_GATEWAY_TIMEOUT: Final = 504


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


class ApiConnection:
    """The way to the controller at `server` (http or https URL). Not shared between threads.

    `timeout_s` bounds each request as a whole. `token` goes along as "Authorization: Bearer". `ca` is a file of PEM
    certificates that are trusted instead of the system's, "" for those. Raises ValidationError for a server that is no
    URL, ConfigurationError for a CA that cannot be used.
    """

    def __init__(self, server: str, *, token: str, ca: str, timeout_s: float) -> None:
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

    def close(self) -> None:
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        seen: str = "",
    ) -> tuple[bytes, httpx.Headers]:
        """The body and headers of a success. With the tag `seen` the change is only made while the object has it."""
        deadline_s = time.monotonic() + self.timeout_s
        headers = {"If-Match": seen} if seen else {}
        if method != "GET":
            headers[KEY_HEADER] = str(uuid.uuid4())

        def attempt(left_s: float) -> tuple[bytes, httpx.Headers]:
            with self.opened(method, path, query=query, body=body, headers=headers, read_s=left_s) as response:
                content = self.content(response, f"{method} {path}", deadline_s)
            if response.is_success:
                return content, response.headers
            raise self.refusal(response.status_code, content, f"{method} {path}")

        try:
            return attempt(self.timeout_s)
        except AmbiguousWriteError as error:
            lost = error
        except RefusedError as error:
            if error.code != _GATEWAY_TIMEOUT or error.reason != AmbiguousWriteError.reason:
                raise
            lost = AmbiguousWriteError(f"{error.message}: look before repeating it")
        while (left_s := deadline_s - time.monotonic()) > REPEAT_AGAIN_S:
            try:
                return attempt(left_s)
            except UnavailableError:
                # It was not reached this time; what became of the first request is still not known.
                time.sleep(min(REPEAT_AGAIN_S, max(0.0, deadline_s - time.monotonic())))
            except AmbiguousWriteError:
                break
        raise lost

    @contextmanager
    def opened(
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

    def content(self, response: httpx.Response, request: str, deadline_s: float) -> bytes:
        """The whole body, which is neither too large nor too slow."""
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

    def refusal(self, code: int, content: bytes, request: str) -> LochnessError:
        """What an answer that is no success says, as an error."""
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

    def converted(self, shape: type[Shape], words: str, answer: bytes, request: str) -> Shape:
        """The body as what it should be; `words` says that to people."""
        try:
            return msgspec.json.decode(answer, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.not_with(words, answer, request) from error

    def not_with(self, words: str, answer: bytes, request: str) -> UnexpectedAnswerError:
        """The error for a body that is something else."""
        return UnexpectedAnswerError(
            f"{self.server} answered {request} not with {words} but with {_excerpt(answer)}: "
            "is that a Loch Ness controller?"
        )


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
