"""The conformance suite of outroute over this plug-in: all that a transport of one's own has to test."""

from __future__ import annotations

from pathlib import Path

from outroute.testing.transports import LinkContract, LinkRig, Rig, TransportContract
from outroute.transports.registry import link_of


class TestSharedDirectoryLink(LinkContract):
    """Two nodes and what is between them."""

    def url(self, directory: Path) -> str:
        """Found by its entry point, also by other processes."""
        return f"shared://{directory}"


class TestMembersOverASharedDirectory(TransportContract):
    """Networks of up to nine members that are killed, paused, and replaced."""

    def make_rig(self, directory: Path) -> Rig:
        """Each member has a box there."""
        return LinkRig("shared", link_of(f"shared://{directory}"))
