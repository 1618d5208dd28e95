"""The application: every page group behind one door.

How a page group is added:

1. `mmcore/dashboard/pages/<group>.py` with `routes: list[Route]`. A handler that reads files or
   the index is a plain `def handler(request: Request) -> Response` (it runs in a thread) and ends
   with `return render(request, "<page>.html", section="<group>", title="...", ...)`.
2. If it keeps something (an index, a cache), also `def attach(app: Starlette) -> None`, which is
   called once: `app.state.samples = SampleIndex(app.state.database, app.state.settings.root)`.
   `app.state` has `settings`, `database`, `static`; what is appended to `app.state.closing` is
   called when the dashboard ends.
3. Its name in PAGE_GROUPS below. Templates extend base.html, which says what they may fill in.

Path parameters take the converters `name` (of a model, a dataset, a step) and `id` (of a run, a
fingerprint, a sample's key digest): anything else is 404 before a handler sees it. What changes
something is a POST whose form carries `{{ ui.csrf(csrf_token) }}`; htmx requests carry it anyway.
Errors: raise HTTPException(404), or let an MmError through: both become a page, JSON below /api/.
"""

import contextlib
import importlib
import logging
from collections.abc import AsyncIterator
from importlib.util import find_spec

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mmcore.dashboard.index.database import Database
from mmcore.dashboard.security import Door
from mmcore.dashboard.session import Sessions, WrongTries
from mmcore.dashboard.settings import Settings
from mmcore.dashboard.static_files import StaticFiles
from mmcore.dashboard.templating import render
from mmcore.errors import MmError

PAGE_GROUPS = ("login", "home", "runs", "models", "api", "datasets", "samples", "training")
logger = logging.getLogger(__name__)

_TITLES = {
    400: "That address is not understood",
    404: "There is nothing here",
    405: "That cannot be done here",
    409: "That is no longer possible",
}


class _Name(Convertor[str]):
    """A name that a recipe may give: no slash, no dot or dash first."""

    regex = r"[A-Za-z0-9_][A-Za-z0-9._@+ -]{0,199}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Id(_Name):
    """An id that we made: letters, digits and dashes."""

    regex = r"[A-Za-z0-9][A-Za-z0-9-]{0,99}"


register_url_convertor("name", _Name())
register_url_convertor("id", _Id())


def create_app(settings: Settings) -> Starlette:
    """Return the dashboard of one storage root."""
    static = StaticFiles()
    modules = [
        importlib.import_module(f"mmcore.dashboard.pages.{group}")
        for group in PAGE_GROUPS
        if find_spec(f"mmcore.dashboard.pages.{group}")
    ]
    routes: list[BaseRoute] = [Route("/static/{name:path}", static.serve, methods=["GET"])]
    for module in modules:
        routes.extend(module.routes)
    sessions, wrong_tries = Sessions(settings.token), WrongTries()
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(
                Door, sessions=sessions, wrong_tries=wrong_tries, hosts=settings.allowed_hosts
            )
        ],
        exception_handlers={
            HTTPException: _answer_http_error,
            MmError: _answer_our_error,
            Exception: _answer_fault,
        },
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.is_closing = False
    app.state.static = static
    app.state.sessions = sessions
    app.state.wrong_tries = wrong_tries
    app.state.database = Database(settings.index_path)
    app.state.closing = []
    for module in modules:
        if hasattr(module, "attach"):
            module.attach(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    app.state.is_closing = True
    for close in app.state.closing:
        close()
    app.state.database.close()


def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = "" if error.detail == _phrase(error.status_code) else error.detail
    title = _TITLES.get(error.status_code, "That did not work")
    return _error_page(request, error.status_code, title, detail)


def _answer_our_error(request: Request, error: Exception) -> Response:
    return _error_page(request, 503, "That could not be read", str(error))


def _answer_fault(request: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, and the server logs it with its traceback
    detail = "This is a fault of the dashboard. Its log has the details."
    return _error_page(request, 500, "The dashboard failed", detail)


def _error_page(request: Request, status: int, title: str, detail: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": detail or title}, status_code=status)
    if request.headers.get("hx-request") == "true":
        return render(request, "error_fragment.html", title=title, detail=detail)
    return render(
        request,
        "error.html",
        status_code=status,
        section="",
        title=title,
        detail=detail,
        code=status,
    )


def _phrase(status: int) -> str:
    return HTTPException(status).detail
