"""Parquet, CSV and JSONL files as Arrow record batches, a bounded number of rows at a time.

This module knows file formats and nothing of events; `streams.logfile` gives the columns a
meaning. Text formats come out as binary columns, Parquet columns in the file's own types.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

ROWS = 65_536  # rows of one record batch
MAX_LINE = 4 * 1024 * 1024  # bytes of one JSONL line; an event with every field full has 2 MiB
CSV_BLOCK = 4 * 1024 * 1024  # bytes that the CSV parser holds; also bounds one CSV row

SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet",
    ".csv": "csv", ".tsv": "tsv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip


class LogError(ValueError):
    """A file cannot be read as a log. The message names file, column and row, and the cure."""


def format_of(path: Path) -> str:
    """One of the values of SUFFIXES, told by the name of the file.

    >>> format_of(Path("clicks.CSV.gz"))
    'csv'
    """
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if suffixes and suffixes[-1] in SUFFIXES:
        return SUFFIXES[suffixes[-1]]
    raise LogError(
        f"{path}: the name tells no format that is known: use {', '.join(SUFFIXES)}"
        " (each may be followed by .gz)"
    )


def stem_of(path: Path) -> str:
    """The name without folder, format and .gz.

    >>> stem_of(Path("a/clicks.csv.gz"))
    'clicks'
    """
    name = path.name
    for suffix in reversed(path.suffixes):
        if suffix.lower() in SUFFIXES or suffix.lower() == ".gz":
            name = name.removesuffix(suffix)
    return name


def record_batches(
    path: Path, columns: Sequence[str] | None, rows: int = ROWS
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of the first row, counted from 1; batch) pairs, in file order.

    `columns` are the names wanted; those that the file lacks are left out of the batches (in
    JSONL, where every line has its own keys, they are null). Raises LogError.
    """
    kind = format_of(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise LogError(f"{path} {what}: name a Parquet, CSV or JSONL file")
    if path.stat().st_size == 0:
        raise LogError(f"{path} is empty: it has no bytes")
    first = 1
    source = {"parquet": _parquet, "jsonl": _jsonl}.get(kind, _csv)
    for batch in source(path, columns, rows):
        if batch.num_rows:
            yield first, batch
            first += batch.num_rows
    if first == 1:
        raise LogError(f"{path} is empty: it has no rows")


def _is_gz(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of `path`, unpacked; a cut or damaged .gz becomes a LogError."""
    try:
        with cast(IO[bytes], gzip.open(path) if _is_gz(path) else path.open("rb")) as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise LogError(f"{path} is truncated or damaged ({e}): copy or pack it again") from e
    except PermissionError as e:
        raise LogError(f"{path} may not be read: {e.strerror}") from e


def _parquet(path: Path, columns: Sequence[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
    with contextlib.ExitStack() as stack:
        source: Any = stack.enter_context(_opened(path))
        if _is_gz(path):  # Parquet is read from its end: unpack it beside, not in memory
            unpacked = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(source, unpacked, 1 << 20)
            source = unpacked
        seen = 0
        try:
            file = stack.enter_context(pq.ParquetFile(source))
            names = file.schema_arrow.names
            wanted = names if columns is None else [c for c in columns if c in names]
            for batch in file.iter_batches(rows, columns=wanted, use_threads=False):
                seen += batch.num_rows
                yield batch
        except (pa.ArrowException, OSError) as e:
            raise LogError(
                f"{path} is truncated, damaged or no Parquet file (after row {seen}:"
                f" {str(e).splitlines()[0]}): write or copy it again"
            ) from e


class _Watched(io.RawIOBase):
    """A byte stream that remembers its last byte: without a final newline a file may be cut."""

    def __init__(self, inner: IO[bytes]) -> None:
        self._inner = inner
        self.last = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        chunk = self._inner.read(size)
        self.last = chunk[-1:] or self.last
        return chunk

    def close(self) -> None:  # the caller closes the inner stream
        super().close()


def _csv(path: Path, columns: Sequence[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
    names = _csv_header(path)
    wanted = names if columns is None else [c for c in columns if c in names]
    bad: list[str] = []

    def invalid_row(row: Any) -> str:
        bad.append(
            f"row {row.number - 1}: {row.actual_columns} columns seen,"
            f" the header has {row.expected_columns}"
        )
        return "error"

    with _opened(path) as file:
        watched = _Watched(file)
        try:
            reader = _csv_reader(path, watched, wanted, invalid_row)
            for batch in reader:
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)
        except pa.ArrowException as e:
            fault = bad[0] if bad else re.sub(r"^CSV parse error: ", "", str(e).splitlines()[0])
            raise LogError(f"{path} is no whole CSV file: {fault}") from e
        if watched.last not in (b"\n", b"\r"):
            raise LogError(
                f"{path} seems truncated: its last line does not end with a newline;"
                " write it again, or add the newline if the line is whole"
            )


def _csv_reader(path: Path, source: Any, wanted: list[str], invalid_row: Any) -> Any:
    # Binary columns: text is checked column by column later, where the row can be named.
    return pyarrow.csv.open_csv(
        pa.PythonFile(source, "r"),
        pyarrow.csv.ReadOptions(block_size=CSV_BLOCK, use_threads=False),
        pyarrow.csv.ParseOptions(
            delimiter=_delimiter(path), newlines_in_values=True, invalid_row_handler=invalid_row
        ),
        pyarrow.csv.ConvertOptions(
            check_utf8=False,
            include_columns=wanted,
            column_types={name: pa.binary() for name in wanted},
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _delimiter(path: Path) -> str:
    return "\t" if format_of(path) == "tsv" else ","


def _csv_header(path: Path) -> list[str]:
    import csv

    with _opened(path) as file:
        line = file.readline(MAX_LINE)
    if not line.endswith((b"\n", b"\r")):
        raise LogError(f"{path} is truncated: it ends within its first line, the names of columns")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise LogError(f"{path} is no CSV file: its header is not UTF-8 ({e})") from e
    names = next(csv.reader([text.rstrip("\r\n")], delimiter=_delimiter(path)), [])
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise LogError(f"{path}: the header names {', '.join(map(repr, twice))} twice")
    return names


def _jsonl(path: Path, columns: Sequence[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    records: list[dict[str, Any]] = []
    seen = 0
    with _opened(path) as file:
        while line := file.readline(MAX_LINE):
            if not line.strip():
                continue
            seen += 1
            records.append(_json_record(path, seen, line, decode))
            if len(records) == rows:
                yield _json_batch(path, seen, records, columns)
                records = []
    if records:
        yield _json_batch(path, seen, records, columns)


def _json_record(path: Path, row: int, line: bytes, decode: Any) -> dict[str, Any]:
    if len(line) >= MAX_LINE:
        raise LogError(f"{path}, row {row}: the line has more than {MAX_LINE} bytes")
    try:
        return cast(dict[str, Any], decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        cut = "; the file seems truncated" if not line.endswith(b"\n") else ""
        raise LogError(f"{path}, row {row}: not one JSON object ({e}){cut}") from e


def _json_batch(
    path: Path, last: int, records: list[dict[str, Any]], columns: Sequence[str] | None
) -> pa.RecordBatch:
    names = list(dict.fromkeys(k for r in records for k in r)) if columns is None else columns
    first = last - len(records) + 1
    arrays = [
        pa.array([_as_bytes(path, first + i, n, r.get(n)) for i, r in enumerate(records)],
                 pa.binary())
        for n in names
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(arrays, names=list(names))


def _as_bytes(path: Path, row: int, name: str, value: Any) -> bytes | None:
    """JSON values as CSV would hold them, so that both text formats share their checks."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bool):
        raise LogError(f"{path}, column {name!r}, row {row}: {value} is neither text nor a number")
    return repr(value).encode() if isinstance(value, float) else msgspec.json.encode(value)
