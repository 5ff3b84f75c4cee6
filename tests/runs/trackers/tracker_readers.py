"""Read back what trackers wrote, with the tools' own readers where they have one."""

import json
import struct
from typing import Any

from palaestra.runs.store.folder import RunFolder
from palaestra.runs.trackers.mlflow import find_runs, open_store

Curves = dict[str, list[tuple[int, float]]]


def tensorboard(folder: RunFolder) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def mlflow(folder: RunFolder) -> Curves:
    client = open_store(folder.path.parent)
    (run,) = find_runs(client, folder.manifest["run_id"])
    return {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def wandb(folder: RunFolder) -> Curves:
    found: Curves = {}
    for record in wandb_records(folder):
        items = record.history.item
        row = {"/".join(item.nested_key): json.loads(item.value_json) for item in items}
        for name, value in row.items():
            if "/" in name:
                found.setdefault(name, []).append((row["agent_steps"], value))
    return found


READERS = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}


def wandb_records(folder: RunFolder) -> list[Any]:
    """The records of the one offline file of a run.

    The file has a header of 7 bytes, then the log format of LevelDB: blocks of 32 KiB with pieces
    of records, each after its checksum, length and kind (whole, first, middle, last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = (folder.path / "wandb").glob("*run-*/run-*.wandb")
    data, place, pieces, records = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if (left := -place % 32768) and left < 7:
            place += left
        _, length, kind = struct.unpack_from("<IHB", data, place)
        pieces += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            records.append(Record.FromString(pieces))
            pieces = b""
    return records
