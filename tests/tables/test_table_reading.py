from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outroute.errors import DataError
from outroute.tables.reading import iter_batches, read_sites, read_table, site_name
from outroute.tables.table import DEFAULT_MISSING, canonical

TEXT = "age,sex,chol\n63,m,233\n41,f,?\n57,m,\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def failure(source: object, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        read_table(source, **options)  # type: ignore[arg-type]
    return caught.value


def same(table: object) -> None:
    assert table.names == ("age", "sex", "chol")  # type: ignore[attr-defined]
    np.testing.assert_array_equal(table.numbers("age").values, [63.0, 41.0, 57.0])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(table.numbers("chol").values, [233.0, np.nan, np.nan])  # type: ignore[attr-defined]
    assert table.text("sex").tolist() == ["m", "f", "m"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        "\ufeff" + TEXT,
        TEXT.replace(",", ";"),
        "sep=;\n" + TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        TEXT.replace("\n", "\r\n"),
        TEXT.rstrip("\n"),
        "\n" + TEXT + "\n\n",
        TEXT.replace("m", '"m"'),
        gzip.compress(TEXT.encode()),
    ],
    ids=["plain", "bom", "semicolon", "excel", "tab", "crlf", "no-end", "blank-lines", "quoted", "gzip"],
)
def test_csv_in_all_its_clothes(tmp_path: Path, content: str | bytes) -> None:
    same(read_table(write(tmp_path / "t.csv", content)))


