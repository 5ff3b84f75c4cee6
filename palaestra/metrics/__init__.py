"""Metrics: functions from recorded data to numbers, registered under the kind "metric"."""

from palaestra.registry import register_builtin

_EPISODE_METRICS = {
    "return": ("returns:RETURN", "sum of the rewards of an episode"),
    "length": ("returns:LENGTH", "number of steps of an episode"),
    "regret": ("decisions:REGRET", "sum of best minus chosen expected reward"),
    "realised_regret": ("decisions:REALISED_REGRET", "sum of best expected minus paid reward"),
    "coverage": ("decisions:COVERAGE", "share of the arms tried at least once"),
    "optimal_fraction": ("decisions:OPTIMAL_FRACTION", "share of the steps on the best arm"),
    "best_arm_pulls": ("decisions:BEST_ARM_PULLS", "number of steps on the best arm"),
    "suffix_failure": ("decisions:SUFFIX_FAILURE", "best arm never pulled in the second half"),
    "k_min_fraction": ("decisions:K_MIN_FRACTION", "K times the share of the least pulled arm"),
    "greedy_fraction": ("decisions:GREEDY_FRACTION", "share of the steps on the empirically best"),
    "greedy_fraction_all_tried": (
        "decisions:GREEDY_FRACTION_ALL_TRIED",
        "greedy share of the steps after every arm was tried",
    ),
    "greedy_fraction_some_untried": (
        "decisions:GREEDY_FRACTION_SOME_UNTRIED",
        "greedy share of the steps while some arm was untried",
    ),
    "win": ("outcomes:WIN", "share of episodes with a positive return"),
    "draw": ("outcomes:DRAW", "share of episodes with return zero"),
    "blunder_rate": ("outcomes:BLUNDER_RATE", "share of the moves that give value away"),
    "blunder_rate_possible": (
        "outcomes:BLUNDER_RATE_POSSIBLE",
        "the same among the moves that could have been blunders",
    ),
    "illegal_rate": ("outcomes:ILLEGAL_RATE", "share of the moves that the rules forbid"),
    "loss": ("outcomes:LOSS", "share of episodes with a negative return"),
    "return_first": ("tictactoe:RETURN_FIRST", "return of the episodes that the agent opened"),
    "return_second": ("tictactoe:RETURN_SECOND", "return of the episodes that the opponent opened"),
}

for _name, (_target, _summary) in _EPISODE_METRICS.items():
    register_builtin("metric", _name, f"palaestra.metrics.{_target}", _summary)
