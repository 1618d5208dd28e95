"""`mm report`, and the report that a run makes."""

import json
from pathlib import Path

from command import Made, Mm


def test_a_run_makes_the_report_of_what_it_published_and_says_where(made: Made, mm: Mm) -> None:
    place = json.loads(made.first_run.out)["contents"]
    assert Path(place).read_text().startswith("<!doctype html>")
    told = mm("report", "tiny", "--root", str(made.root))
    assert (told.code, told.out.strip()) == (0, place)
    assert told.err == ""
    again = mm("run", made.recipe, "--root", str(made.root))
    assert f"contents  {place}" in again.out


def test_a_report_that_is_gone_is_made_again_from_what_is_committed(
    made: Made, mm: Mm, tmp_path: Path
) -> None:
    import shutil

    root = str(shutil.copytree(made.root, tmp_path / "root"))
    shutil.rmtree(Path(root, "steps", "tiny", "report"))
    told = mm("report", "--root", root, "--json").json()
    assert told["is_new"]
    before = json.loads(made.first_run.out)["contents"]
    assert Path(told["report"]).read_bytes() == Path(before).read_bytes()
    assert not mm("report", "--root", root, "--json").json()["is_new"]


def test_the_page_can_be_copied_to_be_sent_on(made: Made, mm: Mm, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert mm("report", "tiny", "--root", str(made.root), "--out", str(out)).code == 0
    assert out.read_bytes() == Path(json.loads(made.first_run.out)["contents"]).read_bytes()


def test_a_dataset_that_is_not_there_is_refused(made: Made, mm: Mm) -> None:
    told = mm("report", "nobody", "--root", str(made.root))
    assert told.code == 2
    assert "no dataset 'nobody'" in told.err
