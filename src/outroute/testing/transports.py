"""The conformance suite of transports, for those that come with outroute and for plug-ins alike.

It needs pytest, which knows its fixtures and, if told so, shows what its assertions compared::

    # conftest.py
    import pytest
    pytest.register_assert_rewrite("outroute.testing")

A link of one's own runs both classes::

    from outroute.testing.transports import LinkContract, LinkRig, TransportContract

    class TestMyLink(LinkContract):
        def make_link(self): return MyLink

    class TestMembersOverMyLink(TransportContract):
        def make_rig(self): return LinkRig("mine", MyLink)

A transport that is a holder by itself runs ``TransportContract`` with a rig of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from outroute.testing.keeping import Keeping
from outroute.testing.linking import LinkContract
from outroute.testing.living import Living
from outroute.testing.rigs import LinkRig, Rig

__all__ = ["LinkContract", "LinkRig", "Rig", "TransportContract"]


class TransportContract(Keeping, Living):
    """What holds over every transport; a subclass says how to make a network (``make_rig``)."""

    def make_rig(self) -> Rig:
        """A network that is not started yet."""
        raise NotImplementedError("say in make_rig how to make a network over your transport")

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        """A network, ended after the test."""
        made = self.make_rig()
        yield made
        asyncio.run(made.stop())
