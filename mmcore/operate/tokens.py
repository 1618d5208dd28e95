"""The one secret of the local services: made once, readable by its owner alone."""

import contextlib
import os
import secrets
import stat

from mmcore import storage
from mmcore.errors import ConfigError, StorageError
from mmcore.operate.connection import read_token, services_directory, token_file

_NUM_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def ensure_token(root: str) -> str:
    """Return the secret of a root, made now if there is none: file mode 0600, directory 0700.

    ConfigError when others can read it, since they may have.
    """
    directory, path = services_directory(root), token_file(root)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.chmod(directory, 0o700)
        _create(path, secrets.token_hex(_NUM_BYTES))
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError as error:
        raise StorageError(
            f"cannot keep the token in {path}: {error}. Choose a root on a disk of this machine "
            "that you can write to."
        ) from error
    token = read_token(root)
    if mode & _OTHERS or not token:
        found = "empty" if not token else f"readable by others (mode {mode:04o})"
        raise ConfigError(
            f"{path} is {found}. Delete it and start again: a new token is made, and whoever "
            "knew the old one is locked out."
        )
    return token


def _create(path: str, token: str) -> None:
    """Write a new secret whole or not at all; leave one that is there alone."""
    temporary = os.path.join(os.path.dirname(path), storage.temporary_name())
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(token)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
