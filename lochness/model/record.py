"""How a record becomes JSON and comes back: typed, validated, with the fields it does not know kept.

Invariants:
1. JSON fields stand in the order in which the class declares them; unknown ones follow in the order they came in.
2. Decoding, then encoding, loses nothing.
3. Whatever is wrong with an input raises `ValidationError` that names the field; nothing else.

Not guaranteed: that a record that was built in code is valid. `validate` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Annotated, Any, Final, Self, TypeVar

import msgspec

from lochness.errors import ValidationError
from lochness.ids import is_id, parse_id

#: Values of the store and of the APIs are JSON objects.
JSONObject = dict[str, Any]

Metadata = dict[str, str]

R = TypeVar("R", bound=msgspec.Struct)

#: An unsigned quantity. The upper bound is what every JSON reader's signed 64-bit integer holds.
Quantity = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
SmallQuantity = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]

_FIELD_OF_MSGSPEC_ERROR: Final = re.compile(r"^(?P<what>.*?) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)
_FIELD_IN_TEXT: Final = re.compile(r"field `(?P<name>[^`]+)`")


class Record(msgspec.Struct, kw_only=True, dict=True):
    """A JSON object with typed fields. Attributes that are not fields (a leading underscore) never reach the JSON.

    A class with `forbid_unknown_fields`, one of which there are thousands, is decoded in one step where its JSON has no
    unknown fields; it keeps them as every other does. It must not have records in its fields.
    """

    def __post_init__(self) -> None:
        self.normalize()

    def normalize(self) -> None:
        """Bring every field that has several spellings into one. Raises ValidationError naming the field."""

    def validate(self) -> None:
        """Raise ValidationError, naming the first field that makes the record unfit to be saved."""
        self.normalize()

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Decode one JSON object. Raises ValidationError."""
        if cls.__struct_config__.forbid_unknown_fields:
            try:
                record: Self = _decoder(cls).decode(data)
                return record
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # it has fields without a name here, or the other way says what is wrong
        return cls.from_fields(decode_object(data))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Build from decoded JSON fields. Raises ValidationError."""
        names = _json_names(cls)
        unknown = {name: value for name, value in fields.items() if name not in names}
        known = {name: value for name, value in fields.items() if name in names} if unknown else fields
        try:
            record = msgspec.convert(known, cls)
        except msgspec.ValidationError as error:
            raise _translated(error) from error
        if unknown:
            record.__dict__["_unknown"] = unknown
        return record

    @property
    def unknown_fields(self) -> Mapping[str, Any]:
        """Fields that came with the JSON and that this version has no name for."""
        unknown: Mapping[str, Any] = self.__dict__.get("_unknown", {})
        return unknown

    def to_fields(self) -> JSONObject:
        """The JSON object as a dict, known fields first."""
        fields: JSONObject = msgspec.to_builtins(self)
        for name, value in self.unknown_fields.items():
            fields.setdefault(name, value)
        return fields

    def to_json(self) -> bytes:
        """The JSON object, without a newline."""
        if self.unknown_fields:
            return msgspec.json.encode(self.to_fields())
        return msgspec.json.encode(self)

    def with_fields(self, **fields: Any) -> Self:
        """A copy with these fields. They come from code, typed and in their one spelling, and are not checked."""
        copied = copy(self)
        if self.__dict__:
            copied.__dict__.update(self.__dict__)
        for name, value in fields.items():
            setattr(copied, name, value)
        return copied

    def patched(self, changes: Mapping[str, Any]) -> Self:
        """A copy in which exactly the fields named in `changes` have their new values. Raises ValidationError."""
        return type(self).from_fields({**self.to_fields(), **changes})


@cache
def _json_names(cls: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(cls))


@cache
def _decoder(cls: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(cls)


def decode_object(data: bytes | str) -> JSONObject:
    """Decode JSON that must be an object. Raises ValidationError with the position of a syntax error."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValidationError(f"malformed JSON: {error}") from error
    except RecursionError as error:
        raise ValidationError("malformed JSON: nested too deeply") from error
    if not isinstance(value, dict):
        raise ValidationError(f"expected a JSON object, got {_json_type(value)}")
    return value


def _json_type(value: object) -> str:
    return {type(None): "null", list: "an array", str: "a string", bool: "a boolean"}.get(type(value), "a number")


def _translated(error: msgspec.ValidationError) -> ValidationError:
    """msgspec wraps what `normalize` raised, and names a place as a JSON path; both become a field name."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, ValidationError):
            return cause
        cause = cause.__cause__
    text = str(error)
    match = _FIELD_OF_MSGSPEC_ERROR.match(text)
    what, path = (match["what"], match["path"]) if match else (text, "")
    if missing := _FIELD_IN_TEXT.search(what):
        path = f"{path}.{missing['name']}" if path else missing["name"]
    return ValidationError(f"{path}: {what}" if path else what, field=path)


def normalized_id(text: str, field: str) -> str:
    """`text` as an ID in its one spelling; "" stays "". Raises ValidationError naming `field`."""
    return parse_id(text, field=field) if text else ""


def require_id(text: str, field: str) -> None:
    """Raise ValidationError unless `text` is an ID."""
    if not text:
        raise ValidationError(f"{field} is required", field=field)
    if not is_id(text):
        raise ValidationError(f"{field} must be a UUID, got {text!r}", field=field)


def require(condition: bool, message: str, field: str) -> None:
    """Raise ValidationError with `message` unless `condition` holds."""
    if not condition:
        raise ValidationError(message, field=field)
