"""What a learner leaves beside its weights, as files that people and programs read."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from palaestra.experience.artifact import Artifact, Matrix, Table
from palaestra.runs.report.plain import finite
from palaestra.runs.store.files import write_folder


def write_artifacts(folder: Path, artifacts: dict[str, Artifact]) -> None:
    """Write `<name>.json` for matrices and tables and `<name>.txt` for texts, all or none.

    Args:
      folder: of one step; what is in it is replaced.
      artifacts: by name, letters, digits, '-' and '_'.
    """
    files: dict[str, bytes] = {}
    for name, artifact in artifacts.items():
        if isinstance(artifact, Matrix | Table):
            text = json.dumps(finite(_plain(artifact)), ensure_ascii=False)
            files[f"{name}.json"] = f"{text}\n".encode()
        else:
            files[f"{name}.txt"] = f"{artifact.text}\n".encode()
    write_folder(files, folder)


def _plain(artifact: Matrix | Table) -> dict[str, Any]:
    """Return what the report's views read: `matrix` with `rows` and `columns`, or `table`."""
    if isinstance(artifact, Matrix):
        return {
            "title": artifact.title,
            "matrix": np.asarray(artifact.values).tolist(),
            "rows": list(artifact.rows),
            "columns": list(artifact.columns),
        }
    columns = {name: np.asarray(x).tolist() for name, x in artifact.columns.items()}
    return {"title": artifact.title, "table": columns}
