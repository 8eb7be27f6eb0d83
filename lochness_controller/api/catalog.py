"""Flavors and images: /flavors and /images."""

from __future__ import annotations

from typing import Any

from litestar import Router

from lochness.context import Context
from lochness.model.flavor import FlavorRecord
from lochness.model.image import ImageRecord
from lochness_controller.api.records import Collection, change_and_save, collection_router, create_from


def routers() -> list[Router]:
    """The routes of both."""
    return [collection_router(_FLAVORS), collection_router(_IMAGES)]


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
