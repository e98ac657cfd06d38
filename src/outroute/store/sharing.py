"""What a synthesizer holds of others' shares, until it has added them up: each of them once, and never again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from outroute.distill.contribution import Contribution, Refusal
from outroute.store.database import Database, scalar

__all__ = ["MAX_HELD", "Sharing"]

MAX_HELD = 1_000_000
"""Contributions held at once, some kB each: a few GB at most."""

_APPLICATION = 0x6F727368  # "orsh"


class Sharing:
    """Shares held by one node.

    Args:
        directory: the node's; None keeps them in memory.

    Raises:
        StoreError: as ``Database``.
    """

    def __init__(self, directory: Path | str | None) -> None:
        self._database = Database(
            None if directory is None else Path(directory) / "shares.db",
            application=_APPLICATION,
            migrations=(_layout,),
            overwrite=True,
        )

    def add(self, found: Iterable[Contribution | Refusal], *, most: int = MAX_HELD) -> tuple[int, dict[Refusal, int]]:
        """Keep contributions; those refused, held or added up before are counted.

        Args:
            found: what came.
            most: contributions of one site that wait at a time; so many cohorts it can spoil or bend at once.

        Returns:
            How many are new, and how many were refused for each reason.
        """
        new, refused = 0, dict[Refusal, int]()
        with self._database.transaction() as connection:
            waiting = dict(
                connection.execute(
                    "SELECT site, count(*) FROM contributions WHERE share IS NOT NULL GROUP BY site"
                ).fetchall()
            )
            room = MAX_HELD - sum(waiting.values())
            for one in found:
                why = one if isinstance(one, Refusal) else None if new < room else Refusal.FULL
                if isinstance(one, Contribution) and why is None and waiting.get(one.site, 0) >= most:
                    why = Refusal.MANY
                if isinstance(one, Contribution) and why is None:
                    done = connection.execute(
                        "INSERT OR IGNORE INTO contributions VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                        (
                            one.id,
                            one.site,
                            one.other,
                            one.facet,
                            one.cell,
                            one.bucket,
                            one.share.astype("<u8").tobytes(),
                        ),
                    ).rowcount
                    new += done
                    waiting[one.site] = waiting.get(one.site, 0) + done
                    why = None if done else Refusal.KNOWN
                if why is not None:
                    refused[why] = refused.get(why, 0) + 1
        return new, refused

    def roll(self, other: bytes) -> tuple[bytes, ...]:
        """The contributions held together with another synthesizer, ascending; they are what can be added up next."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE contributions SET rolled = 1 WHERE other = ? AND share IS NOT NULL", (other,))
            rows = connection.execute(
                "SELECT id FROM contributions WHERE other = ? AND share IS NOT NULL ORDER BY id", (other,)
            ).fetchall()
        return tuple(row[0] for row in rows)

    def rolled(self, other: bytes, ids: Sequence[bytes]) -> list[Contribution]:
        """What stands in the newest own roll and among ``ids``, ascending."""
        wanted = set(ids)
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, site, other, facet, cell, bucket, share FROM contributions"
                " WHERE other = ? AND rolled = 1 AND share IS NOT NULL ORDER BY id",
                (other,),
            ).fetchall()
        return [
            Contribution(
                id=row[0],
                site=row[1],
                other=row[2],
                facet=row[3],
                cell=row[4],
                bucket=row[5],
                share=np.frombuffer(row[6], dtype="<u8").astype(np.uint64),
            )
            for row in rows
            if row[0] in wanted
        ]

    def spend(self, ids: Iterable[bytes]) -> None:
        """Forget the shares of what was added up, for good; its name stays, so that it is never taken again."""
        with self._database.transaction() as connection:
            connection.executemany("UPDATE contributions SET share = NULL WHERE id = ?", [(one,) for one in ids])
        self._database.settle()

    def counts(self) -> dict[str, int]:
        """How many contributions are held, by how many sites, and how many were added up."""
        with self._database.reading() as connection:
            return {
                "held": scalar(connection, "SELECT count(*) FROM contributions WHERE share IS NOT NULL"),
                "sites": scalar(connection, "SELECT count(DISTINCT site) FROM contributions WHERE share IS NOT NULL"),
                "added_up": scalar(connection, "SELECT count(*) FROM contributions WHERE share IS NULL"),
            }

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._database.close()


def _layout(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE contributions (id BLOB PRIMARY KEY, site BLOB NOT NULL, other BLOB NOT NULL,"
        " facet INTEGER NOT NULL, cell INTEGER NOT NULL, bucket INTEGER NOT NULL, share BLOB,"
        " rolled INTEGER NOT NULL)"
    )
