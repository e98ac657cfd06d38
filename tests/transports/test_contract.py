"""The contract of every transport, over those that come with outroute; another one is put under it in ``rigs.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from outroute.testing.making import CELLS
from outroute.testing.rigs import Rig, deposit, fetch_all, raw, united
from outroute.testing.transports import TransportContract
from transports.rigs import RIGS

__all__ = ["CELLS", "deposit", "fetch_all", "raw", "united"]


class TestEveryTransport(TransportContract):
    @pytest.fixture(params=sorted(RIGS))
    def rig(self, request: pytest.FixtureRequest) -> Iterator[Rig]:
        made = RIGS[request.param]()
        yield made
        asyncio.run(made.stop())
