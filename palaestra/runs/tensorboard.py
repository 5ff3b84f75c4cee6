"""TensorBoard events, derived from the metrics: deleting them loses nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoardLogger:
    """Writes scalars by agent steps into `folder`, and the configuration as text.

    Args:
      folder: the run's folder for events.
      config: the configuration as YAML.
    """

    def __init__(self, folder: Path, config: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("config", "    " + config.replace("\n", "\n    "), 0)

    def log(self, metrics: Mapping[str, Any], agent_steps: int) -> None:
        """Write one value for each metric that has a name with a slash."""
        for name, value in metrics.items():
            if "/" in name:
                self._writer.add_scalar(name, value, agent_steps)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
