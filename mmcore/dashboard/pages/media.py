"""The bytes of samples: parts as they are stored or were found, and small pictures."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mmcore.dashboard.addresses import wanted_dataset
from mmcore.dashboard.index.live import SampleIndex
from mmcore.dashboard.index.samples import find_sample
from mmcore.dashboard.index.story import tell
from mmcore.dashboard.media import Media, StoredPart, locate, parts_of


def part(request: Request) -> Response:
    """Serve a part of a sample."""
    found, key = _part(request)
    media: Media = request.app.state.media
    return media.serve(request, found, key)


def original(request: Request) -> Response:
    """Serve a part of a sample as it was found, before any step changed it."""
    index: SampleIndex = request.app.state.samples
    dataset = wanted_dataset(request)
    key, extension = request.path_params["key"], request.path_params["part"]
    row = find_sample(index.database, dataset, key)
    ref = tell(index, dataset, row).source.get(extension) if row is not None else None
    if row is None or ref is None:
        raise HTTPException(404, "no sample that is indexed was found with this part")
    found = locate(index, dataset, row["segment"], extension, ref)
    if not found.url:
        raise HTTPException(404, "it is not known where the raw corpus lies")
    media: Media = request.app.state.media
    return media.serve(request, found, f"{key}-original")


def thumbnail(request: Request) -> Response:
    """Serve a small picture of a sample."""
    found, key = _part(request)
    if found.kind != "image":
        raise HTTPException(404, "that part is no picture")
    media: Media = request.app.state.media
    return media.serve_thumbnail(request, found, key)


def _part(request: Request) -> tuple[StoredPart, str]:
    index: SampleIndex = request.app.state.samples
    dataset = wanted_dataset(request)
    key, extension = request.path_params["key"], request.path_params["part"]
    row = find_sample(index.database, dataset, key)
    parts = parts_of(index, dataset, row["segment"], row["parts"]) if row is not None else []
    found = next((one for one in parts if one.extension == extension), None)
    if found is None:
        raise HTTPException(404, "no sample that is indexed has this part")
    if not found.url:
        raise HTTPException(404, "it is not known where the raw corpus lies")
    return found, key


_PART = "/media/{name:name}/{version:id}/{key:name}/{part:name}"
routes = [
    Route(_PART, part, methods=["GET"]),
    Route(f"{_PART}/thumbnail", thumbnail, methods=["GET"]),
    Route(f"{_PART}/original", original, methods=["GET"]),
]
