"""``outroute data``: fetched from a real server, checked, whole or not at all."""

from __future__ import annotations

import http.server
import io
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outroute.datasets import DATA_VARIABLE, heart
from outroute.datasets.fetching import SOURCES

from .conftest import program

SOURCE = SOURCES["heart"]
needs_data = pytest.mark.skipif(not os.environ.get(DATA_VARIABLE), reason=f"set {DATA_VARIABLE}")


def archive(**changed: bytes | None) -> bytes:
    """A zip like the owners', from the files of the data directory; some changed or left out."""
    folder = Path(os.environ[DATA_VARIABLE]) / "heart"
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("heart-disease/Index", "more that is not wanted")
        for name in SOURCE.files:
            data = changed.get(name.split(".")[1], (folder / name).read_bytes())
            if data is not None:
                made.writestr(f"heart-disease/{name}", data)
    return held.getvalue()


@contextmanager
def serving(data: bytes, status: int = 200) -> Iterator[str]:
    """A web server with one file."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/heart.zip"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def nothing_left(folder: Path) -> bool:
    return not (folder / "tables" / "heart").exists() and not list(folder.rglob("*.part"))


@needs_data
def test_fetched_from_a_server_it_is_checked_and_ready(tmp_path: Path) -> None:
    with serving(archive()) as url:
        done = program("data", "fetch", "heart", "--url", url, "--to", "tables", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fetched"]
    assert found["licence"] == "CC BY 4.0"
    folder = tmp_path / found["folder"]
    names = {*SOURCE.files, "PROVENANCE.txt", "heart.csv"}
    assert {path.name for path in folder.iterdir()} == names
    about = (folder / "PROVENANCE.txt").read_text()
    assert "CC BY 4.0" in about
    assert all(digest in about for digest, _ in SOURCE.files.values())
    assert (folder / "heart.csv").read_text().count("\n") == 921
    own, usual = heart(root=tmp_path / "tables"), heart()
    assert own.outcome.tolist() == usual.outcome.tolist()

    again = program("data", "fetch", "heart", "--url", "http://127.0.0.1:9/", "--to", "tables", "--json", cwd=tmp_path)
    assert again.returncode == 0
    assert not json.loads(again.stdout)["fetched"]

    (folder / "processed.va.data").write_bytes(b"broken")
    refused = program("data", "fetch", "heart", "--to", "tables", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    (tmp_path / "it.zip").write_bytes(archive())
    mended = program("data", "fetch", "heart", "--from", "it.zip", "--to", "tables", "--force", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert (folder / "processed.va.data").stat().st_size == 6_737
    assert "outroute walls tables/heart/heart.csv" in mended.stderr
    assert not list(tmp_path.rglob("*.part"))

    evaluated = program(
        *("schema", "infer", "tables/heart/heart.csv", "--outcome", "diagnosis", "--site", "hospital"), cwd=tmp_path
    )
    assert evaluated.returncode == 0, evaluated.stderr


@needs_data
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: archive(va=b"0" * 6_737), "processed.va.data is not the file that is meant"),
        (lambda: archive(va=b"1" * 100_000_000), "processed.va.data is not the file that is meant"),
        (lambda: archive(va=None), "does not hold processed.va.data"),
        (lambda: archive()[:5_000], "no zip archive"),
        (lambda: b"<html>sign in first</html>", "no zip archive"),
        (lambda: b"", "no zip archive"),
    ],
    ids=["changed", "swollen", "lacking", "cut off", "a page", "empty"],
)
def test_what_is_not_the_table_is_not_kept(tmp_path: Path, data, said: str) -> None:  # type: ignore[no-untyped-def]
    with serving(data()) as url:
        done = program("data", "fetch", "heart", "--url", url, "--to", "tables", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert nothing_left(tmp_path)


def test_without_a_network_it_is_one_line(tmp_path: Path) -> None:
    with serving(b"") as url:
        pass  # the port is free again
    done = program("data", "fetch", "heart", "--url", url, "--to", "tables", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "data.offline"
    assert "127.0.0.1 cannot be reached" in done.stderr
    assert "--from" in done.stderr
    assert nothing_left(tmp_path)
    with serving(b"gone", status=404) as url:
        done = program("data", "fetch", "heart", "--url", url, "--to", "tables", cwd=tmp_path)
    assert "answers 404" in done.stderr
    for address in ("file:///etc/passwd", "nonsense"):
        done = program("data", "fetch", "heart", "--url", address, "--to", "tables", cwd=tmp_path)
        assert (done.returncode, "no address of the web" in done.stderr) == (2, True)


@needs_data
def test_a_folder_with_the_files_does_too(tmp_path: Path) -> None:
    have = Path(os.environ[DATA_VARIABLE]) / "heart"
    done = program("data", "fetch", "heart", "--from", str(have), "--to", "tables", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "tables/heart/heart.csv"


def test_other_names_say_where_to_look(tmp_path: Path) -> None:
    done = program("data", "fetch", "opt", cwd=tmp_path)
    assert done.returncode == 2
    assert "medicaldata" in done.stderr
    assert "there is heart" in program("data", "fetch", "mnist", cwd=tmp_path).stderr
    assert program("data", "fetch", "heart", "--from", "no.zip", "--to", "tables", cwd=tmp_path).returncode == 2
    listed = json.loads(program("data", "list", "--json", cwd=tmp_path).stdout)["data"]
    assert {one["name"] for one in listed} == {"azpro", "beijing", "flights", "heart", "opt"}
    assert [one["name"] for one in listed if one["fetch"]] == ["heart"]
    assert "outroute data fetch" in program("data", "list", cwd=tmp_path).stdout or os.environ.get(DATA_VARIABLE)


@needs_data
def test_the_licence_and_provenance_are_those_of_the_loader() -> None:
    assert (SOURCE.licence, SOURCE.provenance) == (heart().licence, heart().provenance)
