# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random directories with everything that a file system can hold, and random changes to them."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import shutil
import socket
import stat
import struct
import tarfile
from collections.abc import Iterable, Iterator

EPOCH = 1_700_000_000
"""Unix time after all times of the trees: what builds make themselves is set to it."""

_NAMES = [
    *(b"a b c aa ab A B a.b a-b a+b x.txt y.txt z.go b.go .a .hidden -x -- ~ +".split()),
    *("ü é ünï 日本 \U0001f600".encode().split()),
    "é".encode(),  # the same letter in two characters
    *(b"a b", b" a", b"a ", b"new\nline", b"tab\t", b'quo"te', b"it's", b"back\\slash", b"cr\r"),
    *(b"[a]", b"a*", b"?", b"!a", b"#a", b"$a", b"a,b", b"%41", b"a:b", b"{a}", b"a|b", b"(a)", b"^a", b"..a", b"..."),
    *(b"\xff", b"\xfe\xffa", b"\xed\xa0\x80", b"a\xc3", b"\x01", b"\x7f"),
    *(b"Dockerfile.x", b"node_modules", b".git", b"CON", b"n" * 255),
]
_FILE_MODES = (0o644, 0o644, 0o755, 0o600, 0o000, 0o4755, 0o2755, 0o1644, 0o777)
_DIRECTORY_MODES = (0o755, 0o755, 0o700, 0o1777, 0o2775, 0o000)
_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep
_ATTRIBUTES = (
    ("user.note", b"value\0\xff"),
    ("user.empty", b""),
    ("trusted.note", b"x"),
    ("security.capability", _CAPABILITY),
)


