"""Full disks, locked directories, damaged files: a clear message, and nothing half-written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from outroute.errors import StoreError
from outroute.packet import PACKET_DTYPE
from outroute.placement import Kept
from outroute.store import Journal, PacketStore
from store.making import BUCKET_SECONDS, NOW, SCHEMA, make_packets, place

TESTS = Path(__file__).parent.parent


def many(count: int) -> np.ndarray:
    packets = np.tile(make_packets(1), count)
    packets["sequence"] = np.arange(count)
    assert packets.dtype == PACKET_DTYPE
    return packets


def fill(store: PacketStore, packets: np.ndarray) -> int:
    """Put batches of 128 until the disk is full; how many packets were acknowledged."""
    done = 0
    for at in range(0, len(packets), 128):
        batch = packets[at : at + 128]
        try:
            kept = store.put(place(at % 5), batch, bucket_seconds=BUCKET_SECONDS, now=NOW)
        except StoreError as error:
            if error.code not in ("store.full", "store.io") or "free" not in str(error):
                raise
            break
        assert (kept == Kept.STORED).all()
        done += len(batch)
    return done


def test_a_full_store_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    packets = many(1280)
    with PacketStore(tmp_path, page_limit=100) as store:
        done = fill(store, packets)
        assert 0 < done < 1280
        assert store.count() == done
        assert sum(len(f.packets) for f in store.fetch([place(i) for i in range(5)], now=NOW, cap=4096)) == done
    with PacketStore(tmp_path) as store:  # more room now: the rest fits
        assert store.count() == done
        kept = store.put(place(0), packets[done:], bucket_seconds=BUCKET_SECONDS, now=NOW)
        assert (kept == Kept.STORED).all()
        assert store.count() == 1280


def child(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=TESTS,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files, which Windows has not")
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The operating system refuses to write more: the real thing, in a process of its own."""
    script = """
        import resource, signal, sys
        from store.test_trouble import fill, many
        from outroute.store import PacketStore
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = PacketStore(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        done = fill(store, many(4000))
        print(done, store.count())
        store.close()
    """
    ran = child(script, tmp_path)
    assert ran.returncode == 0, ran.stderr
    done, count = map(int, ran.stdout.split())
    assert 0 < done < 4000
    assert count == done
    with PacketStore(tmp_path) as store:
        assert store.count() == done


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A file system of one megabyte; needs the right to mount one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a small file system to fill")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not allow a small file system to be mounted")
    try:
        packets = many(4000)
        with PacketStore(disk) as store:
            done = fill(store, packets)
            assert 0 < done < 4000
            assert store.count() == done
        with PacketStore(disk) as store:
            assert store.count() == done
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        with PacketStore(disk) as store:
            kept = store.put(place(0), packets[done:], bucket_seconds=BUCKET_SECONDS, now=NOW)
            assert (kept == Kept.STORED).all()
            assert store.count() == 4000
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    script = "import sys; from outroute.store import PacketStore; PacketStore(sys.argv[1]).close()"
    with PacketStore(tmp_path):
        ran = child(script, tmp_path)
        assert ran.returncode != 0
        assert "in use by another outroute process" in ran.stderr
        with pytest.raises(StoreError, match="in use") as raised:
            PacketStore(tmp_path)
        assert raised.value.code == "store.locked"
    assert child(script, tmp_path).returncode == 0


def opened(tmp_path: Path) -> str:
    """The code of the error when the store is opened."""
    with pytest.raises(StoreError) as raised:
        PacketStore(tmp_path)
    assert str(tmp_path) in str(raised.value)
    return raised.value.code


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "packets.db").write_bytes(b"this is a letter, not a database. " * 300)
    assert opened(tmp_path) == "store.corrupt"


@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_file_is_noticed(tmp_path: Path, seed: int) -> None:
    with PacketStore(tmp_path) as store:
        store.put(place(0), many(600), bucket_seconds=BUCKET_SECONDS, now=NOW)
    path = tmp_path / "packets.db"
    data = bytearray(path.read_bytes())
    at = 4096 * (3 + seed * 7)
    data[at : at + 4096] = np.random.default_rng(seed).bytes(4096)
    path.write_bytes(data)
    assert opened(tmp_path) == "store.corrupt"


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "packets.db") as connection:
        connection.execute("CREATE TABLE letters (text TEXT)")
    connection.close()
    assert opened(tmp_path) == "store.foreign"


def test_a_file_of_a_newer_release(tmp_path: Path) -> None:
    PacketStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "packets.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert opened(tmp_path) == "store.newer"


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("x")
    assert opened(tmp_path / "node") == "store.open"


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no permission bits")
    with Journal(tmp_path / "new", schema_id=SCHEMA.id, width=SCHEMA.width, now=NOW):
        assert (tmp_path / "new" / "journal.db").stat().st_mode & 0o077 == 0
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def test_a_journal_on_a_full_disk_keeps_all_or_nothing(tmp_path: Path) -> None:
    count = 4000
    codes = np.zeros((count, SCHEMA.width), dtype=np.uint16)
    with Journal(tmp_path, schema_id=SCHEMA.id, width=SCHEMA.width, now=NOW, page_limit=60) as journal:
        journal.observe(range(10), codes[:10], np.ones(10), bucket=np.zeros(10, dtype=np.int64))
        with pytest.raises(StoreError, match="free some space"):
            journal.observe(range(count), codes, np.ones(count), bucket=np.zeros(count, dtype=np.int64))
        assert journal.counts()["known"] == 10
    with Journal(tmp_path, schema_id=SCHEMA.id, width=SCHEMA.width, now=NOW) as journal:
        noted = journal.observe(range(count), codes, np.ones(count), bucket=np.zeros(count, dtype=np.int64))
        assert np.count_nonzero(noted == 0) == count - 10