def test_the_same_table_from_every_kind_of_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"age": [63, 41, 57], "sex": ["m", "f", "m"], "chol": [233.0, np.nan, np.nan]})
    arrow = pa.table({"age": [63, 41, 57], "sex": ["m", "f", "m"], "chol": [233, None, None]})
    pq.write_table(arrow, tmp_path / "t.parquet")
    rows = [{"age": 63, "sex": "m", "chol": 233}, {"age": 41, "sex": "f", "chol": None}, {"age": 57, "sex": "m"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    same(read_table(frame))
    same(read_table(frame.astype({"sex": "category"})))
    same(read_table(arrow))
    same(read_table(arrow.to_batches()[0]))
    same(read_table({"age": [63, 41, 57], "sex": ["m", "f", "m"], "chol": np.array([233, np.nan, np.nan])}))
    same(read_table(tmp_path / "t.parquet"))
    same(read_table(str(write(tmp_path / "t.ndjson", lines))))
    same(read_table(io.BytesIO((tmp_path / "t.parquet").read_bytes())))
    for content in (lines.encode(), TEXT.encode(), gzip.compress(TEXT.encode())):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        same(read_table("-"))


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    same(read_table(write(tmp_path / "t.parquet", TEXT)))
    same(read_table(write(tmp_path / "t.gz", TEXT)))


def test_a_quoted_value_may_hold_the_delimiter_and_a_line_break(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", 'a,b\n"1,5","x\ny"\n2,z\n'))
    assert table.text("a").tolist() == ["1,5", "2"]
    assert table.text("b").tolist() == ["x\ny", "z"]


def test_columns_keep_their_text_until_asked_for_numbers(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", "code,n\n007,1.0\n08,2\n<5,3.5\n"))
    assert table.text("code").tolist() == ["007", "08", "<5"]
    assert table.text("n").tolist() == ["1", "2", "3.5"]
    numbers = table.numbers("code")
    assert numbers.bad.tolist() == [False, False, True]
    np.testing.assert_array_equal(numbers.values, [7.0, 8.0, np.nan])
    np.testing.assert_array_equal(table.numbers("n", missing=["2.00"]).values, [1.0, np.nan, 3.5])


@given(st.lists(st.one_of(st.none(), st.text("01+-. aNÄ?\u2003\n", max_size=6), st.sampled_from(["NA", "?", "1.0"]))))
def test_texts_read_in_bulk_are_the_canonical_ones(values: list[str | None]) -> None:
    table = read_table({"x": pa.array([*values, "end"], pa.string())})
    expected = [None if value is None or canonical(value) in DEFAULT_MISSING else canonical(value) for value in values]
    assert table.text("x").tolist() == [*expected, "end"]
    assert table.categories("x").text().tolist() == [*expected, "end"]


def test_decimal_commas_and_numbers_too_large(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", "x;y\n3,5;inf\n4,25;1e400\n;2\n"))
    np.testing.assert_array_equal(table.numbers("x", decimal=",").values, [3.5, 4.25, np.nan])
    assert table.numbers("x").bad.tolist() == [True, True, False]
    assert table.numbers("y").bad.tolist() == [True, True, False]


def test_batches_together_are_the_table_and_know_their_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "x\n" + "\n".join(str(i) for i in range(1000)) + "\n")
    batches = list(iter_batches(path, rows=300))
    assert [batch.rows for batch in batches] == [300, 300, 300, 100]
    assert [batch.first_row for batch in batches] == [1, 301, 601, 901]
    values = np.concatenate([batch.numbers("x").values for batch in batches])
    np.testing.assert_array_equal(values, np.arange(1000.0))


def test_a_stream_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch of an endless source arrives: nobody waits for its end."""

    class Endless(io.RawIOBase):
        taken = 0
        first = True

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            block = (b"x,y\n" if self.first else b"") + b"12345,abcdefgh\n" * (size // 15)
            self.first = False
            self.taken += len(block)
            return block

    endless = Endless()
    batches = iter_batches(endless)
    assert next(batches).numbers("x").values[0] == 12345.0
    assert endless.taken < 64 << 20


def test_ndjson_rows_may_lack_keys_and_later_rows_may_have_more(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.ndjson", '{"a": 1}\n\n{"b": "x"}\n{"a": "two", "b": "2020-01-01"}\n'))
    assert table.text("a").tolist() == ["1", None, "two"]
    assert table.text("b").tolist() == [None, "x", "2020-01-01"]


def test_ndjson_in_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outroute.tables.lines.CHUNK_BYTES", 64)
    monkeypatch.setattr("outroute.tables.sources.HEAD_BYTES", 32)
    rows = [{"a": i} if i < 20 else {"a": float(i), "b": "x"} for i in range(40)]
    table = read_table(write(tmp_path / "t.ndjson", "".join(json.dumps(row) + "\n" for row in rows)))
    np.testing.assert_array_equal(table.numbers("a").values, np.arange(40.0))
    assert table.text("b").tolist() == [None] * 20 + ["x"] * 20


def test_only_reads_the_columns_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", TEXT)
    assert read_table(path, only=["chol", "age"]).names == ("age", "chol")
    assert failure(path, only=["cholesterol"]).code == "data.column"
    assert read_table({"a": [1], "b": [2]}, only=["b"]).names == ("b",)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "heart.csv", TEXT)
    error = failure(tmp_path / "haert.csv")
    assert error.code == "data.file"
    assert "heart.csv" in str(error)
    assert "does not exist" in str(failure(tmp_path / "no" / "heart.csv"))
    assert "folder" in str(failure(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    assert failure(write(tmp_path / "t.csv", content)).code == "data.empty"


def test_a_header_without_rows(tmp_path: Path) -> None:
    assert failure(write(tmp_path / "t.csv", "a,b\n")).code == "data.rows"
    assert failure(write(tmp_path / "u.csv", "a,b")).code == "data.rows"
    assert failure({"a": []}).code == "data.rows"
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    assert failure(tmp_path / "t.parquet").code == "data.rows"


def test_a_ragged_line_is_named(tmp_path: Path) -> None:
    error = failure(write(tmp_path / "t.csv", 'a,b\n1,"x\ny"\n2,3\n4,5,6\n'))
    assert error.code == "data.ragged"
    assert "line 5: 3 values where the header has 2" in str(error)
    packed = failure(write(tmp_path / "t.csv.gz", gzip.compress(b"a,b\n1,2\n3\n")))
    assert "line 3: 1 values" in str(packed)


def test_a_ragged_line_in_a_stream_is_told_too() -> None:
    error = failure(io.BytesIO(b"a,b\n1,2\n4,5,6\n"))
    assert error.code == "data.ragged"
    assert "2 columns" in str(error)


@pytest.mark.parametrize("rows", [0, 5])
def test_text_that_is_not_utf8_is_named_by_line(tmp_path: Path, rows: int) -> None:
    content = b"name,x\n" + b"abc,1\n" * rows + "Zürich,1\n".encode("latin-1")
    error = failure(write(tmp_path / "t.csv", content))
    assert error.code == "data.encoding"
    assert f"line {rows + 2}" in str(error)
    assert "iconv" in str(error)


def test_text_that_is_not_utf8_far_from_the_start(tmp_path: Path) -> None:
    content = b"name,x\n" + b"abc,1\n" * 300_000 + "Zürich,1\n".encode("latin-1")
    error = failure(write(tmp_path / "t.csv", content))
    assert error.code == "data.encoding"
    assert "line 300002" in str(error)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"PK\x03\x04rest", "Excel"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"BZh9rest", "bzip2"),
        (b"a,b\n\x00\x01\x02,3\n", "binary"),
        (b"PAR1 and nothing more", "Parquet"),
        (b'[{"a": 1}]', "one object per line"),
    ],
)
def test_files_of_another_kind_say_what_to_do(tmp_path: Path, content: bytes, word: str) -> None:
    assert word in str(failure(write(tmp_path / "t.csv", content)))


def test_a_gzip_file_cut_short(tmp_path: Path) -> None:
    packed = gzip.compress(np.random.default_rng(0).bytes(100_000).hex().encode())
    error = failure(write(tmp_path / "t.csv.gz", packed[: len(packed) // 2]))
    assert error.code == "data.file"
    assert "damaged" in str(error)


def test_duplicate_column_names(tmp_path: Path) -> None:
    assert failure(write(tmp_path / "t.csv", "a,b,a\n1,2,3\n")).code == "data.duplicate"
    assert failure(pd.DataFrame([[1, 2]], columns=["a", "a"])).code == "data.duplicate"


def test_a_file_without_a_header_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t.data", "63.0,1.0,?\n41,0,2\n")
    error = failure(path)
    assert error.code == "data.header"
    assert "--columns" in str(error)
    assert read_table(path, columns=["a", "b", "c"]).rows == 2
    assert "3 columns, but 2 names" in str(failure(path, columns=["a", "b"]))


def test_a_column_that_is_not_there_names_the_closest(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", TEXT))
    with pytest.raises(DataError, match="Did you mean 'chol'") as caught:
        table.require("Chol.", "outcome")
    assert caught.value.code == "data.column"
    with pytest.raises(DataError, match="The table has: 'age', 'sex', 'chol'"):
        table.numbers("zzz")


@pytest.mark.parametrize(
    ("content", "line"),
    [('{"a": 1}\n{"a": \n', 2), ('{"a": 1}\n[1]\n', 2), ('{"a": 1}\n\n{"a": {"b": 1}}\n', 3)],
)
def test_bad_ndjson_is_named_by_line(tmp_path: Path, content: str, line: int) -> None:
    error = failure(write(tmp_path / "t.ndjson", content))
    assert error.code == "data.ndjson"
    assert f"line {line}" in str(error)


def test_columns_of_different_length_and_objects_that_are_no_table() -> None:
    assert failure({"a": [1, 2], "b": [1]}).code == "data.ragged"
    assert failure({}).code == "data.empty"
    assert failure({"a": 5}).code == "data.type"
    assert failure(42).code == "data.format"
    mixed = read_table(pd.DataFrame({"a": [1, "x", None]}, dtype=object))
    assert mixed.text("a").tolist() == ["1", "x", None]


def test_one_file_per_site(tmp_path: Path) -> None:
    paths = [write(tmp_path / "basel.csv", TEXT), write(tmp_path / "bern.csv.gz", gzip.compress(TEXT.encode()))]
    table = read_sites(paths)
    assert table.rows == 6
    assert table.text("site").tolist() == ["basel"] * 3 + ["bern"] * 3
    swapped = write(tmp_path / "zug.csv", "chol,age,sex\n1,2,x\n")
    assert read_sites([paths[0], swapped]).numbers("age").values[-1] == 2.0


def test_files_of_sites_must_fit_together(tmp_path: Path) -> None:
    first = write(tmp_path / "basel.csv", TEXT)
    other = write(tmp_path / "bern.csv", "age,sex,cholesterol\n1,m,2\n")
    empty = write(tmp_path / "zug.csv", "age,sex,chol\n")
    with pytest.raises(DataError, match=r"bern.csv has other columns.*lacks \['chol'\]"):
        read_sites([first, other])
    with pytest.raises(DataError, match=r"zug\.csv has a header but no rows"):
        read_sites([first, empty])
    with pytest.raises(DataError, match="Two files would be the site 'basel'"):
        read_sites([first, first])
    with pytest.raises(DataError, match="has a column 'sex' already"):
        read_sites([first], site_column="sex")


def test_site_names() -> None:
    assert site_name("data/basel.csv.gz") == "basel"
    assert site_name("processed.va.data") == "processed.va"
    assert site_name(".csv") == ".csv"


def test_the_twelve_stations_of_beijing(data: Callable[[str], Path]) -> None:
    paths = sorted(data("beijing").glob("*.csv.gz"))
    table = read_sites(paths[:2], site_column="file")
    assert table.rows == 2 * 35_064
    assert len(table.categories("station").labels) == 2
    share = np.isnan(table.numbers("PM2.5").values).mean()
    assert 0.01 < share < 0.05


def test_four_hospitals_write_the_same_codes_in_two_ways(data: Callable[[str], Path]) -> None:
    from .conftest import HEART_COLUMNS

    table = read_sites(sorted(data("heart").glob("processed.*")), columns=HEART_COLUMNS)
    assert table.rows == 920
    assert sorted(table.categories("sex").labels) == ["0", "1"]
    assert sorted(table.categories("thal").labels) == ["3", "6", "7"]


def test_importing_the_tables_pulls_in_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys, outroute.tables.reading, outroute.tables.infer, outroute.tables.learning\n"
        "print([m for m in ('pyarrow', 'pandas', 'sklearn', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
