"""Tars as they are found, well made and not."""

import io
import tarfile
from collections.abc import Sequence


def make_tar(
    members: Sequence[tuple[str, bytes]], *, form: int = tarfile.USTAR_FORMAT, **fields: object
) -> bytes:
    """Return a tar of members by name; `fields` are set on every header."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()
