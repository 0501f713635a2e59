"""The bytes of one open file in another, without a way through this process where the system offers one.

Knows descriptors only, no names. Raises plain OSError: what it means is said by whoever named the files.
"""

from __future__ import annotations

import errno
import os
import sys

#: `FICLONE` of Linux (ioctl_ficlone(2)): the target gets the blocks of the source, and shares them until one changes.
_FICLONE = 0x40049409
_PIECE_BYTES = 1024 * 1024
#: The kernel copies at most this much in one call, so that a slow disk can be given up in between.
_KERNEL_PIECE_BYTES = 64 * 1024 * 1024
_CANNOT = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM})


def clone(source_fd: int, target_fd: int) -> bool:
    """Let the empty target share all blocks of the source. False, and nothing changed, where that cannot be done:
    on most file systems, or across two."""
    if sys.platform != "linux":
        return False
    import fcntl  # not there on Windows

    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError:
        return False
    return True


def copy(source_fd: int, target_fd: int, size_bytes: int) -> int:
    """Append the first `size_bytes` of the source to the target, which is where it stands. Returns how many there
    were. The source's own position does not matter and stays."""
    done = _copy_by_kernel(source_fd, target_fd, size_bytes)
    while done < size_bytes and (piece := _read_at(source_fd, min(_PIECE_BYTES, size_bytes - done), done)):
        view = memoryview(piece)
        while view:
            view = view[os.write(target_fd, view) :]
        done += len(piece)
    return done


def _copy_by_kernel(source_fd: int, target_fd: int, size_bytes: int) -> int:
    done = 0
    if sys.platform != "linux":
        return done
    while done < size_bytes:
        try:
            moved = os.copy_file_range(
                source_fd, target_fd, min(_KERNEL_PIECE_BYTES, size_bytes - done), offset_src=done
            )
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            break
        if moved == 0:
            break
        done += moved
    return done


def _read_at(fd: int, size_bytes: int, offset: int) -> bytes:
    if sys.platform != "win32":
        return os.pread(fd, size_bytes, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, size_bytes)
