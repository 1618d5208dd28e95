from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboards import Opened, csrf_of, log_in
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.core.manifest import Counts, Manifest, commit_manifest
from mmcore.register.ledger import history
from mmcore.telemetry.model_registry import ModelRegistry

SCRIPT = "<script>document.title='owned'</script>"


@pytest.fixture
def two_versions(
    register: Callable[..., Any], make_app: Callable[..., Starlette], root: Path
) -> TestClient:
    register(0.75)
    register(0.80)
    client = log_in(make_app(root))
    client.app.state.catalogue.get(wait_seconds=60)  # type: ignore[attr-defined]
    return client


def champion(root: Path) -> int:
    return ModelRegistry(str(root)).aliases("stamps")["champion"]


def registration(root: Path, version: int, *, report: str) -> None:
    """What the register and evaluate steps leave of a version."""
    evaluate = f"{version}" * 64
    url = root / "steps" / "stamps" / "evaluate" / evaluate[:16]
    url.mkdir(parents=True)
    (url / "report.html").write_text(report)
    inputs = {"evaluate": evaluate, "train": "a" * 64, "shard": "b" * 64}
    manifest = Manifest(
        step="register",
        fingerprint="c" * 64,
        identity={"step": "register", "work": {"metric": "accuracy"}, "inputs": inputs},
        counts=Counts(),
        files=(),
        facts={"model_name": "stamps", "version": version},
    )
    commit_manifest(str(root / "steps" / "stamps" / "register" / ("c" * 16)), manifest)


def test_models_are_listed_with_champion_and_what_it_gained(two_versions: TestClient) -> None:
    page = two_versions.get("/models").text
    for expected in ("stamps", "Version 2", "0.800", "+0.050 than version 1"):
        assert expected in page
    page = two_versions.get("/models/stamps").text
    for expected in (
        "accuracy 0.8 is better",
        "register step",
        "stamps/0123456789abcdef",
        "Roll back to version 1",
    ):
        assert expected in page


def test_version_is_shown_beside_the_champion(two_versions: TestClient) -> None:
    page = two_versions.get("/models/stamps/1").text
    for expected in ("Promote", "0.7500", "0.8000", "-0.0500", "# card"):
        assert expected in page
    assert two_versions.get("/models/stamps/9").status_code == 404
    assert two_versions.get("/models/birds").status_code == 404


def test_promote_and_roll_back_move_the_alias_and_are_written_down(
    root: Path, two_versions: TestClient
) -> None:
    form = {**csrf_of(two_versions), "why": "fewer false alarms"}
    assert two_versions.post("/models/stamps/1/promote", data=form).status_code == 303
    assert champion(root) == 1
    assert "fewer false alarms" in two_versions.get("/models/stamps").text
    form["why"] = "it was not"
    assert two_versions.post("/models/stamps/rollback", data=form).status_code == 303
    assert champion(root) == 2
    entries = history(str(root), "stamps")
    assert [(one.version, one.kind, one.by) for one in entries[-2:]] == [
        (1, "promoted", "dashboard"),
        (2, "rolled_back", "dashboard"),
    ]


def test_promotion_without_a_reason_or_of_nothing_is_refused(
    root: Path, two_versions: TestClient
) -> None:
    form = csrf_of(two_versions)
    assert two_versions.post("/models/stamps/1/promote", data=form).status_code == 400
    form |= {"why": "because"}
    assert two_versions.post("/models/stamps/9/promote", data=form).status_code == 404
    assert two_versions.post("/models/birds/1/promote", data=form).status_code == 404
    assert two_versions.post("/models/stamps/2/promote", data=form).status_code == 303
    assert champion(root) == 2
    assert len(history(str(root), "stamps")) == 2


def test_roll_back_with_nothing_before_is_refused_in_words(
    root: Path, register: Callable[..., Any], make_app: Callable[..., Starlette]
) -> None:
    register(0.75)
    client = log_in(make_app(root))
    answer = client.post("/models/stamps/rollback", data={**csrf_of(client), "why": "x"})
    assert answer.status_code == 409
    assert "no champion to go back to" in answer.text


def test_report_is_shut_in_a_sandbox_of_its_own(root: Path, two_versions: TestClient) -> None:
    assert two_versions.get("/models/stamps/2/report").status_code == 404
    registration(root, 2, report=f"<h1>report</h1>{SCRIPT}")
    answer = two_versions.get("/models/stamps/2/report")
    assert "<h1>report</h1>" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox;")
    assert "allow-" not in policy
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_registry_that_cannot_be_read_is_said(
    root: Path, make_app: Callable[..., Starlette], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "mlflow.db").write_bytes(b"not a database" * 100)
    client = log_in(make_app(root))
    client.app.state.catalogue.get(wait_seconds=60)  # type: ignore[attr-defined]
    answer = client.get("/models")
    assert answer.status_code == 200
    assert "The registry cannot be read" in answer.text
    assert client.get("/").status_code == 200


def test_api_lists_models_with_the_ledger(two_versions: TestClient) -> None:
    (model,) = two_versions.get("/api/models").json()["models"]
    assert (model["name"], model["champion"]) == ("stamps", 2)
    assert [entry["version"] for entry in model["ledger"]] == [2, 1]


def test_promote_and_roll_back_in_a_browser(
    root: Path, register: Callable[..., Any], browser_page: Callable[..., Opened]
) -> None:
    register(0.75, card=SCRIPT)
    register(0.80, card=SCRIPT)
    registration(root, 1, report=f"<h1>all of it</h1>{SCRIPT}")
    opened = browser_page(root)
    page = opened.page
    opened.goto("/models")
    page.get_by_role("link", name="stamps", exact=True).click()
    page.get_by_role("link", name="1", exact=True).click()
    page.wait_for_url("**/models/stamps/1")
    assert SCRIPT in page.locator("main").inner_text()
    page.get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Promote").click()
    assert dialog.is_visible()  # a reason is required
    dialog.get_by_label("Why").fill(f"better {SCRIPT}")
    dialog.get_by_role("button", name="Promote").click()
    page.get_by_text("It is the champion now").wait_for()
    assert champion(root) == 1
    assert f"better {SCRIPT}" in page.locator(".ledger").inner_text()
    page.get_by_role("button", name="Roll back to version 2").click()
    page.get_by_role("dialog").get_by_label("Why").fill("too early")
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    page.get_by_text("has its place again").wait_for()
    assert champion(root) == 2
    assert page.title() != "owned"
    opened.goto("/models/stamps/1/report")
    assert page.get_by_role("heading", name="all of it").is_visible()
    assert page.title() != "owned"
    # the sandbox says in the console that it held
    opened.problems[:] = [said for said in opened.problems if "sandboxed" not in said.lower()]
