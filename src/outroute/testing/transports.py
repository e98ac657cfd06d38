"""The conformance suite of transports, for those that come with outroute and for plug-ins alike.

It needs pytest, which knows its fixtures and, if told so, shows what its assertions compared::

    # conftest.py
    import pytest
    pytest.register_assert_rewrite("outroute.testing")

A link of one's own runs both classes::

    from outroute.testing.transports import LinkContract, LinkRig, TransportContract

    class TestMyLink(LinkContract):
        def url(self, directory): return "mine://"

    class TestMembersOverMyLink(TransportContract):
        def make_rig(self, directory): return LinkRig("mine", link_of("mine://"))

A transport that is a holder by itself runs ``TransportContract`` with a rig of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from outroute.testing.keeping import Keeping
from outroute.testing.linking import LinkContract
from outroute.testing.living import Living
from outroute.testing.rigs import LinkRig, Rig

__all__ = ["LinkContract", "LinkRig", "Rig", "TransportContract"]


class TransportContract(Keeping, Living):
    """What holds over every transport; a subclass says how to make a network (``make_rig``)."""

    def make_rig(self, directory: Path) -> Rig:
        """A network that is not started yet.

        Args:
            directory: an empty one, for transports that need one.
        """
        raise NotImplementedError("say in make_rig how to make a network over your transport")

    @pytest.fixture(autouse=True)
    def _fits(self, rig: Rig, request: pytest.FixtureRequest) -> None:
        """What makes no sense over a transport is skipped, and says why."""
        why = rig.unfit.get(request.node.originalname)
        if why is not None:
            pytest.skip(f"{rig.name}: {why}")

    @pytest.fixture
    def rig(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        """A network, ended after the test."""
        made = self.make_rig(tmp_path_factory.mktemp("transport"))
        yield made
        asyncio.run(made.stop())
