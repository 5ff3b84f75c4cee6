"""From evaluation summaries to strips: the same first episodes as every agent played them."""

from collections.abc import Iterable, Sequence

from palaestra.runs.report.groups import Group
from palaestra.runs.report.read import Row
from palaestra.runs.report.results import is_trained
from palaestra.runs.report.strip import BanditEpisode, Board, Game, Play, Strip

MOST_AGENTS = 8
"""Agents shown beside each other in one episode."""

_SQUARES = (
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)


def strips(groups: Sequence[Group]) -> list[Strip]:
    """Return the strips of the first task that has them, of each suite; trained agents first."""
    found: list[Strip] = []
    for suite, task in _first_tasks(groups).items():
        records: dict[tuple[int, int], dict[str, Row]] = {}
        for agent, record in _records(groups, suite, task):
            key = (record.get("seed", 0), record.get("episode", 0))
            records.setdefault(key, {}).setdefault(agent, record)
        for (seed, episode), by_agent in records.items():
            title = f"{task}, seed {seed}, episode {episode}"
            found += _strips(title, by_agent)
    return found


def _first_tasks(groups: Sequence[Group]) -> dict[str, str]:
    first: dict[str, str] = {}
    for group in groups:
        for run in group.runs:
            for item in run.last_evaluated():
                for task in item.summary.get("tasks", []):
                    if task.get("strip"):
                        first.setdefault(item.suite, task["id"])
    return first


def _records(groups: Sequence[Group], suite: str, task_id: str) -> Iterable[tuple[str, Row]]:
    """Yield (agent, step-by-step record) of one task, the trained agents' first."""
    trained: list[tuple[str, Row]] = []
    references: list[tuple[str, Row]] = []
    for group in groups:
        run = group.runs[0]
        for item in run.last_evaluated():
            own = is_trained(item, run)
            label = group.label if own else item.agent
            for task in item.summary.get("tasks", []):
                if item.suite == suite and task.get("id") == task_id:
                    place = trained if own else references
                    place += [(label, record) for record in task.get("strip") or []]
    return trained + references


def _strips(title: str, by_agent: dict[str, Row]) -> list[Strip]:
    bandits = {a: r for a, r in by_agent.items() if r.get("regret") and _discrete(r)}
    if bandits:
        return [_bandit(title, dict(list(bandits.items())[:MOST_AGENTS]))]
    games = [(agent, record) for agent, record in by_agent.items() if _is_board_game(record)]
    return [_game(f"{title}: {agent}", record) for agent, record in games[:1]]


def _discrete(record: Row) -> bool:
    return all(isinstance(action, int) for action in record.get("actions", [None]))


def _bandit(title: str, by_agent: dict[str, Row]) -> BanditEpisode:
    plays = [
        Play(agent, record["actions"], record["rewards"], record["regret"])
        for agent, record in by_agent.items()
    ]
    return BanditEpisode(title, _means(by_agent.values()), plays)


def _means(records: Iterable[Row]) -> dict[int, float]:
    """Return the true mean of each arm that some agent pulled; empty where means vary by step."""
    means: dict[int, float] = {}
    for record in records:
        for arm, mean in zip(record["actions"], record.get("expected_reward", []), strict=False):
            if abs(means.setdefault(arm, mean) - mean) > 1e-6 * (1 + abs(mean)):
                return {}
    return dict(sorted(means.items()))


def _is_board_game(record: Row) -> bool:
    seen = record.get("boards")
    return isinstance(seen, list) and all(
        isinstance(o, list) and len(o) == len(_SQUARES) for o in seen
    )


def _game(title: str, record: Row) -> Game:
    """Return the positions after each move, from those before each of the agent's and the last."""
    boards: list[Board] = []
    before = [0] * len(_SQUARES)
    for t, squares in enumerate(record["boards"]):
        boards += _moves(before, squares)
        before = list(squares)
        if t < len(record["actions"]) and not before[record["actions"][t]]:
            move = record["actions"][t]
            before[move] = 1
            boards.append(Board(list(before), move, f"agent: {_SQUARES[move]}"))
    outcome = {1: "won", 0: "drawn", -1: "lost"}.get(sum(record.get("rewards", [])), "ended")
    return Game(
        f"{title}, {outcome} by the agent" if outcome != "drawn" else f"{title}, drawn", boards
    )


def _moves(before: Sequence[int], after: Sequence[int]) -> list[Board]:
    """Return the opponent's move between two positions, if there was one."""
    new = [i for i, (old, now) in enumerate(zip(before, after, strict=True)) if old != now]
    caption = f"opponent: {_SQUARES[new[0]]}" if len(new) == 1 else "position"
    return [Board(list(after), new[0] if len(new) == 1 else None, caption)] if new else []
