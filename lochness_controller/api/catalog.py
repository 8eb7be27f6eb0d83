"""Flavors, images and firewall groups: /flavors, /images and /fwgroups."""

from __future__ import annotations

from typing import Any

from litestar import Router

from lochness.context import Context
from lochness.model.flavor import FlavorRecord
from lochness.model.fwgroup import FWGroupRecord
from lochness.model.image import ImageRecord
from lochness_controller.api.records import Collection, change_and_save, collection_router, create_from


def routers() -> list[Router]:
    """The routes of all."""
    return [collection_router(each) for each in (_FLAVORS, _IMAGES, _FWGROUPS)]


def _destroy(entity: Any) -> None:
    entity.destroy()


_FLAVORS: Collection[Any] = Collection(
    path="/flavors",
    record=FlavorRecord,
    each=Context.flavors,
    fetch=Context.flavor,
    create=lambda context, fields: create_from(context.new_flavor(), fields),
    change=change_and_save,
    remove=_destroy,
)

_IMAGES: Collection[Any] = Collection(
    path="/images",
    record=ImageRecord,
    each=Context.images,
    fetch=Context.image,
    create=lambda context, fields: create_from(context.new_image(), fields),
    change=change_and_save,
    remove=_destroy,
)

_FWGROUPS: Collection[Any] = Collection(
    path="/fwgroups",
    record=FWGroupRecord,
    each=Context.fwgroups,
    fetch=Context.fwgroup,
    create=lambda context, fields: create_from(context.new_fwgroup(), fields),
    change=change_and_save,
    remove=_destroy,
)
