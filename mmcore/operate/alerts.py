"""Tells people, by apprise, what they have to know: a run failed or died, a model was refused.

The URLs hold secrets: no log line, error or record ever shows one.
"""

import logging
from typing import TYPE_CHECKING

from mmcore.errors import MissingExtra
from mmcore.operate.deployments import AlertKind, AlertsSection

if TYPE_CHECKING:
    from apprise import Apprise

_logger = logging.getLogger(__name__)
_KINDS: dict[AlertKind, str] = {
    "failed": "failure",
    "died": "failure",
    "refused": "warning",
    "promoted": "success",
}
"""As apprise classes them: receivers colour by it."""


def send_alert(alerts: AlertsSection, kind: AlertKind, *, title: str, body: str) -> int:
    """Tell everyone who wants to hear of this kind; return how many were told.

    A receiver that does not answer is logged and is no error: the run has its own truth.
    """
    if kind not in alerts.on or not alerts.to:
        return 0
    num_told = 0
    for position, url in enumerate(alerts.to):
        # for the log: which one it was, and nothing that is in it
        scheme = url.partition("://")[0] if "://" in url else "none"
        said = {"kind": kind, "receiver": position, "scheme": scheme}
        receiver = _receiver(url)
        if len(receiver) == 0:
            _logger.error("alert_url_not_understood", extra=said)
        elif receiver.notify(title=title, body=body, notify_type=_KINDS[kind]):
            num_told += 1
            _logger.info("alert_sent", extra=said)
        else:
            _logger.error("alert_failed", extra=said)
    return num_told


def _receiver(url: str) -> "Apprise":
    try:
        # 0.4 s, for those alone who have somebody to tell
        import apprise
    except ImportError as error:
        raise MissingExtra(
            "alerts need apprise. Install it with: pip install 'mmcore[operate]'"
        ) from error
    # it logs the URLs that it does not understand
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    receiver = apprise.Apprise()
    receiver.add(url)
    return receiver
