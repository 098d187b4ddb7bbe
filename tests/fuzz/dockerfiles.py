# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random ignore files and Dockerfiles for a tree whose paths are known."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence

_PLAIN = re.compile(rb"[A-Za-z0-9./_+,:~\x80-\xff][A-Za-z0-9./_+,:~\x80-\xff-]*")
_ODD_PATTERNS = (
    *(b"*", b"**", b"*/*", b"**/*", b"**/.*", b".*", b"/", b".", b"..", b"../a", b"a/..", b"!", b"! a", b"!!a", b"!.."),
    *(b"[", b"[]", b"[a-", b"[^a]", b"[a-c]*", b"[!a]", b"[z-a]", b"\\", b"\\a", b"a\\*", b"\\[a\\]", b"a b", b" a"),
    *(
        b"a**",
        b"**a",
        b"a/**/b",
        b"**/a/**",
        b"**/**",
        b"***",
        b"*.txt",
        b"**/*.txt",
        b"?",
        b"??",
        b"?.*",
        b"*?",
        b"a|b",
    ),
    *(b"{a}", b"(a)", b"a+b", b"^a", b"$a", b"a$", b".a", b"\\.a", b"/a", b"//a", b"./a", b"a/", b"a//b", b"a/./b"),
    *(
        b"Dockerfile",
        b".dockerignore",
        b"#a",
        b"\\#a",
        b"\xef\xbb\xbfa",
        b"\xff",
        b"a\xc3*",
        b"*\xff",
        "[ü日]*".encode(),
    ),
)


def ignore_file(chance: random.Random, paths: Sequence[bytes]) -> bytes:
    """The text of an ignore file of which many lines mean something in the tree."""
    lines = [_line(chance, paths) for _each in range(chance.choice((0, 1, 2, 3, 5, 8)))]
    if chance.random() < 0.25:
        lines.insert(0, chance.choice((b"*", b"**", b"*/*", b"**/*")))
        lines += [b"!" + _pattern(chance, paths) for _each in range(chance.randint(1, 4))]
    text = chance.choice((b"\n", b"\n", b"\n", b"\r\n")).join(lines)
    return chance.choice((b"", b"", b"", b"\xef\xbb\xbf")) + text + chance.choice((b"", b"\n"))


def _line(chance: random.Random, paths: Sequence[bytes]) -> bytes:
    line = _pattern(chance, paths)
    if chance.random() < 0.3:
        line = b"!" + line
    around = chance.random()
    if around < 0.05:
        return b" \t" + line + b"  "
    return chance.choice((b"# comment", b"#", b"", b" # no comment")) if around < 0.12 else line


def _pattern(chance: random.Random, paths: Sequence[bytes]) -> bytes:
    if not paths or chance.random() < 0.25:
        odd = chance.choice(_ODD_PATTERNS)
        # A pattern that Go refuses ends the build before anything is compared: now and then is enough.
        return odd if chance.random() < 0.1 or not odd.startswith((b"[a-", b"[]", b"[z", b"!", b"\\")) else b"a*"
    parts = chance.choice(paths).split(b"/")
    for at in range(len(parts)):
        if chance.random() < 0.3:
            parts[at] = _blurred(chance, parts[at])
    if chance.random() < 0.2:
        parts[0] = b"**"
    if chance.random() < 0.1:
        parts.insert(chance.randrange(len(parts) + 1), b"**")
    if chance.random() < 0.3:
        parts = parts[: chance.randint(1, len(parts))]
    return (
        chance.choice((b"", b"", b"", b"", b"/", b"./"))
        + b"/".join(parts)
        + chance.choice((b"", b"", b"", b"/", b"/*", b"/**"))
    )


def _blurred(chance: random.Random, name: bytes) -> bytes:
    at = chance.randrange(len(name))
    form = chance.randrange(6)
    if form == 0:
        return b"*"
    if form == 1:
        return name[:at] + b"?" + name[at + 1 :]
    if form == 2:
        return name[:at] + b"*"
    if form == 3:
        return b"*" + name[at:]
    if form == 4 and name[at : at + 1].isalnum():
        return name[:at] + b"[" + name[at : at + 1] + b"-z]" + name[at + 1 :]
    escaped = form == 5 and (chance.random() < 0.1 or not name[at : at + 1].isalnum())  # to Go, \\1 is a mistake
    return name[:at] + b"\\" + name[at:] if escaped else name


