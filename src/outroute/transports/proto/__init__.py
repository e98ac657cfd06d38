"""The description of the gRPC link, as text and as protoc makes it of it.

``frames.binpb`` is made anew with ``python -m grpc_tools.protoc -Isrc/outroute/transports/proto
--descriptor_set_out=src/outroute/transports/proto/frames.binpb frames.proto``; a test compares the two.
"""

from __future__ import annotations

from importlib import resources

__all__ = ["SERVICE", "described"]

SERVICE = "outroute.v1.Frames"
"""Full name of the service."""


def described() -> bytes:
    """A ``google.protobuf.FileDescriptorSet`` of the one file."""
    return (resources.files(__name__) / "frames.binpb").read_bytes()