class Tree:
    """A random tree at `root`; `outside` is a directory beside it for hard links and links that lead out."""

    def __init__(self, seed: random.Random, root: bytes, outside: bytes) -> None:
        self._random = seed
        self.root = root
        self._outside = outside
        for path in (root, outside):
            os.mkdir(path)
        self._write(os.path.join(outside, b"file"), b"outside")

    def grow(self) -> None:
        """Fill the tree, or add to it."""
        self._fill(self.root, self._random.choice((2, 3, 3, 4)))
        if self._random.random() < 0.1:
            self._deep()
        if self._random.random() < 0.1:
            self._wide()
        self._stamp()

    def change(self) -> None:
        """Change some of what is there, in ways that times and sizes tell."""
        for _each in range(self._random.randint(1, 6)):
            paths = self.paths()
            if not paths:
                break
            path = os.path.join(self.root, self._random.choice(paths))
            self._random.choice((self._rewrite, self._replace, self._remove, self._touch, self._move))(path)
        if self._random.random() < 0.5:
            self._entry(self.root, 1)
        self._stamp(fresh_only=True)

    def put(self, name: bytes, content: bytes) -> None:
        """Write a file at the top, whatever was there."""
        path = os.path.join(self.root, name)
        self._remove(path)
        self._write(path, content)
        self._stamp(fresh_only=True)

    def paths(self) -> list[bytes]:
        """All paths relative to the root, sorted, parents first."""
        return sorted(self._walk(b""), key=lambda path: path.split(b"/"))

    def linked(self, paths: Iterable[bytes]) -> list[bytes]:
        """Those of some paths that are links to what is in the tree, and what is to be reached through them."""
        found, top = [], os.path.realpath(self.root) + b"/"
        for path in paths:
            whole = os.path.join(self.root, path)
            if os.path.islink(whole) and os.path.exists(whole) and os.path.realpath(whole).startswith(top):
                found.append(path)
                if os.path.isdir(whole):
                    found += [os.path.join(path, name) for name in sorted(os.listdir(whole))]
        return found

    def is_directory(self, path: bytes) -> bool:
        return stat.S_ISDIR(os.lstat(os.path.join(self.root, path)).st_mode)

    def _walk(self, below: bytes) -> Iterator[bytes]:
        for name in os.listdir(os.path.join(self.root, below)):
            path = os.path.join(below, name)
            yield path
            if self.is_directory(path):
                yield from self._walk(path)

    # Making.

    def _fill(self, directory: bytes, depth: int) -> None:
        for _each in range(self._random.choice((0, 1, 2, 3, 4, 6, 8))):
            self._entry(directory, depth)

    def _entry(self, directory: bytes, depth: int) -> None:
        path = os.path.join(directory, self._random.choice(_NAMES))
        if os.path.lexists(path):
            return
        kinds = (self._file, self._directory, self._link, self._hard_link, self._special, self._archive)
        kind = self._random.choices(kinds, (50, 30 if depth else 0, 14, 8, 6, 2))[0]
        if kind == self._directory:
            os.mkdir(path)
            self._fill(path, depth - 1)
            self._dress(path, _DIRECTORY_MODES)
        else:
            kind(path)

    def _directory(self, path: bytes) -> None:
        os.mkdir(path)

    def _file(self, path: bytes) -> None:
        size = self._random.choice((0, 1, 10, 100, 4095, 4096, 32768, 70_000, 300_000))
        if self._random.random() < 0.02:
            size = 3 << 20
        self._write(path, self._random.randbytes(min(size, 1000)) * (size // 1000 or 1))
        if self._random.random() < 0.05:  # a hole
            os.truncate(path, size + (1 << 20))
        self._dress(path, _FILE_MODES)

    def _link(self, path: bytes) -> None:
        below = os.path.relpath(path, self.root)
        there = self.paths()
        target = self._random.choice(
            [
                *([self._random.choice(there)] * 6 if there else ()),
                *([b"/" + self._random.choice(there)] * 3 if there else ()),
                *([os.path.relpath(self._random.choice(there), os.path.dirname(below) or b".")] * 8 if there else ()),
                *(
                    b".",
                    b"..",
                    b"/",
                    b"../..",
                    b"../../../etc",
                    b"nowhere",
                    os.path.basename(path),
                    b"a/../b",
                    b"//a//b/",
                ),
                os.path.join(self._outside, b"file"),
                b"x" * 200,
            ]
        )
        os.symlink(target, path)

    def _hard_link(self, path: bytes) -> None:
        there = [each for each in self.paths() if not self.is_directory(each)]
        first = os.path.join(self.root, self._random.choice(there)) if there else b""
        if not first or self._random.random() < 0.15:
            first = os.path.join(self._outside, b"file")
        with contextlib.suppress(PermissionError):  # the kernel's own rules for hard links
            os.link(first, path, follow_symlinks=False)

    def _special(self, path: bytes) -> None:
        kind = self._random.choice(("fifo", "socket", "device"))
        if kind == "socket" and len(path) < 100:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
        elif kind == "device":
            with contextlib.suppress(PermissionError):  # not every machine allows it
                which = self._random.choice((stat.S_IFCHR, stat.S_IFBLK))
                os.mknod(
                    path, which | 0o640, os.makedev(self._random.choice((1, 7, 300)), self._random.choice((0, 3, 1000)))
                )
        else:
            os.mkfifo(path)

    def _archive(self, path: bytes) -> None:
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as archive:
            member = tarfile.TarInfo("in/archive")
            member.size, member.mtime = 3, EPOCH - 5000
            archive.addfile(member, io.BytesIO(b"tar"))
        content = held.getvalue()
        self._write(path, gzip.compress(content, mtime=0) if self._random.random() < 0.5 else content)

    def _deep(self) -> None:
        path = os.path.join(self.root, b"deep")
        if not os.path.lexists(path):
            path = os.path.join(path, *[b"d"] * 50)
            os.makedirs(path)
            self._write(os.path.join(path, b"end"), b"deep")

    def _wide(self) -> None:
        path = os.path.join(self.root, b"wide")
        if not os.path.lexists(path):
            os.mkdir(path)
            for number in range(400):
                self._write(os.path.join(path, b"%d" % number), b"%d" % number)

    def _write(self, path: bytes, content: bytes) -> None:
        with open(path, "wb") as stream:
            stream.write(content)

    def _dress(self, path: bytes, modes: tuple[int, ...]) -> None:
        """A mode, sometimes an owner and attributes."""
        if self._random.random() < 0.1:
            os.chown(path, 1234, 5678)
        os.chmod(path, self._random.choice(modes))
        if self._random.random() < 0.1:
            key, value = self._random.choice(_ATTRIBUTES)
            with contextlib.suppress(OSError):  # not every file system has them
                os.setxattr(path, key, value)

    def _stamp(self, fresh_only: bool = False) -> None:
        """A time for everything; with fresh_only for what does not have one yet."""
        for path in reversed([b"", *self.paths()]):
            whole = os.path.join(self.root, path)
            if fresh_only and os.lstat(whole).st_mtime < EPOCH:
                continue
            seconds = self._random.choice((0, 1, EPOCH - 1)) if self._random.random() < 0.1 else EPOCH - 10_000
            seconds -= self._random.randrange(1_000_000) if seconds > 10 else 0
            nanoseconds = self._random.choice((0, 1, 123_456_789, 999_999_999))
            os.utime(whole, ns=(seconds * 10**9 + nanoseconds,) * 2, follow_symlinks=False)

    # Changing. What is changed has the present time until it is stamped.

    def _rewrite(self, path: bytes) -> None:
        if os.path.lexists(path) and stat.S_ISREG(os.lstat(path).st_mode):
            self._write(path, self._random.randbytes(self._random.randrange(2000)))

    def _remove(self, path: bytes) -> None:
        if os.path.lexists(path):
            (shutil.rmtree if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink)(path)

    def _replace(self, path: bytes) -> None:
        self._remove(path)
        if os.path.lexists(os.path.dirname(path)):
            self._random.choice((self._file, self._link, self._directory, self._special))(path)

    def _touch(self, path: bytes) -> None:
        if os.path.lexists(path):
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                self._dress(path, _DIRECTORY_MODES)
            os.utime(path, follow_symlinks=False)

    def _move(self, path: bytes) -> None:
        target = os.path.join(self.root, self._random.choice(_NAMES))
        if os.path.lexists(path) and not os.path.lexists(target) and not target.startswith(path + b"/"):
            os.rename(path, target)