def dockerfile(
    chance: random.Random, paths: Sequence[bytes], linked: Sequence[bytes], contexts: Sequence[str]
) -> bytes:
    """Some instructions that copy from a context.

    paths: what is likely to be there after the ignore file. linked: paths on which there is a link.
    contexts: names of further contexts.
    """
    lines = [b"FROM scratch"]
    if chance.random() < 0.15:
        lines.append(b"WORKDIR " + chance.choice((b"/work", b"/a/b")))
    whole = not paths or chance.random() < 0.5
    if whole:
        flags = _flags(chance, paths)
        lines.append(
            chance.choice((b"COPY", b"COPY", b"ADD")) + flags + b" . " + chance.choice((b"/", b"/", b"/all/", b"."))
        )
    for number in range(chance.choice((0, 0, 1, 2)) if whole else chance.choice((1, 1, 2, 3))) if paths else ():
        lines.append(_copy(chance, paths, linked, number))
    lines += [b"COPY --from=" + name.encode() + b" . /of-" + name.encode() + b"/" for name in contexts]
    return b"\n".join(lines) + b"\n"


def _copy(chance: random.Random, paths: Sequence[bytes], linked: Sequence[bytes], number: int) -> bytes:
    word = chance.choice((b"COPY", b"COPY", b"COPY", b"ADD"))
    sources = [
        _source(chance, linked if linked and chance.random() < 0.3 else paths)
        for _each in range(chance.choice((1, 1, 1, 2, 3)))
    ]
    to = chance.choice((b"/to%d/", b"/to%d/", b"/a/b/to%d/", b"to%d/", b"/to%d/../up%d/", b"/")).replace(
        b"%d", b"%d" % number
    )
    if len(sources) == 1 and chance.random() < 0.2:
        to = b"/renamed%d" % number
    words = [*sources, to]
    flags = _flags(chance, paths, parents=word == b"COPY")
    if all(_plain(each) for each in words) and chance.random() < 0.8:
        return word + flags + b" " + b" ".join(words)
    # Once more for the Dockerfile's own quotes and variables.
    texts = [re.sub(r"""([\\"'$])""", r"\\\1", each.decode("utf-8", "replace")) for each in words]
    return word + flags + b" " + json.dumps(texts, ensure_ascii=chance.random() < 0.5).encode()


def _plain(text: bytes) -> bool:
    return _PLAIN.fullmatch(text.replace(b"*", b"a").replace(b"?", b"a")) is not None


def _source(chance: random.Random, paths: Sequence[bytes]) -> bytes:
    path = chance.choice(paths)
    if not _plain(path) and chance.random() < 0.8:
        path = chance.choice(paths)
    if chance.random() < 0.35:
        parts = path.split(b"/")
        at = chance.randrange(len(parts))
        parts[at] = chance.choice((b"*", parts[at][:1] + b"*", b"*" + parts[at][-1:], b"?" + parts[at][1:]))
        return b"/".join(parts)
    # A name with characters that mean something in a pattern is itself only with escapes; control characters and what
    # is no UTF-8 cannot be said in a Dockerfile, or not be handed on by the daemon.
    path = re.sub(rb"([\\*?\[])", rb"\\\1", path)
    path = re.sub(r"[\x00-\x1f\x7f\udc80-\udcff]+", "*", path.decode("utf-8", "surrogateescape")).encode()
    return chance.choice((b"", b"", b"", b"/", b"./")) + path + chance.choice((b"", b"", b"", b"/."))


def _flags(chance: random.Random, paths: Sequence[bytes], parents: bool = False) -> bytes:
    flags = b""
    if chance.random() < 0.15:
        flags += b" --chown=" + chance.choice((b"1000:1000", b"7", b"0:5"))
    if chance.random() < 0.15:
        flags += b" --chmod=" + chance.choice((b"0644", b"755", b"4711"))
    if chance.random() < 0.2:
        flags += b" --link"
    if chance.random() < 0.15:
        pattern = _pattern(chance, paths)
        flags += b" --exclude=" + (pattern if _plain(pattern) else b"**/a*")
    if parents and chance.random() < 0.12:
        flags += b" --parents"
    return flags
