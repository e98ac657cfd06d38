"""A node that lives in a network of processes until it is told to stop.

It composes a ``Node`` with the transport of its network and does by itself what must not wait for a call: handing over
what is approved until it is acknowledged, calling again those it has lost, keeping places for the next start.

``LivingNode.using`` hands the ``Node`` out to one thread at a time. Two things need not wait for that: a question goes
on while packets are made or handed over (``LivingNode.ask``), since neither changes what answers rest on, and what only
reads the node's files (``LivingNode.looking``) goes on always.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from outroute.errors import OutrouteError, TransportError
from outroute.node.approval import Approval, default_approval, load_rules
from outroute.node.asking import PROBES
from outroute.node.causes import Causes
from outroute.node.comparing import Comparison
from outroute.node.discretion import Discretion
from outroute.node.electing import Electing
from outroute.node.entering import Entering
from outroute.node.insight import Insight, Insights
from outroute.node.joining import Joining, Place, keep_peers, kept_peers
from outroute.node.members import Pinned
from outroute.node.meshing import transport_for
from outroute.node.node import Node
from outroute.node.pathways import TOP, Pathways
from outroute.node.portal import run
from outroute.node.reports import Distillation, Published
from outroute.node.rotating import Rotating
from outroute.schema import Schema
from outroute.store import State, load_identity
from outroute.synthesis import Settings
from outroute.transports import Announcement, Role, UnreachableError
from outroute.transports.serving import Counted

__all__ = ["HAND_OVER_SECONDS", "LivingNode"]

HAND_OVER_SECONDS = 2.0
"""Seconds between looks at whether something approved waits to be handed over."""
HAND_OVER_MOST = 60.0
"""The longest wait before what nobody acknowledged is sent again; it doubles from attempt to attempt."""
CALL_AGAIN_SECONDS = 5.0
"""Seconds between attempts to find members while this node knows nobody."""
PEERS_SECONDS = 30.0
"""Seconds between looks at whether the places of members have changed."""
TWIN_SECONDS = 30.0
"""Seconds between looks at whether somebody else announces with this node's key; twice in a row is no echo."""
SWEEP_SECONDS = 3600.0
"""Seconds between deletions of what has expired."""

_log = logging.getLogger("outroute.node")


