"""The directory of a cgroup, which is kept open: it is found again whatever is mounted over it."""

import os


def open_folder(name: str | os.PathLike[str], parent: int | None = None) -> int:
    """Return a descriptor of a directory, whose name is relative to `parent`.

    Raises:
        OSError: if it cannot be opened.
    """
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)


def folders_in(folder: int) -> list[str]:
    """Return the names of the cgroups in a cgroup.

    Raises:
        OSError: if they cannot be listed.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def open_file(folder: int, name: str, flags: int) -> int:
    """Return a descriptor of a file of a cgroup.

    Raises:
        OSError: if it cannot be opened.
    """
    return os.open(name, flags | os.O_CLOEXEC, dir_fd=folder)


def read(folder: int, name: str) -> str:
    """Return the content of a file of a cgroup.

    Raises:
        OSError: if it cannot be read.
    """
    fd = open_file(folder, name, os.O_RDONLY)
    try:
        content = b""
        while part := os.read(fd, 1 << 16):
            content += part
        return content.decode("ascii")
    finally:
        os.close(fd)


def write(folder: int, name: str, text: str) -> None:
    """Write to a file of a cgroup.

    Raises:
        OSError: if that is refused.
    """
    fd = open_file(folder, name, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
