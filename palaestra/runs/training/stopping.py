"""Rules that end a run before its last step."""

from dataclasses import dataclass, field
from typing import Any

from palaestra.runs.config import StopConfig


@dataclass
class StopRules:
    """Watches a run for the rules of its configuration.

    Args:
      config: the rules.
      best: the best value of the metric so far.
      best_step: agent steps at which it was reached.
      seconds: wall time of the attempts before.
    """

    config: StopConfig
    best: float | None = None
    best_step: int = 0
    seconds: float = 0.0
    _reason: str = field(default="", init=False)

    def see(self, line: dict[str, Any], step: int) -> None:
        """Take in a line of metrics."""
        value = line.get(self.config.metric)
        if value is None:
            return
        sign = 1 if self.config.better == "max" else -1
        if self.best is None or sign * value > sign * self.best:
            self.best, self.best_step = float(value), step
        target, patience = self.config.target, self.config.patience
        if target is not None and sign * value >= sign * target:
            self._reason = (
                f"target reached: {self.config.metric} is {value:.6g}, {target:.6g} was asked for"
            )
        elif patience is not None and step - self.best_step >= patience:
            self._reason = (
                f"no progress: {self.config.metric} has been no better than {self.best:.6g} for "
                f"{step - self.best_step:,} agent steps"
            )

    def reason(self, seconds: float) -> str:
        """Return why the run ends here, or "" where it does not.

        Args:
          seconds: wall time of this attempt.
        """
        hours = self.config.hours
        if not self._reason and hours is not None and self.seconds + seconds > 3600 * hours:
            self._reason = f"time is up: {hours:g} hours of wall time"
        return self._reason

    def state_dict(self, seconds: float) -> dict[str, Any]:
        """Return what decides when the rules hold; `seconds` are those of this attempt."""
        return {
            "best": self.best,
            "best_step": self.best_step,
            "seconds": self.seconds + seconds,
            "reason": self._reason,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume exactly where `state_dict` was taken; a rule that held is looked at anew."""
        self.best, self.best_step = state["best"], state["best_step"]
        self.seconds = state["seconds"]
