"""Whose file it is: one that others may write, or put in another's place, decides nothing."""

from __future__ import annotations

import os
import stat
from typing import Iterator

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def fault_of_file(found: os.stat_result, path: str) -> str:
    """Say why a file is not to be trusted, with the cure; "" where only this user and root may write it."""
    if os.name != "posix":
        return ""
    if found.st_uid not in _ours():
        return "it belongs to another user (uid {}), who could send decisions in your name; name another path".format(
            found.st_uid
        )
    if stat.S_IMODE(found.st_mode) & _OTHERS_MAY_WRITE:
        return (
            "others may write it, and so decide in your name; look what it holds, then: chmod go-w {}".format(
                path
            )
        )
    return ""


def fault_of_folder(folder: str) -> str:
    """Say why a folder is not to be trusted, with the cure; "" where nobody else can put a file of his own there.

    As ssh has it for keys: the folder and all above it belong to this user or to root, and others may not write them.
    Above the folder itself a sticky one, such as /tmp, will do: nobody can move there what is ours.
    """
    if os.name != "posix":
        return ""
    for depth, path in enumerate(_upwards(folder)):
        found = os.stat(path)
        if found.st_uid not in _ours():
            return "its folder {} belongs to another user (uid {}); name a folder of your own".format(
                path, found.st_uid
            )
        is_shared = found.st_mode & stat.S_ISVTX  # as /tmp is, and is to stay
        if stat.S_IMODE(found.st_mode) & _OTHERS_MAY_WRITE and not (is_shared and depth > 0):
            return (
                "others may write its folder {}, and so put a file of theirs in its place; "
                "{}name a folder of your own (mkdir -m 700)".format(
                    path, "" if is_shared else "chmod go-w {} or ".format(path)
                )
            )
    return ""


def _ours() -> tuple[int, int]:
    return (0, os.geteuid())


def _upwards(folder: str) -> Iterator[str]:
    path = os.path.realpath(folder)
    while True:
        yield path
        parent = os.path.dirname(path)
        if parent == path:
            return
        path = parent
