"""Fetches a public table: from where its owners publish it, with the right checksums, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from outroute.errors import DataError

__all__ = ["ABOUT_FILE", "SOURCES", "Source", "fetch", "missing"]

ARCHIVE_BYTES_MOST = 64 * 1024 * 1024
"""Of an archive: what is more is not the one that is meant."""
READ_SECONDS = 60.0
"""Without a byte, and the fetch is given up."""
ABOUT_FILE = "PROVENANCE.txt"
"""Written beside the files: where they come from, and under which terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A public table.

    Attributes:
        name: of the data set.
        title: for people.
        url: of the archive (zip).
        files: SHA-256 and length of each file that is used, by its name in the archive.
        provenance, licence: for people, as the loader says them.
        citation: how its owners want to be named.
    """

    name: str
    title: str
    url: str
    files: Mapping[str, tuple[str, int]]
    provenance: str
    licence: str
    citation: str


SOURCES: Mapping[str, Source] = {
    "heart": Source(
        name="heart",
        title="heart disease at four hospitals, 920 patients",
        url="https://archive.ics.uci.edu/static/public/45/heart+disease.zip",
        files={
            "processed.cleveland.data": ("a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8", 18_461),
            "processed.hungarian.data": ("d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796", 10_263),
            "processed.switzerland.data": ("834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314", 4_109),
            "processed.va.data": ("e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f", 6_737),
        },
        provenance="UCI Heart Disease, id 45 (Janosi, Steinbrunn, Pfisterer, Detrano, 1988), processed files",
        licence="CC BY 4.0",
        citation="Janosi, A., Steinbrunn, W., Pfisterer, M., & Detrano, R. (1989). Heart Disease [Dataset]. UCI "
        "Machine Learning Repository. https://doi.org/10.24432/C52P4X",
    )
}
"""Tables that can be fetched."""


def missing(source: Source, folder: Path) -> list[str]:
    """Files of a table that a folder lacks or that are not what they should be."""
    return [name for name in source.files if not _is(folder / name, *source.files[name])]


def _is(path: Path, digest: str, length: int) -> bool:
    try:
        if path.stat().st_size != length:
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def fetch(source: Source, root: Path, *, url: str | None = None, given: Path | None = None) -> Path:
    """Put a table's files below a directory, checked; either all of them appear or nothing changes.

    Args:
        source: the table.
        root: the directory (what ``OUTROUTE_DATA`` names); made if it is not there.
        url: another place of the same archive; default the owners'.
        given: the archive, or a folder with the files, instead of the network.

    Returns:
        The folder with the files.

    Raises:
        DataError: ``data.offline`` (cannot be reached), ``data.archive`` (no such archive), ``data.checksum`` (a file
            is not what it should be), ``data.file`` (a file is lacking).
    """
    if given is not None:
        found = _of_folder(source, given) if given.is_dir() else _of_archive(source, _read(given), str(given))
    else:
        place = url or source.url
        found = _of_archive(source, _download(place), place)
    for name, (digest, length) in source.files.items():
        if len(found[name]) != length or hashlib.sha256(found[name]).hexdigest() != digest:
            raise DataError(
                f"{name} is not the file that is meant: its SHA-256 is {hashlib.sha256(found[name]).hexdigest()}, "
                f"it should be {digest}. Nothing was kept",
                code="data.checksum",
            )
    about = (
        f"{source.provenance}\nLicence: {source.licence}\nPlease cite: {source.citation}\nPublished at: {source.url}\n"
        + "".join(f"SHA-256 {digest}  {name}\n" for name, (digest, _) in source.files.items())
    )
    return _place(root, source.name, found | {ABOUT_FILE: about.encode()})


def _download(url: str) -> bytes:
    host = urlsplit(url).hostname or url
    instead = "with the archive at hand, give it with --from"
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"'{url}' is no address of the web", code="data.offline")
    try:
        with urllib.request.urlopen(url, timeout=READ_SECONDS) as answer:
            data: bytes = answer.read(ARCHIVE_BYTES_MOST + 1)
    except urllib.error.HTTPError as error:
        raise DataError(f"{host} answers {error.code} ({error.reason}); {instead}", code="data.offline") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{host} cannot be reached ({reason}); {instead}", code="data.offline") from None
    return _bounded(data, url)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _bounded(file.read(ARCHIVE_BYTES_MOST + 1), str(path))
    except FileNotFoundError:
        raise DataError(f"There is no file or folder '{path}'", code="data.file") from None


def _bounded(data: bytes, place: str) -> bytes:
    if len(data) > ARCHIVE_BYTES_MOST:
        raise DataError(f"{place} is larger than {ARCHIVE_BYTES_MOST:,} bytes: not the archive", code="data.archive")
    return data


def _of_archive(source: Source, data: bytes, place: str) -> dict[str, bytes]:
    """The files of an archive, wherever they lie in it; no more bytes are unpacked than a file should have."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = {Path(name).name: name for name in archive.namelist()}
            _complete(source, set(inside), place)
            found = {}
            for name, (_, length) in source.files.items():
                with archive.open(inside[name]) as file:
                    found[name] = file.read(length + 1)
            return found
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise DataError(f"{place} is no zip archive that can be read ({error})", code="data.archive") from None


def _of_folder(source: Source, folder: Path) -> dict[str, bytes]:
    _complete(source, {path.name for path in folder.iterdir()}, str(folder))
    found = {}
    for name, (_, length) in source.files.items():
        with (folder / name).open("rb") as file:
            found[name] = file.read(length + 1)
    return found


def _complete(source: Source, names: set[str], place: str) -> None:
    lacking = [name for name in source.files if name not in names]
    if lacking:
        raise DataError(f"{place} does not hold {', '.join(lacking)}", code="data.file")


def _place(root: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """A new folder under its name, whole; where there is one already, file by file."""
    root.mkdir(parents=True, exist_ok=True)
    target = root / name
    part = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=root))
    try:
        part.chmod(0o755)
        for file, data in files.items():
            with (part / file).open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        if target.exists():
            for file in files:
                os.replace(part / file, target / file)
        else:
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target
