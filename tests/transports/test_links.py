"""The contract of every link between two nodes, over those that come with outroute; another one is a class here."""

from __future__ import annotations

from pathlib import Path

from outroute.testing.transports import LinkContract


class TestTls(LinkContract):
    def url(self, directory: Path) -> str:
        return "direct://"


class TestLocal(LinkContract):
    test_a_killed_process_fails_what_waits_and_is_reached_again = None  # there are no other processes

    def url(self, directory: Path) -> str:
        return "local://"


class TestZeroMq(LinkContract):
    def url(self, directory: Path) -> str:
        return "zeromq://"


class TestZeroMqWithoutSecurity(LinkContract):
    def url(self, directory: Path) -> str:
        return "zeromq://?security=off"


class TestGrpc(LinkContract):
    def url(self, directory: Path) -> str:
        return "grpc://"


class TestFlight(LinkContract):
    def url(self, directory: Path) -> str:
        return "flight://"
