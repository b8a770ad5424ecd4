"""What an offline W&B run holds, read back from its transaction log.

The log is LevelDB's: after a header of 7 bytes, blocks of 32 KiB with chunks of a checksum (4 bytes), a length (2), a
type (1: whole, 2: first, 3: middle, 4: last) and a part of a record, which is W&B's protocol buffer.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK, CHUNK = 7, 32768, 7


def records(path: Path) -> Iterator[Any]:
    data, place, record = path.read_bytes(), HEADER, b""
    while place + CHUNK <= len(data):
        if BLOCK - place % BLOCK < CHUNK:  # what is left of a block is filled up
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if place + CHUNK + length > len(data):  # is being written
            return
        record += data[place + CHUNK : place + CHUNK + length]
        place += CHUNK + length
        if kind in (1, 4):
            yield Record.FromString(record)
            record = b""


@dataclass
class LoggedRun:
    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    step_metrics: dict[str, str] = field(default_factory=dict)
    used: dict[str, list[str]] = field(default_factory=dict)
    made: dict[str, list[str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)


def _items(items: Any) -> dict[str, Any]:
    named = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
    return {key: value for key, value in named.items() if not key.startswith("_")}


def read(path: Path) -> LoggedRun:
    logged = LoggedRun()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        logged.kinds.add(kind)
        if kind == "run":
            logged.run = record.run
        elif kind == "config":
            logged.config |= _items(record.config.update)
        elif kind == "history":
            logged.history.append(_items(record.history.item))
        elif kind == "metric":
            logged.step_metrics[record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact":
            to = logged.used if record.artifact.use_after_commit else logged.made
            to[record.artifact.name] = [entry.path for entry in record.artifact.manifest.contents]
            logged.digests[record.artifact.name] = record.artifact.digest
    return logged


def offline_runs(folder: Path) -> list[LoggedRun]:
    """The parts of the runs below a folder, in the order in which they began; each is written soon after its end."""
    found = []
    for path in sorted(folder.rglob("offline-run-*/*.wandb")):
        while "exit" not in (logged := read(path)).kinds:
            time.sleep(0.1)
        found.append(logged)
    return sorted(found, key=lambda logged: logged.run.start_time.ToNanoseconds())
