"""An outbox that others may write decides nothing: it is refused before anything of it is sent, with the cure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hestiaos_lite import Outbox

from ..aegis.kit import queue, refused

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")
NOBODY = 65534
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to be root to give files away"
)


@pytest.fixture(name="path")
def _path(tmp_path: Any) -> Path:
    """An outbox with one row in a folder of its own."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o700)
    path: Path = folder / "outbox.db"
    with Outbox(path) as box:
        queue(box, "k")
    return path


@posix_only
@pytest.mark.parametrize("mode", [0o666, 0o660, 0o606, 0o620, 0o602])
def test_a_file_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    error = refused(lambda: Outbox(path), path, "others may write to it", "chmod go-w {}".format(path))
    assert (error.exit_code, error.delivered) == (78, False)
    path.chmod(mode & ~0o022)
    Outbox(path).close()


@posix_only
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o1777, 0o720])
def test_a_folder_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    error = refused(lambda: Outbox(path), path, "others may write to its folder {}".format(path.parent))
    assert "use a folder of your own" in str(error)
    assert ("chmod go-w {} or".format(path.parent) in str(error)) == (
        mode != 0o1777
    )  # whoever does so to /tmp breaks it
    path.unlink()
    refused(lambda: Outbox(path), path, "others may write to its folder")
    assert not path.exists()  # nor is one made there
    path.parent.chmod(0o755)
    Outbox(path).close()


@posix_only
def test_so_is_one_above_it_unless_it_is_sticky(path: Path) -> None:
    above = path.parent.parent
    above.chmod(0o777)
    refused(lambda: Outbox(path), path, "others may write to its folder {}".format(above))
    above.chmod(0o1777)  # as /tmp: nobody can move there what is ours
    Outbox(path).close()
    above.chmod(0o700)


@as_root
def test_a_file_or_folder_of_another_user_is_refused(path: Path) -> None:
    """Root is refused too: run by root, SQLite would give that user any file of root's that he has linked as -wal or -shm."""
    cure = "run this as that user (sudo -u '#{}'), or use".format(NOBODY)
    os.chown(str(path), NOBODY, NOBODY)
    refused(lambda: Outbox(path), path, "it belongs to another user (uid {})".format(NOBODY), cure)
    os.chown(str(path), 0, 0)
    os.chown(str(path.parent), NOBODY, NOBODY)
    refused(lambda: Outbox(path), path, "its folder {} belongs to another user".format(path.parent), cure)
    os.chown(str(path.parent), 0, 0)
    Outbox(path).close()


@posix_only
def test_a_link_in_a_folder_of_others_is_not_followed(path: Path, tmp_path: Any) -> None:
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    link = public / "outbox.db"
    for target in (path, path.parent / "new.db"):
        link.symlink_to(target)
        refused(lambda: Outbox(link), target, "others may write to its folder {}".format(public))
        link.unlink()
    assert not (path.parent / "new.db").exists()


@posix_only
def test_a_link_of_ones_own_is_followed(path: Path, tmp_path: Any) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with Outbox(link) as box:
        assert (box.path, len(box.list())) == (str(path), 1)
