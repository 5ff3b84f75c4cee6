"""Reading MovieLens-100k (Harper and Konstan 2015), which the user brings.

The data may not be passed on, so it is read where it lies: in a folder of the user's, or inside
an installed `recbole`, whose wheel holds it. Nothing is copied or cached on disk.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from palaestra.errors import UserError

NUM_USERS = 943


@dataclass(frozen=True)
class MovieLens:
    """All ratings, as three arrays of equal length, and the titles."""

    user: np.ndarray
    """int64 `[R]`, from 0."""
    movie: np.ndarray
    """int64 `[R]`, from 0."""
    rating: np.ndarray
    """float64 `[R]`, 1 to 5."""
    titles: dict[int, tuple[str, str]]
    """Movie from 0 -> title and year."""


def find_data(path: str | None) -> Path:
    """Return the folder with the data: `path`, or that of an installed recbole.

    Raises:
      UserError: there is none; the message says how to get it.
    """
    if path is not None:
        folder = Path(path).expanduser()
        if (folder / "ml-100k.inter").is_file() or (folder / "u.data").is_file():
            return folder
        raise UserError(
            f"path: {path!r} is not accepted: a folder with ml-100k.inter and ml-100k.item "
            "(RecBole) or with u.data and u.item (GroupLens) is."
        )
    spec = find_spec("recbole")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "dataset_example" / "ml-100k"
        if (folder / "ml-100k.inter").is_file():
            return folder
    raise UserError(
        "palaestra/MovieLensBandit-v0 needs MovieLens-100k, which may not be shipped with it: give "
        "path=..., a folder with the data, or `pip install --no-deps recbole`, whose wheel holds "
        "it. palaestra/SyntheticMovies-v0 needs no data."
    )


def read(folder: Path) -> MovieLens:
    """Read the ratings and titles in RecBole's or GroupLens' files.

    Raises:
      UserError: a file that is missing or not in its format.
    """
    try:
        if (folder / "ml-100k.inter").is_file():
            rows = _rows(folder / "ml-100k.inter", "\t", "utf-8")[1:]
            titles = {
                int(row[0]) - 1: (row[1], row[2])
                for row in _rows(folder / "ml-100k.item", "\t", "utf-8")[1:]
            }
        else:
            rows = _rows(folder / "u.data", "\t", "latin-1")
            titles = {
                int(row[0]) - 1: _split_year(row[1])
                for row in _rows(folder / "u.item", "|", "latin-1")
            }
        table = np.array([row[:3] for row in rows], dtype=np.float64)
        user, movie = table[:, :2].T.astype(np.int64) - 1
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"path: {folder} does not hold MovieLens-100k: {error}") from error
    return MovieLens(user, movie, table[:, 2], titles)


def _rows(file: Path, separator: str, encoding: str) -> list[list[str]]:
    lines = file.read_text(encoding=encoding).splitlines()
    return [line.split(separator) for line in lines if line]


def _split_year(title: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?)\s*\((\d{4})\)", title.strip())
    return (match[1], match[2]) if match else (title.strip(), "")


def display_names(data: MovieLens, movies: np.ndarray, style: str) -> tuple[str, ...]:
    """Return the names of `movies`: "Star Wars (1977)", or "star_wars_(1977)" in snake style.

    The files put articles last ("Godfather, The"); here they come first. Of two films with one
    name the later says its number.
    """
    names: list[str] = []
    for movie in movies.tolist():
        title, year = data.titles[movie]
        title = re.sub(r"^(.*), (The|A|An)$", r"\2 \1", title)
        name = f"{title} ({year})" if year else title
        names.append(f"{name} [{movie + 1}]" if name in names else name)
    if style == "snake":
        return tuple(name.lower().replace(" ", "_") for name in names)
    return tuple(names)
