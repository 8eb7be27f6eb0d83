"""What a record gains by living in a store: where it came from, and at which revision.

Invariants:
1. `save` never overwrites a change it has not seen: a record that changed since it was read is a ConflictError.
2. After a failed call the record in hand is what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from lochness.errors import ConflictError, NotFoundError
from lochness.model.record import Record
from lochness.store.protocol import Key, KeyUnchanged, KeyValue, Put
from lochness.transactions import Transaction

if TYPE_CHECKING:
    from lochness.context import Context


class Stored:
    """Mixed into a record class: binds it to a context and to the revision of its key.

    `KIND` is the field term for messages; `_key` spells the record's key.
    """

    # No annotations here: msgspec would take them for JSON fields of the record.
    KIND = "record"

    @classmethod
    def bind(cls, context: Context, record: Record, revision: int) -> Self:
        """The record as one of `context`, read at its key's mod_revision `revision` (0: not saved yet)."""
        bound: Any = cls.from_fields(record.to_fields())  # type: ignore[attr-defined]  # from Record
        bound.__dict__.update(_context=context, _revision=revision)
        return bound  # type: ignore[no-any-return]  # Record.from_fields answers cls

    @classmethod
    def from_item(cls, context: Context, item: KeyValue) -> Self:
        """The record in a key-value."""
        bound: Any = cls.from_json(item.value)  # type: ignore[attr-defined]  # from Record
        bound.__dict__.update(_context=context, _revision=item.mod_revision)
        return bound  # type: ignore[no-any-return]  # Record.from_json answers cls

    @classmethod
    def key_of(cls, id: str) -> str:
        """The key that holds the record of this id."""
        raise NotImplementedError(cls.__name__)

    @property
    def context(self) -> Context:
        context: Context = self.__dict__["_context"]
        return context

    @property
    def revision(self) -> int:
        """mod_revision of the record's key as last read or written; 0 when it was never saved."""
        revision: int = self.__dict__["_revision"]
        return revision

    @property
    def identity(self) -> str:
        """What stands for the record in its keys."""
        return self.id  # type: ignore[attr-defined, no-any-return]  # a field of every record class

    def refresh(self) -> None:
        """Read the record anew, dropping changes that were not saved. Raises NotFoundError, UnavailableError."""
        item = self.context.store.read(Key(self.key_of(self.identity))).one()
        if item is None:
            raise NotFoundError(self.KIND, self.identity)
        fresh: Any = type(self).from_item(self.context, item)
        self._adopt(fresh, item.mod_revision)

    def save(self) -> None:
        """Write the record.

        Raises ValidationError, ConflictError when it changed (or was created, or deleted) since it was read,
        UnavailableError, AmbiguousWriteError.
        """
        self.validate()  # type: ignore[attr-defined]  # from Record
        self.__dict__["_revision"] = self.commit(self._save_transaction())

    def _save_transaction(self) -> Transaction:
        key = self.key_of(self.identity)
        return Transaction((KeyUnchanged(key, self.revision),), (Put(key, self._stored_value()),))

    def _stored_value(self) -> bytes:
        return self.to_json()  # type: ignore[attr-defined, no-any-return]  # from Record

    def commit(self, transaction: Transaction) -> int:
        """Commit what was decided on this record as it was read; answers the revision. Raises ConflictError."""
        try:
            return transaction.commit(self.context.store)
        except ConflictError as error:
            if self.revision == 0 and self.key_of(self.identity) in error.keys:
                text = f"{self.KIND} {self.identity} exists already"
                raise ConflictError(text, keys=error.keys, reason="already_exists") from error
            raise ConflictError(
                f"{self.KIND} {self.identity} or something it relies on has changed since it was read",
                keys=error.keys,
                reason="changed_meanwhile",
            ) from error

    def _adopt(self, other: Record, revision: int) -> None:
        for name in type(other).__struct_fields__:
            setattr(self, name, getattr(other, name))
        self.__dict__.pop("_unknown", None)
        if other.unknown_fields:
            self.__dict__["_unknown"] = other.unknown_fields
        self.__dict__["_revision"] = revision
