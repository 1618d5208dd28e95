"""Alerts, to a real receiver: who is told, of what, and that no secret gets out."""

import logging

import pytest
from alert_receiver import Receiver, receiver

from mmcore.operate.alerts import send_alert
from mmcore.operate.deployments import AlertsSection

__all__ = ["receiver"]
# apprise's plug-ins import it
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def test_everyone_who_wants_to_hear_of_it_is_told(receiver: Receiver) -> None:
    alerts = AlertsSection(to=(receiver.url, receiver.url), on=("failed",))
    assert (
        send_alert(alerts, "failed", title="retrain stamps: failed", body="the disk is full") == 2
    )
    assert [(one["title"], one["message"]) for one in receiver.alerts] == [
        ("retrain stamps: failed", "the disk is full")
    ] * 2
    assert {one["type"] for one in receiver.alerts} == {"failure"}


def test_nobody_is_told_of_what_he_does_not_want_to_hear(receiver: Receiver) -> None:
    alerts = AlertsSection(to=(receiver.url,), on=("refused", "died"))
    assert send_alert(alerts, "promoted", title="t", body="b") == 0
    assert receiver.alerts == []


@pytest.mark.parametrize(
    "broken", ["json://127.0.0.1:1/s3cret-path", "no-such://s3cret-path", "s3cret-path"]
)
def test_a_receiver_that_does_not_answer_is_logged_without_its_secret(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.answer = 500
    alerts = AlertsSection(to=(broken, receiver.url))
    assert send_alert(alerts, "died", title="t", body="b") == 0
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(records) == 2
    said = " ".join(str(vars(record)) for record in records)
    assert "s3cret" not in said
