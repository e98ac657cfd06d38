"""The stream that keeps a schema's frames: made where it may be, taken as it is where an administrator made it.

What it promises is found out, not assumed: a stream that may drop frames before they expire, or whose servers may lose
what they acknowledged, is used and never called durable.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outroute.errors import TransportError
from outroute.packet.layout import FUTURE_SECONDS
from outroute.schema import Schema
from outroute.transports.contract import UnreachableError
from outroute.transports.nats_connection import ApiError, DeniedError, NatsConnection
from outroute.transports.nats_options import NatsOptions
from outroute.transports.nats_subjects import Subjects

__all__ = ["DUPLICATE_SECONDS", "Stream", "covers", "last_of", "open_stream"]

DUPLICATE_SECONDS = 300
"""Seconds in which the server drops a message with an id that it has seen: five times as long as one is sent again."""
GRACE_SECONDS = 3600
"""Seconds that frames stay beyond their expiry, as stores keep packets: clocks differ."""
MONITOR_SECONDS = 5.0
"""Seconds for an answer of a server's monitoring."""
MONITOR_BYTES = 1 << 20
"""Bytes of such an answer, at most."""
_NANO = 1_000_000_000
_NOT_FOUND = (10059, 10014)
_EXISTS = 10058
_TTL_SINCE, _SYNC_TOLD_SINCE = (2, 11), (2, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream as it was found.

    Attributes:
        name: its name.
        created: when it was made, as the server writes it: another one is another stream.
        durable: whether what it acknowledges is on disk and stays until it expires.
        why: why not; empty where it is.
        ages: whether a message may say how long it stays.
        last: number of its last message.
    """

    name: str
    created: str
    durable: bool
    why: str
    ages: bool
    last: int


def longest_seconds(schema: Schema) -> int:
    """Seconds that a frame of a schema may have to stay."""
    return FUTURE_SECONDS + schema.time.bucket_seconds + schema.time.lifetime_seconds + GRACE_SECONDS


def covers(pattern: str, subject: str) -> bool:
    """Whether every subject that one pattern means is meant by another: ``a.>`` covers ``a.*.b``."""
    words, wanted = pattern.split("."), subject.split(".")
    for at, word in enumerate(words):
        if word == ">":
            return len(wanted) > at
        if at >= len(wanted) or wanted[at] == ">" or (word != "*" and word != wanted[at]):
            return False
    return len(words) == len(wanted)


async def open_stream(connection: NatsConnection, subjects: Subjects, schema: Schema) -> Stream:
    """Find the stream, or make it.

    Raises:
        TransportError: it is not there and may not be made, or does not fit (``nats.stream``); a server's monitoring
            contradicts what was declared (``nats.sync``).
        UnreachableError: JetStream does not answer.
    """
    options = connection.options
    name = options.stream or subjects.stream
    try:
        found = await _found(connection, name)
        if found is None:
            found = await _made(connection, name, subjects, schema)
    except UnreachableError as error:
        if error.code == "nats.nobody":
            where = f"in domain '{options.domain}'" if options.domain else "there"
            raise TransportError(
                f"no JetStream answers at {options.named}: have it turned on {where}", code="nats.jetstream"
            ) from None
        raise
    config = found.get("config", {})
    _check(name, config, subjects)
    why = await asyncio.to_thread(_not_synced, options, int(config.get("num_replicas", 1)))
    why = _loses(config, schema) or why
    state = found.get("state", {})
    return Stream(
        name=name,
        created=str(found.get("created", "")),
        durable=not why,
        why=why,
        ages=bool(config.get("allow_msg_ttl")),
        last=int(state.get("last_seq", 0)),
    )


async def last_of(connection: NatsConnection, name: str) -> int:
    """Number of a stream's last message at this moment.

    Raises:
        UnreachableError: JetStream does not answer, or has no such stream any more.
    """
    try:
        found = await connection.api(f"STREAM.INFO.{name}")
    except ApiError as error:
        raise UnreachableError(f"stream '{name}' is not told of ({error})", code="nats.unreachable") from None
    return int(found.get("state", {}).get("last_seq", 0))


async def _found(connection: NatsConnection, name: str) -> dict[str, Any] | None:
    try:
        return await connection.api(f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.number in _NOT_FOUND:
            return None
        raise _refused(name, error) from None


async def _made(connection: NatsConnection, name: str, subjects: Subjects, schema: Schema) -> dict[str, Any]:
    options = connection.options
    config: dict[str, Any] = {
        "name": name,
        "description": f"outroute, schema {schema.name[:80]}",
        "subjects": list(subjects.stored),
        "retention": "limits",
        "discard": "new",
        "storage": options.storage,
        "num_replicas": options.replicas,
        "max_age": longest_seconds(schema) * _NANO,
        "duplicate_window": DUPLICATE_SECONDS * _NANO,
        "deny_delete": True,
        "deny_purge": True,
    }
    if connection.version >= _TTL_SINCE:
        config["allow_msg_ttl"] = True
    try:
        return await connection.api(f"STREAM.CREATE.{name}", config)
    except DeniedError:
        raise TransportError(
            f"there is no stream '{name}', and this user may not make one: have an administrator make it, on the "
            f"subjects {' and '.join(subjects.stored)}",
            code="nats.stream",
        ) from None
    except ApiError as error:
        if error.number == _EXISTS:  # another node made it a moment ago
            found = await _found(connection, name)
            if found is not None:
                return found
        raise _refused(name, error) from None


def _refused(name: str, error: ApiError) -> TransportError:
    return TransportError(f"JetStream refuses stream '{name}': {error}", code="nats.stream")


def _check(name: str, config: Mapping[str, Any], subjects: Subjects) -> None:
    """Refuse a stream that cannot keep frames at all."""

    def wrong(what: str) -> TransportError:
        return TransportError(f"stream '{name}' cannot be used: {what}", code="nats.stream")

    kept = config.get("subjects") or []
    for subject in subjects.stored:
        if not any(covers(one, subject) for one in kept):
            raise wrong(f"it does not keep {subject}: add the subject, or name another stream")
    if config.get("retention") != "limits":
        raise wrong("frames would go when somebody has read them: its retention has to be limits")
    if config.get("sealed") or config.get("no_ack") or config.get("mirror"):
        raise wrong("it is sealed, a mirror, or does not acknowledge")


def _loses(config: Mapping[str, Any], schema: Schema) -> str:
    """Why what a stream has acknowledged may go before it expires; empty where it may not."""
    if config.get("storage") != "file":
        return "the stream lies in memory"
    if config.get("persist_mode") == "async":
        return "the stream is written after it has acknowledged (persist_mode)"
    limited = any(int(config.get(name) or -1) > 0 for name in ("max_msgs", "max_bytes", "max_msgs_per_subject"))
    if limited and config.get("discard") != "new":
        return "the stream drops old frames when it is full (discard has to be new)"
    age = int(config.get("max_age") or 0)
    if 0 < age < longest_seconds(schema) * _NANO:
        return f"the stream drops frames after {age // _NANO:,} seconds, before they expire (max_age)"
    return ""


def _not_synced(options: NatsOptions, replicas: int) -> str:
    """Why the servers may lose what they acknowledged; empty where they sync first. Blocks.

    Raises:
        TransportError: a server says that it does not, and was declared to.
    """
    told = [(url, _sync_of(url)) for url in options.monitor]
    for url, synced in told:
        if synced is False:
            if options.sync:
                raise TransportError(
                    f"sync=always is declared, and the server at {url} does not sync always: set sync_interval: "
                    "always in its jetstream block, or leave the option out",
                    code="nats.sync",
                )
            return f"the server at {url} syncs its files every now and then only (sync_interval)"
    if options.sync:
        return ""
    silent = [url for url, synced in told if synced is None]
    if silent:
        return f"the monitoring at {silent[0]} does not say whether it syncs always"
    if len(told) < replicas:
        return "nobody says whether all its servers sync before they acknowledge (monitor, sync)"
    return ""


def _sync_of(url: str) -> bool | None:
    """Whether a server syncs before it acknowledges, by its monitoring; None where it does not say."""
    try:
        with urllib.request.urlopen(f"{url}/varz", timeout=MONITOR_SECONDS) as reply:
            found = json.loads(reply.read(MONITOR_BYTES))
        config = found["jetstream"]["config"]
        if not isinstance(config, dict):
            return None
        if config.get("sync_always") is True:
            return True
        return False if _version(str(found.get("version", ""))) >= _SYNC_TOLD_SINCE else None
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
        return None


def _version(text: str) -> tuple[int, ...]:
    parts: Sequence[str] = text.split(".")[:2]
    return tuple(int(part) for part in parts if part.isdecimal())
