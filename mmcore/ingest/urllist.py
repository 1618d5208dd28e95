"""Lists of URLs: a line of a text file, or a row of a table, names what is to be fetched.

urls.txt      https://example.org/owl.jpg
urls.csv      url,caption,licence
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmcore.ingest.fetchconfig import FetchConfig
from mmcore.ingest.table import Columns, TableLayout
from mmcore.sample import Json

_COLUMNS = Columns(key="url", media="url")
_CONFIG = FetchConfig()


@dataclass(frozen=True, kw_only=True)
class UrlListLayout(TableLayout):
    """Fetch what lists name: `.txt` with a URL per line, or tables with columns of URLs."""

    columns: Columns = _COLUMNS
    fetch: FetchConfig | None = _CONFIG

    _formats: ClassVar[tuple[str, ...]] = (*TableLayout._formats, "txt")
    _other: ClassVar[str] = "not_a_list"

    def scan_identity(self) -> Mapping[str, Json]:
        return {**super().scan_identity(), "reader": "urls"}
