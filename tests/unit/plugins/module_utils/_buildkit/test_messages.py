# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The messages are those of the wire, on whatever protobuf this runs with."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import descriptors, messages
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import message

ROOT = Path(__file__).resolve().parents[5]
PREFIX = "ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit"

# Bytes worked out by hand from the field tables: tag = number << 3 | wire type.
GOLDEN = [
    ("moby.buildkit.v1.BytesMessage", {"data": b"x"}, b"\x0a\x01x"),
    ("moby.buildkit.v1.StatusRequest", {"Ref": "r"}, b"\x0a\x01r"),
    ("moby.buildkit.v1.SolveRequest", {"Ref": "r", "Session": "s", "Internal": True}, b"\x0a\x01r\x2a\x01s\x58\x01"),
    ("moby.buildkit.v1.SolveRequest", {"FrontendAttrs": {"k": "v"}}, b"\x3a\x06\x0a\x01k\x12\x01v"),
    ("moby.buildkit.v1.SolveRequest", {"CompatibilityVersion": 10, "ProxyNetwork": True}, b"\x80\x01\x0a\x88\x01\x01"),
    ("moby.buildkit.v1.PruneRequest", {"minFreeSpace": 1}, b"\x30\x01"),
    ("moby.buildkit.v1.types.GCPolicy", {"filters": ["f"], "reservedSpace": 5}, b"\x18\x05\x22\x01f"),
    ("pb.Definition", {"definition": [b"\xff"]}, b"\x0a\x01\xff"),
    ("pb.PassthroughOp", {"outputs": [1, 2]}, b"\x12\x02\x01\x02"),
    ("pb.Mount", {"input": -1, "resultID": "r"}, b"\x08" + b"\xff" * 9 + b"\x01" + b"\xba\x01\x01r"),
    ("moby.filesync.v1.CredentialsResponse", {"Username": "u", "Secret": "s"}, b"\x0a\x01u\x12\x01s"),
    ("fsutil.types.Packet", {"type": 2, "ID": 7, "data": b"d"}, b"\x08\x02\x18\x07\x22\x01d"),
    ("fsutil.types.Stat", {"path": b"\xff", "modTime": 1}, b"\x0a\x01\xff\x30\x01"),
    ("containerd.services.content.v1.WriteContentRequest", {"action": 2, "offset": 3}, b"\x08\x02\x28\x03"),
    ("grpc.health.v1.HealthCheckResponse", {"status": 1}, b"\x08\x01"),
    ("moby.exporter.v1.FindExportersRequest", {"metadata": {"k": b"\xff"}}, b"\x0a\x06\x0a\x01k\x12\x01\xff"),
]


@pytest.mark.parametrize(("name", "fields", "wire"), GOLDEN)
def test_bytes_on_the_wire(name: str, fields: dict[str, Any], wire: bytes) -> None:
    """Numbers and wire types are those of the tables, in both directions."""
    cls = message(name)
    assert cls(**fields).SerializeToString(deterministic=True) == wire
    assert cls.FromString(wire) == cls(**fields)


@given(path=st.binary(min_size=1), attrs=st.dictionaries(st.binary(), st.binary()))
def test_a_stat_carries_any_bytes(path: bytes, attrs: dict[bytes, bytes]) -> None:
    """File names, link targets and extended attributes need not be UTF-8."""
    stat = messages.fsutil.Stat(path=path, linkname=path, xattrs=[{"key": k, "value": v} for k, v in attrs.items()])
    packet = messages.fsutil.Packet.FromString(messages.fsutil.Packet(stat=stat).SerializeToString())
    assert packet.stat.path == packet.stat.linkname == path
    assert {entry.key: entry.value for entry in packet.stat.xattrs} == attrs


def test_xattrs_are_a_map_to_the_other_side() -> None:
    """`repeated Entry` has the bytes of `map<string, bytes>`."""
    wire = messages.fsutil.Stat(xattrs=[{"key": b"user.a", "value": b"\x00"}]).SerializeToString()
    assert wire == b"\x52\x0b\x0a\x06user.a\x12\x01\x00"


def test_messages_reach_across_packages() -> None:
    """Nested messages of other packages are the same classes as those asked for by name."""
    request = messages.control.SolveRequest()
    request.FrontendInputs["base"].CopyFrom(messages.pb.Definition(definition=[b"op"]))
    request.SourcePolicy.rules.add(action=messages.sourcepolicy.PolicyAction.DENY)
    assert isinstance(request.FrontendInputs["base"], messages.pb.Definition)
    assert request.SourcePolicy.rules[0].action == 1
    record = messages.control.BuildHistoryRecord()
    record.error.details.add(type_url="x/y", value=b"{}")
    assert isinstance(record.error, messages.rpc.Status)


def test_timestamps_are_unset_until_set() -> None:
    """Whether a vertex started is presence of the field, not its value."""
    vertex = messages.control.Vertex(digest="sha256:0")
    assert not vertex.HasField("started")
    vertex.started.seconds = 0
    assert not vertex.HasField("completed")
    vertex.started.SetInParent()
    assert vertex.HasField("started")


def test_one_class_per_name() -> None:
    """Asking again, by any way, gives the same class: isinstance and CopyFrom depend on it."""
    assert message("pb.Range") is message("pb.Range") is messages.pb.Range
    with pytest.raises(KeyError):
        message("pb.Nothing")
    with pytest.raises(AttributeError, match=r"pb\.Nothing"):
        _missing = messages.pb.Nothing
    assert not hasattr(messages.pb, "__deepcopy__")
    assert copy.copy(messages.pb).Range is messages.pb.Range


def test_enums_have_names_and_numbers() -> None:
    """Top-level enums are found by the same façade, nested ones are on their message."""
    assert messages.content.WriteAction.COMMIT == 2
    assert messages.content.WriteAction.Name(1) == "WRITE"
    assert messages.control.BuildHistoryEventType.Value("DELETED") == 2
    assert messages.fsutil.Packet.PACKET_ERR == 4
    assert messages.health.HealthCheckResponse.SERVING == 1


def test_threads_that_come_first_together_share_a_pool() -> None:
    """Solve and Status begin at once: their first use must not make two pools."""
    script = f"""
import threading
from {PREFIX}.messages import message
gate, found = threading.Barrier(8), []
def first():
    gate.wait()
    found.append((message("moby.buildkit.v1.SolveRequest"), message("pb.Definition")))
threads = [threading.Thread(target=first) for _number in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(set(found)), all(a(Definition=b(definition=[b"x"])) for a, b in found))
"""
    assert run_python(script) == "1 True"


def test_importing_needs_no_protobuf() -> None:
    """Sanity imports each file without third-party packages, and who sends no message does not pay for them."""
    script = f"import sys, {PREFIX}.messages; print([m for m in sys.modules if m.startswith('google.protobuf')])"
    assert run_python(script) == "[]"


def test_text_is_small_and_fresh() -> None:
    """What travels with every task stays small, and is what tools/proto compiles to."""
    assert len(descriptors.DATA) <= 30 * 1024
    assert max(map(len, descriptors.DATA.splitlines())) <= 150
    pytest.importorskip("grpc_tools")
    check = [sys.executable, str(ROOT / "tools" / "compile_messages.py"), "--check"]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "up to date\n"), result.stderr


def run_python(script: str) -> str:
    """Stdout of a fresh interpreter with our path."""
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{script}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
