"""What a node knows about keys: who belongs to which organisation, who is revoked, who follows whom.

A pure set of statements. Two registers that learnt the same statements, in any order, say the same (as long as no
limit was reached).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from outroute.identity.filing import Learned, Refused, StatementReason, filed, issuer_of
from outroute.identity.keys import CLOCK_SKEW_SECONDS, node_id
from outroute.identity.lineage import Lineages
from outroute.identity.statements import Membership, Revocation, Statement, Succession, read_statement

__all__ = ["ORGANISATIONS_LIMIT", "STATEMENTS_LIMIT", "STATEMENTS_PER_ORGANISATION", "Register"]

STATEMENTS_PER_ORGANISATION = 131_072
"""Statements kept of one organisation: a hundred thousand devices, and room for those that are revoked."""
ORGANISATIONS_LIMIT = 16_384
"""Organisations that statements are kept of when none are named: more than any network has members of the kind."""
STATEMENTS_LIMIT = 262_144
"""Statements kept in all: at some 1,300 bytes each about 340 MB."""
SUCCESSORS_LIMIT = 16
"""Successors kept of one key: two show that it has none, and the others may have revoked something."""
HEIRS_LIMIT = 1024
"""Keys that count as later keys of an organisation: with one a year, more than any organisation has had."""
EVICTION_SECONDS = 3600
"""Expired memberships are looked for once an hour at most where there is no more room: each search reads them all."""
BLANKS_LIMIT = 1024
"""Places that replaced statements leave empty, beyond one for each in force, before the list is renumbered."""


@dataclass(frozen=True, slots=True)
class _Kept:
    statement: Statement
    data: bytes
    place: int


class Register:
    """Learns statements, answers questions about keys.

    Args:
        organisations: keys of the organisations that the network names; when given, others are refused, and room
            cannot be taken by strangers. Successors of these keys count as they do.
    """

    def __init__(self, organisations: Iterable[bytes] = ()) -> None:
        self.organisations = frozenset(organisations)
        self.version = 0
        """Grows with everything new."""
        self.epoch = 0
        """Grows when places of the list of statements change their numbers."""
        self._kept: dict[tuple[bytes, ...], _Kept] = {}
        self._journal: list[bytes | None] = []
        self._owned: dict[bytes, int] = {}
        self._searched: dict[bytes, int] = {}
        self._memberships: dict[bytes, dict[bytes, Membership]] = {}
        self._revocations: dict[bytes, dict[bytes, Revocation]] = {}
        self._successors: dict[bytes, dict[tuple[bytes, bytes], Succession]] = {}
        self._keys: dict[bytes, bytes] = {}
        self._lineages: Lineages | None = Lineages()
        self._stolen = 0

    def __len__(self) -> int:
        return len(self._kept)

    # learning -----------------------------------------------------------------------------------------------

    def learn(self, data: bytes, now: int, *, checked: bool = False) -> Learned | Refused:
        """Take a statement in, whoever it comes from; learning it again changes nothing.

        Args:
            data: the statement as it travels.
            now: seconds since 1970-01-01 UTC.
            checked: it comes from this node's own disk, where only what was checked is kept.
        """
        statement = read_statement(data)
        if statement is None:
            return Refused(reason=StatementReason.FORM)
        key, owner, rank = filed(statement, data)
        known = self._kept.get(key)
        if known is not None and filed(known.statement, known.data)[2] >= rank:
            return Learned(statement=statement, new=False)
        reason = self._foreign(statement)
        if not isinstance(statement, Membership) and statement.at > now + CLOCK_SKEW_SECONDS:
            reason = StatementReason.FUTURE
        if reason is None and not checked and not statement.genuine():
            reason = StatementReason.SIGNATURE
        if reason is None and known is None:
            reason = self._no_room(statement, owner, now)
        if reason is not None:
            return Refused(reason=reason)
        self._keep(key, owner, statement, data)
        return Learned(statement=statement, new=True)

    def _foreign(self, statement: Statement) -> StatementReason | None:
        if not self.organisations:
            return None
        if isinstance(statement, Membership):
            said_by = statement.certificate.organisation
        elif isinstance(statement, Revocation):
            said_by = statement.organisation
        else:
            said_by = statement.old if statement.certificate is None else statement.certificate.organisation
        own = isinstance(statement, Revocation) and statement.subject == said_by and said_by in self._memberships
        named = own or said_by in self.organisations or not self.organisations.isdisjoint(self.lineage(said_by))
        return None if named else StatementReason.FOREIGN

    def _no_room(self, statement: Statement, owner: bytes, now: int) -> StatementReason | None:
        """Why there is no room for a statement of another key or about another one."""
        if isinstance(statement, Succession):
            siblings = sum(by == issuer_of(statement) for by, _ in self._successors.get(statement.old, {}))
            if siblings >= SUCCESSORS_LIMIT:
                return StatementReason.FORKED
        if owner not in self._owned and len(self._owned) >= ORGANISATIONS_LIMIT and owner not in self.organisations:
            return StatementReason.FULL
        if not self._room(owner):
            self._evict(owner, now)
        return None if self._room(owner) else StatementReason.FULL

    def _room(self, owner: bytes) -> bool:
        return self._owned.get(owner, 0) < STATEMENTS_PER_ORGANISATION and len(self._kept) < STATEMENTS_LIMIT

    def _evict(self, owner: bytes, now: int) -> None:
        """Forget an organisation's expired memberships that no revocation needs.

        They are kept while there is room: by a membership of long ago a node is still revoked.
        """
        if owner not in self._owned or now - self._searched.get(owner, now - EVICTION_SECONDS) < EVICTION_SECONDS:
            return
        self._searched[owner] = now
        for key, kept in list(self._kept.items()):
            said = kept.statement
            if (
                isinstance(said, Membership)
                and said.certificate.organisation == owner
                and said.certificate.not_after + CLOCK_SKEW_SECONDS < now
                and said.certificate.node not in self._revocations
            ):
                self._forget(key)

    def _keep(self, key: tuple[bytes, ...], owner: bytes, statement: Statement, data: bytes) -> None:
        if key in self._kept:
            self._forget(key)
        self._kept[key] = _Kept(statement, data, len(self._journal))
        self._journal.append(data)
        self._owned[owner] = self._owned.get(owner, 0) + 1
        if isinstance(statement, Membership):
            node = statement.certificate.node
            self._memberships.setdefault(node, {})[statement.certificate.organisation] = statement
            self._keys[node_id(node)] = node
        elif isinstance(statement, Revocation):
            self._revocations.setdefault(statement.subject, {})[statement.organisation] = statement
            self._stolen += statement.compromised
            self._keys[node_id(statement.subject)] = statement.subject
        else:
            self._successors.setdefault(statement.old, {})[issuer_of(statement), statement.new] = statement
        self._changed(statement)
        if len(self._journal) > 2 * len(self._kept) + BLANKS_LIMIT:
            self._renumber()

    def _renumber(self) -> None:
        order = sorted(self._kept, key=lambda key: self._kept[key].place)
        self._journal = [self._kept[key].data for key in order]
        for place, key in enumerate(order):
            self._kept[key] = replace(self._kept[key], place=place)
        self.epoch += 1

    def _forget(self, key: tuple[bytes, ...]) -> None:
        kept = self._kept.pop(key)
        self._journal[kept.place] = None
        _, owner, _ = filed(kept.statement, kept.data)
        self._owned[owner] -= 1
        if not self._owned[owner]:
            del self._owned[owner]
            self._searched.pop(owner, None)
        said = kept.statement
        if isinstance(said, Membership):
            of_node = self._memberships[said.certificate.node]
            del of_node[said.certificate.organisation]
            if not of_node:
                del self._memberships[said.certificate.node]
        elif isinstance(said, Revocation):
            del self._revocations[said.subject][said.organisation]
            self._stolen -= said.compromised
        else:
            del self._successors[said.old][issuer_of(said), said.new]
        self._changed(said)

    def _changed(self, statement: Statement) -> None:
        self.version += 1
        subject = statement.certificate.node if isinstance(statement, Membership) else None
        if isinstance(statement, Succession) or (subject or _own(statement)) in self._successors:
            self._lineages = None

    # passing on ---------------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """How many places the list of statements has; it only grows within an epoch."""
        return len(self._journal)

    def statements(self, after: int = 0, limit: int | None = None) -> tuple[list[bytes], int]:
        """Statements in the order in which they were learnt, and the place to go on from.

        Args:
            after: the place to begin at.
            limit: how many at most; default all.
        """
        found: list[bytes] = []
        place = max(0, after)
        while place < len(self._journal) and (limit is None or len(found) < limit):
            data = self._journal[place]
            if data is not None:
                found.append(data)
            place += 1
        return found, place

    # asking -------------------------------------------------------------------------------------------------

    def organisation_of(self, node_key: bytes, now: int) -> bytes:
        """The organisation that a node counts under, named by the first key that the organisation ever had.

        A node that nobody certifies at ``now`` counts as one of its own. A key that is itself a node of an
        organisation certifies nobody: there are no chains. Of several organisations the last one joined counts.
        """
        best: tuple[int, int, bytes] | None = None
        for organisation, membership in tuple(self._memberships.get(node_key, {}).items()):
            certificate = membership.certificate
            if certificate.in_time(now) and self.certifies(organisation):
                rank = (certificate.not_before, certificate.not_after, organisation)
                best = rank if best is None else max(best, rank)
        return self.origin(node_key if best is None else best[2])

    def certifies(self, organisation: bytes) -> bool:
        """Whether a key is that of an organisation, not revoked by itself, and not of somebody's node."""
        if organisation in self._revocations.get(organisation, {}):
            return False
        return all(other == organisation for other in tuple(self._memberships.get(organisation, {})))

    def certificates(self, node_key: bytes, now: int) -> tuple[Membership, ...]:
        """A node's memberships at ``now``, newest first."""
        found = [m for m in tuple(self._memberships.get(node_key, {}).values()) if m.certificate.in_time(now)]
        return tuple(sorted(found, key=lambda m: (m.certificate.not_before, m.to_bytes()), reverse=True))

    def organisations_at(self, now: int) -> dict[bytes, bytes]:
        """Organisation by node key, of all nodes that an organisation certifies at ``now``."""
        found = {node: self.organisation_of(node, now) for node in tuple(self._memberships)}
        return {node: organisation for node, organisation in found.items() if organisation != self.origin(node)}

    def revocations_of(self, key: bytes, now: int) -> tuple[Revocation, ...]:
        """Why a key is revoked, oldest first; empty when it is not.

        That is: by the key itself, by an organisation that the node belongs or belonged to, and for a node whose
        organisations are all revoked by these.
        """
        found = list(self._direct(key))
        memberships = dict(self._memberships.get(key, {}))
        if memberships:
            lost = {o: self._revocations.get(o, {}).get(o) for o in memberships}
            standing = [o for o, why in lost.items() if why is None and memberships[o].certificate.in_time(now)]
            if not standing:
                found += [why for why in lost.values() if why is not None]
        return tuple(sorted((r for r in found if r.at <= now + CLOCK_SKEW_SECONDS), key=lambda r: (r.at, r.to_bytes())))

    def revoked(self, key: bytes, now: int) -> bool:
        """Whether a key is revoked: nothing new that it signs is taken."""
        return bool(self._revocations) and bool(self.revocations_of(key, now))

    def compromised(self, key: bytes, now: int | None = None) -> bool:
        """Whether others may have a key: nothing that it ever signed is believed."""
        at = 2**62 if now is None else now
        return self._stolen > 0 and any(why.compromised for why in self.revocations_of(key, at))

    @property
    def any_revoked(self) -> bool:
        """Whether there is any revocation at all: false lets callers pass many keys at once."""
        return bool(self._revocations)

    @property
    def any_followed(self) -> bool:
        """Whether any key is said to be followed by another one."""
        return bool(self._successors)

    @property
    def any_compromised(self) -> bool:
        """Whether any revocation says that others may have a key."""
        return self._stolen > 0

    def key_of(self, member: bytes) -> bytes | None:
        """The public key of a node id, where a statement names it."""
        return self._keys.get(member)

    def member_revoked(self, member: bytes, now: int) -> bool:
        """Whether the key of a node id is revoked."""
        key = self._keys.get(member)
        return key is not None and self.revoked(key, now)

    def origin(self, key: bytes) -> bytes:
        """The first key of the chain that a key belongs to: the name under which trust and limits carry over."""
        return self._chains().origin(key)

    def current(self, key: bytes) -> bytes:
        """The key that follows, and what follows that, to the end."""
        return self._chains().current(key)

    def lineage(self, key: bytes) -> tuple[bytes, ...]:
        """All keys of the chain that a key belongs to, oldest first."""
        return self._chains().chain(key)

    # judging ------------------------------------------------------------------------------------------------

    def _direct(self, key: bytes) -> Iterable[Revocation]:
        """Revocations of a key by itself or by an organisation that it belongs or belonged to."""
        said = self._revocations.get(key)
        if not said:
            return
        entitled = self._heirs(self._memberships.get(key, {}))
        for organisation, revocation in tuple(said.items()):
            if organisation == key or organisation in entitled:
                yield revocation

    def _heirs(self, organisations: Iterable[bytes]) -> set[bytes]:
        """Some organisations' keys and all that they ever named as successors, whether these count or not.

        So a revocation by a later key stands, even if a thief of an earlier one names another successor.
        """
        found = set(organisations)
        waiting = list(found)
        while waiting and len(found) < HEIRS_LIMIT:
            new = {new for _, new in tuple(self._successors.get(waiting.pop(), {}))} - found
            found |= new
            waiting += new
        return found

    def _chains(self) -> Lineages:
        found = self._lineages
        if found is None:
            found = self._lineages = self._judged()
        return found

    def _judged(self) -> Lineages:
        """The steps that count: those of organisations first, as they decide which steps of nodes count."""
        own = [(old, new) for old, successors in self._successors.items() for _, new in successors if self._free(old)]
        chains = Lineages(own)
        steps = list(own)
        for old, successors in self._successors.items():
            entitled = {chains.origin(organisation) for organisation in self._memberships.get(old, {})}
            steps += [(old, new) for issuer, new in successors if issuer and chains.origin(issuer) in entitled]
        return Lineages(steps)

    def _free(self, key: bytes) -> bool:
        """Whether a key names its successor by itself: it is no organisation's node, and not given up as stolen.

        For a node of an organisation, its organisation vouches for the successor, which a thief cannot have it do.
        """
        own = self._revocations.get(key, {}).get(key)
        return not self._memberships.get(key) and (own is None or not own.compromised)


def _own(statement: Statement) -> bytes | None:
    """The key that a self-revocation is about."""
    if isinstance(statement, Revocation) and statement.organisation == statement.subject:
        return statement.subject
    return None
