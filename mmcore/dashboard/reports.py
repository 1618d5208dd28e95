"""Reports that runs wrote, of models and of data: pages of their own, in a sandbox."""

from starlette.exceptions import HTTPException
from starlette.responses import Response

from mmcore import storage

# a report is made of data: no script, no form, no address of ours, not even its own origin
REPORT_POLICY = (
    "sandbox; default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GONE = "The report of this version is not there any more."


def send_report(url: str) -> Response:
    """Send a report as it lies at a URL; 404 where it is gone."""
    data = storage.read_if_exists(url)
    if data is None:
        raise HTTPException(404, GONE)
    headers = {"content-security-policy": REPORT_POLICY}
    return Response(data, headers=headers, media_type="text/html; charset=utf-8")
