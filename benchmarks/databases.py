"""Other libraries that keep entries in order on disk, each used as its documentation says is fastest.

What a returned append survives is alike in all of them: the death of the process, not power loss;
except where a function says durable. Entries get the keys 0, 1, 2, ... as 8 bytes, made before the
clock starts.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.available import module_of
from benchmarks.model import DATABASE, Contender, Place, Sample, bandwidth, rate
from walrus_core.cli.measure import BATCH_COUNT, make_payload

LMDB = "LMDB"
LMDB_PUTMULTI = "LMDB, putmulti"
ROCKSDB = "RocksDB"
SQLITE = "SQLite"

INSERT = "insert into log (data) values (?)"
SELECT = "select number, data from log order by number"


def make_keys(count: int) -> list[bytes]:
    """Return the keys of ``count`` entries; as bytes they sort as their numbers do."""
    return [struct.pack(">Q", number) for number in range(count)]


def batches(keys: Sequence[bytes], batch_count: int) -> Iterator[Sequence[bytes]]:
    """Yield slices of ``batch_count``."""
    for at in range(0, len(keys), batch_count):
        yield keys[at : at + batch_count]


# --- LMDB -----------------------------------------------------------------------------------------


@contextmanager
def _lmdb(path: Path, count: int, entry_bytes: int, **options: Any) -> Iterator[Any]:
    """Open an environment with room for the entries: writemap, and no syncs unless asked for."""
    size_bytes = 64 * 1024 * 1024 + 3 * count * (entry_bytes + 64)
    options = {"writemap": True, "sync": False, **options}
    with module_of("lmdb").open(str(path), map_size=size_bytes, **options) as environment:
        yield environment


def lmdb_append(whole: int, entry_bytes: int, slowness: int = 1, **options: Any) -> Contender:
    """Put each entry in a transaction of its own, at the end of the tree."""

    def run(place: Place) -> Sample:
        count = place.count(whole)
        keys = make_keys(count)
        payload = make_payload(entry_bytes)
        with (
            place.fresh() as directory,
            _lmdb(directory / "db", count, entry_bytes, **options) as environment,
        ):
            begin = environment.begin
            started = perf_counter()
            for key in keys:
                transaction = begin(write=True)
                transaction.put(key, payload, append=True)
                transaction.commit()
            return rate(count, perf_counter() - started)

    name = f"{LMDB}, sync" if options.get("sync") else LMDB
    return Contender(name=name, group=DATABASE, run=run, slowness=slowness, needs=("lmdb",))


def lmdb_batch(
    whole: int, entry_bytes: int, batch_count: int, *, putmulti: bool = False, as_bandwidth: bool = False
) -> Contender:
    """Put each batch in one transaction: a put per entry, or all by one call of ``putmulti``."""

    def run(place: Place) -> Sample:
        count = place.count(whole, batch_count)
        keys = make_keys(count)
        payload = make_payload(entry_bytes)
        with place.fresh() as directory, _lmdb(directory / "db", count, entry_bytes) as environment:
            parts: list[Any] = list(batches(keys, batch_count))
            if putmulti:
                parts = [[(key, payload) for key in part] for part in parts]
            started = perf_counter()
            for part in parts:
                with environment.begin(write=True) as transaction:
                    if putmulti:
                        transaction.cursor().putmulti(part, append=True)
                        continue
                    put = transaction.put
                    for key in part:
                        put(key, payload, append=True)
            seconds = perf_counter() - started
        return bandwidth(count, entry_bytes, seconds) if as_bandwidth else rate(count, seconds)

    name = LMDB_PUTMULTI if putmulti else LMDB
    return Contender(name=name, group=DATABASE, run=run, needs=("lmdb",))


def lmdb_iterate(whole: int, entry_bytes: int) -> Contender:
    """Go through keys and values with a cursor."""

    def prepare(place: Place) -> None:
        count = place.count(whole, BATCH_COUNT)
        environment = place.stack.enter_context(_lmdb(place.path / "db", count, entry_bytes))
        payload = make_payload(entry_bytes)
        with environment.begin(write=True) as transaction:
            transaction.cursor().putmulti([(key, payload) for key in make_keys(count)], append=True)
        place.kept["environment"] = environment

    def run(place: Place) -> Sample:
        count = 0
        with place.kept["environment"].begin() as transaction:
            started = perf_counter()
            for _key, _value in transaction.cursor():
                count += 1
            return rate(count, perf_counter() - started)

    return Contender(name=LMDB, group=DATABASE, run=run, prepare=prepare, needs=("lmdb",))


# --- RocksDB --------------------------------------------------------------------------------------


@contextmanager
def _rocksdb(path: Path) -> Iterator[Any]:
    rocksdict = module_of("rocksdict")
    database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    try:
        yield database
    finally:
        database.close()


def rocksdb_append(whole: int, entry_bytes: int, slowness: int = 2, *, sync: bool = False) -> Contender:
    """Put each entry, through the write-ahead log."""

    def run(place: Place) -> Sample:
        count = place.count(whole)
        keys = make_keys(count)
        payload = make_payload(entry_bytes)
        with place.fresh() as directory, _rocksdb(directory / "db") as database:
            if sync:
                options = module_of("rocksdict").WriteOptions()
                options.sync = True
                database.set_write_options(options)
            started = perf_counter()
            for key in keys:
                database[key] = payload
            return rate(count, perf_counter() - started)

    name = f"{ROCKSDB}, sync" if sync else ROCKSDB
    return Contender(name=name, group=DATABASE, run=run, slowness=slowness, needs=("rocksdict",))


def rocksdb_batch(whole: int, entry_bytes: int, batch_count: int, slowness: int = 2) -> Contender:
    """Write each batch as one WriteBatch."""

    def run(place: Place) -> Sample:
        count = place.count(whole, batch_count)
        keys = make_keys(count)
        payload = make_payload(entry_bytes)
        write_batch = module_of("rocksdict").WriteBatch
        with place.fresh() as directory, _rocksdb(directory / "db") as database:
            started = perf_counter()
            for part in batches(keys, batch_count):
                batch = write_batch(raw_mode=True)
                put = batch.put
                for key in part:
                    put(key, payload)
                database.write(batch)
            return rate(count, perf_counter() - started)

    return Contender(name=ROCKSDB, group=DATABASE, run=run, slowness=slowness, needs=("rocksdict",))


def rocksdb_iterate(whole: int, entry_bytes: int, slowness: int = 2) -> Contender:
    """Go through keys and values."""

    def prepare(place: Place) -> None:
        database = place.stack.enter_context(_rocksdb(place.path / "db"))
        payload = make_payload(entry_bytes)
        for key in make_keys(place.count(whole, BATCH_COUNT)):
            database[key] = payload
        place.kept["database"] = database

    def run(place: Place) -> Sample:
        count = 0
        started = perf_counter()
        for _key, _value in place.kept["database"].items():
            count += 1
        return rate(count, perf_counter() - started)

    return Contender(
        name=ROCKSDB, group=DATABASE, run=run, prepare=prepare, slowness=slowness, needs=("rocksdict",)
    )


# --- SQLite ---------------------------------------------------------------------------------------


@contextmanager
def _sqlite(path: Path, synchronous: str = "off") -> Iterator[sqlite3.Connection]:
    """Open a database in WAL mode with one table. ``full``: every commit is durable."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute(f"pragma synchronous = {synchronous}")
        connection.execute("create table if not exists log (number integer primary key, data blob not null)")
        yield connection