class LivingNode:
    """A node in a network of processes.

    Args:
        schema: what it serves.
        data_dir: its directory.
        joining: how it takes part.
        approval, restored, electing, discretion, settings, clock: see ``Node``.
        rules: file of rules of approval; while it is there it counts instead of ``approval``, read at each ``distil``.
        hand_over_seconds: between looks at whether something waits to be handed over.
        secret_file: where the network secret of ``joining`` was read; read again when the file changes.

    Raises:
        TransportError: a port is taken, or nobody answered at any place to join and this node was in no network before.
        StoreError, SchemaError: see ``Node``.
    """

    def __init__(
        self,
        schema: Schema,
        data_dir: Path | str,
        *,
        joining: Joining | None = None,
        approval: Approval | None = None,
        rules: Path | None = None,
        restored: bool = False,
        electing: Electing | None = None,
        discretion: Discretion | None = None,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.time,
        hand_over_seconds: float = HAND_OVER_SECONDS,
        secret_file: Path | None = None,
    ) -> None:
        self.schema, self.directory = schema, Path(data_dir)
        self._approval, self._rules = approval or default_approval(schema), rules
        self.joining = joining or Joining()
        self._clock, self._wait = clock, hand_over_seconds
        self._lock = threading.RLock()
        """Held by whoever changes what the node knows or has made."""
        self._answering = threading.RLock()
        """Held by whoever asks, or changes what answers rest on; taken after ``_lock``, never before."""
        self._rotating = None if secret_file is None else Rotating(secret_file, self.joining.secrets)
        self._stop, self._wake = threading.Event(), threading.Event()
        self._background: threading.Thread | None = None
        self.problems: dict[str, str] = {}
        """What went wrong the last time that this node did something by itself, by what it did."""
        self.counting: list[Callable[[], Iterable[Counted]]] = []
        """What else is counted in this process, for ``/metrics``."""
        self.started_at = self._now()
        self._sending: tuple[int, ...] = ()
        self._twin, self._twins = False, (0, False)
        self.published = {"sent": 0, "acknowledged": 0, "refused": 0}
        """Packets and withdrawals handed over since the start; one that is sent again counts again."""
        identity = load_identity(self.directory)
        self.key = identity.public_key
        self.pinned = None
        if self.joining.members is not None:
            self.pinned = Pinned(self.joining.members, self.directory, organisations=schema.organisations)
            if not self.pinned.admits(identity.public_key):
                raise TransportError(
                    f"this node's key {identity.public_key.hex()} is not in '{self.joining.members}': have the "
                    "organisation add it",
                    code="members.self",
                )
        self.transport, self.finder = transport_for(
            schema, self.directory, identity, self.joining, pinned=self.pinned, clock=self._now
        )
        self._entering = Entering(
            self.transport,
            self.finder,
            joining=self.joining,
            directory=self.directory,
            pinned=self.pinned,
            key=self.key,
        )
        try:
            self.problems |= self._entering.enter()
            self.node = Node(
                schema,
                transport=self.transport,
                data_dir=self.directory,
                identity=identity,
                clock=clock,
                approval=self._approval_now(),
                restored=restored,
                electing=electing or Electing(),
                discretion=discretion or Discretion(),
                settings=settings or Settings(),
            )
        except BaseException:
            self._abandon()
            raise
        self.causes = Causes(self.directory, self.node.journal.outbox)
        self.node.cause_of = self._cause_of
        _log.info("started", extra={"node": self.node.id.hex(), "endpoint": self.transport.endpoint})
        self._try("peers", self._keep_peers)
        self._background = threading.Thread(target=self._live, name="outroute-node", daemon=True)
        self._background.start()

    def _now(self) -> int:
        return int(self._clock())

    def places(self) -> list[Place]:
        """Whom to call: those named, those listed, those met before; this node itself left out."""
        return self._entering.places()

    def _abandon(self) -> None:
        """Nothing may stay open when the start failed."""
        self._entering.abandon()
        self.transport.abandon()

    # using --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def using(self) -> Iterator[Node]:
        """The node, for this thread alone until the block ends."""
        with self._lock, self._answering:
            yield self.node

    @contextlib.contextmanager
    def looking(self) -> Iterator[Node]:
        """The node, to read what its files hold: counts, the outbox, the log. Others go on meanwhile."""
        yield self.node

    def ask(self, case: Mapping[str, Any], **wanted: Any) -> Insight:
        """See ``Node.ask``; goes on while packets are made or handed over."""
        with self._answering:
            return self.node.ask(case, **wanted)

    def compare(self, case: Mapping[str, Any], by: str, values: Sequence[Any] | None, *, probes: int) -> Comparison:
        """See ``Node.compare``; goes on while packets are made or handed over."""
        with self._answering:
            return self.node.compare(case, by, values, probes=probes)

    def ask_many(self, cases: Sequence[Mapping[str, Any]], *, probes: int = PROBES) -> Insights:
        """See ``Node.ask_many``; goes on while packets are made or handed over."""
        with self._answering:
            return self.node.ask_many(cases, probes=probes)

    def paths(self, *, top: int = TOP) -> Pathways:
        """See ``Node.paths``; goes on while packets are made or handed over."""
        with self._answering:
            return self.node.paths(top=top)

    def needs(self, role: Role) -> None:
        """Refuse what this node does not do.

        Raises:
            TransportError: it does not have the role.
        """
        if role not in self.joining.roles:
            name = (role.name or "").lower()
            raise TransportError(
                f"this node does not {name}: start it with --roles emit,ask,hold", code="transport.roles"
            )

    def observed(self, changed: int, cause: bytes) -> bytes:
        """Something was observed or confirmed: the cause that it and its packets have in all logs.

        Args:
            changed: observations.
            cause: 16 random bytes, used when no cause is open.
        """
        with self._lock:
            cause = self.causes.observed(cause)
        _log.info("observed", extra={"cause": cause.hex(), "observations": changed})
        return cause

    def distil(self, *, k: int | None = None, streaming: bool = False) -> Distillation:
        """See ``Node.distil``."""
        with self._lock:
            self.node.approve_with(self._approval_now())
            made = self.node.distil(k=k, streaming=streaming)
            cause = self.causes.distilled()
        _log.info("distilled", extra={"cause": cause.hex(), "packets": made.packets, "approved": made.approved})
        if made.approved:
            self.look_again()
        return made

    def _approval_now(self) -> Approval:
        return load_rules(self._rules) if self._rules is not None and self._rules.exists() else self._approval

    def _cause_of(self, numbers: Sequence[int]) -> list[bytes]:
        self._sending = (*self._sending, *numbers)
        return self.causes.of(numbers)

    @property
    def endpoint(self) -> str:
        """Where this node is reached by others; empty where nobody calls it."""
        return self.transport.endpoint

    @property
    def id(self) -> bytes:
        """The node's id, 32 bytes."""
        return self.node.id

    def peers(self) -> list[Announcement]:
        """Announcements of the live members, this node's among them, by id."""
        return self.transport.peers()

    def all_problems(self) -> dict[str, str]:
        """What goes wrong at the moment, by what this node does by itself."""
        out = {**self.problems, **self.transport.problems}
        if self._twin:
            out["twin"] = "another process announces itself with this node's key: its directory was copied, stop one"
        if self.pinned is not None and self.pinned.problem:
            out["members"] = self.pinned.problem
        return out

    def hand_over(self) -> Published:
        """Hand over what is approved now, instead of in a moment; see ``Node.publish``."""
        with self._lock:
            self._sending = ()
            done = self.node.publish()
        if done.sent:
            for name in self.published:
                self.published[name] += getattr(done, name)
            self._log_sent()
        return done

    def _log_sent(self) -> None:
        """One line for each cause that something was handed over under."""
        numbers, self._sending = self._sending, ()
        found = self.node.journal.outbox.get(numbers)
        counts: dict[bytes, Counter[State]] = {}
        for cause, state in zip(self.causes.of(found.ids.tolist()), found.states.tolist(), strict=True):
            counts.setdefault(cause, Counter())[State(state)] += 1
        for cause, by_state in counts.items():
            _log.info(
                "acknowledged" if set(by_state) == {State.ACKNOWLEDGED} else "handed over",
                extra={"cause": cause.hex()} | {state.name.lower(): n for state, n in by_state.items()},
            )

    def look_again(self) -> None:
        """Something was approved or withdrawn: hand it over soon."""
        self._wake.set()

    # living by itself ---------------------------------------------------------------------------------------

    def _live(self) -> None:
        """The background thread."""
        due = dict.fromkeys(("hand over", "secret", "join", "peers", "twins", "sweep"), time.monotonic())
        due["sweep"] += SWEEP_SECONDS
        waited = 0.0
        members = -1
        while not self._stop.is_set():
            woken = self._wake.wait(self._wait)
            if self._stop.is_set():
                return
            self._wake.clear()
            now = time.monotonic()
            living = len(self.transport.peers())
            if woken or living != members:  # something new to send, or somebody new to take it
                members, waited, due["hand over"], due["peers"] = living, 0.0, now, now
            if now >= due["hand over"] and Role.EMIT in self.joining.roles:
                waited = (
                    0.0 if self._try("hand over", self._all_handed_over) else min(waited * 2 or 2.0, HAND_OVER_MOST)
                )
                due["hand over"] = now + waited
            if now >= due["secret"]:
                self._try("secret", self._read_secret_again)
                due["secret"] = now + CALL_AGAIN_SECONDS
            if now >= due["join"]:
                self._try("join", self._call_again)
                due["join"] = now + CALL_AGAIN_SECONDS
            if now >= due["peers"]:
                self._try("peers", self._keep_peers)
                due["peers"] = now + PEERS_SECONDS
            if now >= due["twins"]:
                self._look_for_twin()
                due["twins"] = now + TWIN_SECONDS
            if now >= due["sweep"]:
                self._try("sweep", self._sweep)
                due["sweep"] = now + SWEEP_SECONDS

    def _try(self, name: str, work: Callable[[], bool]) -> bool:
        """Do something; what goes wrong is kept in ``problems`` and tried again."""
        try:
            done = work()
        except (OutrouteError, OSError) as error:
            if self.problems.get(name) != str(error):
                _log.warning("%s failed", name, extra={"problem": str(error)})
            self.problems[name] = str(error)
            return False
        if self.problems.pop(name, None) is not None:
            _log.info("%s works again", name)
        return done

    def _all_handed_over(self) -> bool:
        with self._lock:
            summary = self.node.journal.outbox.summary()
            waiting = sum(
                counts.get(state, 0)
                for counts in (summary.packets, summary.withdrawals)
                for state in (State.QUEUED, State.SENT)
            )
            if not waiting:
                return True
            return self.hand_over().pending == 0

    def _call_again(self) -> bool:
        """While this node is alone, and when a list of members names some that it does not know: call."""
        if self.pinned is not None and self.pinned.refresh():
            _log.info("new list of members", extra={"number": self.pinned.list.number})
        if len(self.transport.peers()) > 1:
            return True
        places = self.places()
        if places:
            run(self.transport.join(map(str, places)))
            if self.finder is not None:
                self.finder.bootstrap([(place.host.strip("[]"), place.port) for place in places])
        return True

    def _read_secret_again(self) -> bool:
        """The secret rotates while the node runs: connections made from now on prove the new one."""
        found = None if self._rotating is None else self._rotating.refresh()
        if found is not None:
            self.transport.renew(found)
            if self.finder is not None:
                self.finder.secrets = found
            _log.info("network secret read again", extra={"secrets": len(found.known)})
        return True

    def _look_for_twin(self) -> None:
        """After a quick restart this node's own farewell comes back to it, for seconds; a twin goes on announcing."""
        heard, grew = self._twins
        total = self.transport.announcements["twin"]
        self._twin = grew and total > heard
        self._twins = total, total > heard

    def _keep_peers(self) -> bool:
        met = [one.endpoint for one in self.transport.peers() if one.endpoint not in ("", self.transport.endpoint)]
        if met:
            old = [str(place) for place in kept_peers(self.directory)]
            new = list(dict.fromkeys([*sorted(met), *old]))
            if new != old:
                keep_peers(self.directory, new)
        return True

    def _sweep(self) -> bool:
        self.transport.sweep(self._now())
        return True

    # stopping -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Drain and leave: hand over what is approved, give what is kept to others, say farewell, close the files."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake.set()
        if self._background is not None:
            self._background.join()
        try:
            if Role.EMIT in self.joining.roles:
                self._try("hand over", self._all_handed_over)
            self._try("peers", self._keep_peers)
        finally:
            with self._lock, self._answering:
                try:
                    with contextlib.suppress(UnreachableError):
                        self.node.close()
                finally:
                    if self.finder is not None:
                        run(self.finder.close())
        _log.info("stopped", extra={"node": self.node.id.hex()})

    def __enter__(self) -> LivingNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
