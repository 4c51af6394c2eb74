"""Files of folders that came from elsewhere: read if they are files, and nothing else.

A pipe of such a name would keep its reader for ever, and a device never ends.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path


def check(path: Path) -> Path:
    """The path of something that can be read to its end: a file, or a link to one.

    Raises:
        OSError: There is nothing of the name, or a pipe, a socket, a device or a folder.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        OSError: It cannot be read, or is no file.
        UnicodeDecodeError: It is not UTF-8.
    """
    return check(path).read_text(encoding="utf-8")