def sqlite_append(whole: int, entry_bytes: int, slowness: int = 10, synchronous: str = "off") -> Contender:
    """Insert each entry in a transaction of its own."""

    def run(place: Place) -> Sample:
        count = place.count(whole)
        row = (make_payload(entry_bytes),)
        with place.fresh() as directory, _sqlite(directory / "db", synchronous) as connection:
            execute = connection.execute
            started = perf_counter()
            for _ in repeat(None, count):
                execute(INSERT, row)
            return rate(count, perf_counter() - started)

    name = f"{SQLITE}, sync" if synchronous == "full" else SQLITE
    return Contender(name=name, group=DATABASE, run=run, slowness=slowness)


def sqlite_batch(whole: int, entry_bytes: int, batch_count: int, slowness: int = 4) -> Contender:
    """Insert each batch with one ``executemany`` in one transaction."""

    def run(place: Place) -> Sample:
        count = place.count(whole, batch_count)
        rows = [(make_payload(entry_bytes),)] * batch_count
        with place.fresh() as directory, _sqlite(directory / "db") as connection:
            started = perf_counter()
            for _ in repeat(None, count // batch_count):
                connection.execute("begin")
                connection.executemany(INSERT, rows)
                connection.execute("commit")
            return rate(count, perf_counter() - started)

    return Contender(name=SQLITE, group=DATABASE, run=run, slowness=slowness)


def sqlite_iterate(whole: int, entry_bytes: int, slowness: int = 2) -> Contender:
    """Go through one select, in order."""

    def prepare(place: Place) -> None:
        connection = place.stack.enter_context(_sqlite(place.path / "db"))
        count = place.count(whole, BATCH_COUNT)
        connection.execute("begin")
        connection.executemany(INSERT, repeat((make_payload(entry_bytes),), count))
        connection.execute("commit")
        place.kept["connection"] = connection

    def run(place: Place) -> Sample:
        count = 0
        started = perf_counter()
        for _number, _data in place.kept["connection"].execute(SELECT):
            count += 1
        return rate(count, perf_counter() - started)

    return Contender(name=SQLITE, group=DATABASE, run=run, prepare=prepare, slowness=slowness)
