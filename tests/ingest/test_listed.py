"""URLs of a list, and what arrived of them."""

from mmcore.ingest.layout import Arrived
from mmcore.ingest.listed import Arriving


def test_what_arrived_is_that_of_its_url_also_where_rows_are_read_now_that_were_not_or_the_reverse(
) -> None:  # fmt: skip
    fetched = [Arrived(name, None, "http_404", name) for name in ("a", "b", "a", "c", "d")]
    arriving = Arriving(iter(fetched))
    # the row of b cannot be read now; that of "new" could not be read when they were fetched
    found = [arriving.of(url) for url in ("a", "a", "new", "c", "d", "d")]
    said = [(one.url, one.reason) for one in found]
    assert said == [
        ("a", "http_404"),
        ("a", "http_404"),
        ("new", "url_not_fetched"),
        ("c", "http_404"),
        ("d", "http_404"),
        ("d", "url_not_fetched"),
    ]
    assert found[0] is fetched[0]
    assert found[1] is fetched[2]
