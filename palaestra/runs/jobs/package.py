"""The upload of a job: a small folder with everything that a cluster lacks, and nothing else."""

import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from palaestra.errors import UserError

MAX_BYTES = 100 * 1024**2
"""What Ray's dashboard takes in one upload."""

_NEVER = (
    *(".git", ".hg", ".svn", ".gitignore", ".rayignore", ".venv", "venv", ".tox", "node_modules"),
    *("__pycache__", "*.pyc", "*.pyo", "*.egg-info", ".cache", ".*_cache", ".hypothesis"),
    *(".ipynb_checkpoints", ".DS_Store"),
)
_RESULTS = ("runs", "evaluations", "wandb", "mlruns", "videos")


class Upload:
    """What a job finds in its working directory: path in the upload -> where it comes from.

    Args:
      storage: the runs directory, which is never uploaded.
    """

    def __init__(self, storage: Path) -> None:
        self.files: dict[str, Path | bytes] = {}
        self._storage = storage.resolve()

    def add(self, target: str, source: Path | bytes) -> None:
        """Add one file.

        Raises:
          UserError: another file has this place.
        """
        taken = self.files.setdefault(target, source)
        if _origin(taken) != _origin(source):
            raise UserError(
                f"the upload would hold two files {target!r}: {_origin(taken)} and "
                f"{_origin(source)}; rename or leave out one of them."
            )

    def add_source(self, source: Path) -> None:
        """Add an installed module or package as the top of the upload, links followed."""
        self._add_tree(source, source.name, None)

    def add_included(self, path: Path, top: Path) -> None:
        """Add a file or folder of the user's at its place below `top`, the working directory.

        Raises:
          UserError: it is missing, outside, never uploaded, or holds a link that leaves it.
        """
        place = path if path.is_absolute() else top / path
        if not place.exists():
            raise UserError(f"--include {str(path)!r}: there is no such file or folder.")
        if not place.resolve().is_relative_to(top.resolve()):
            raise UserError(
                f"--include {str(path)!r}: leads to {place.resolve()}; only files and folders of "
                f"the working directory {top} are accepted."
            )
        target = place.resolve().relative_to(top.resolve())
        if any(self._left_out(top.resolve() / part) for part in _and_parents(target)):
            raise UserError(
                f"--include {str(path)!r}: never uploaded are {', '.join((*_RESULTS, *_NEVER))}."
            )
        root = place.resolve() if place.is_dir() else top.resolve()
        self._add_tree(place.resolve(), "" if target == Path() else target.as_posix(), root)

    def _add_tree(self, source: Path, target: str, root: Path | None) -> None:
        if source.is_file():
            self.add(target, source)
            return
        for file in self._walk(source, root, ()):
            self.add("/".join(filter(None, (target, file.relative_to(source).as_posix()))), file)

    def _walk(self, folder: Path, root: Path | None, above: tuple[Path, ...]) -> Iterator[Path]:
        """Yield the files below `folder`; links may not leave `root`, nor lead in circles."""
        above = (*above, folder.resolve())
        for path in sorted(folder.iterdir()):
            if self._left_out(path):
                continue
            real = path.resolve()
            if root is not None and not real.is_relative_to(root):
                raise UserError(
                    f"{path}: this link leads to {real}, outside of {root}; "
                    "include what it points to, or remove it."
                )
            if real in above:
                raise UserError(f"{path}: this link leads back to {real}; remove it.")
            if real.is_dir():
                yield from self._walk(path, root, above)
            elif real.is_file():
                yield path
            else:
                raise UserError(f"{path}: neither a file nor a folder; remove or exclude it.")

    def _left_out(self, path: Path) -> bool:
        if any(fnmatch(path.name, pattern) for pattern in _NEVER):
            return True
        # A Python package may well be called `runs`; results never are one.
        is_results = path.name in _RESULTS and not (path / "__init__.py").is_file()
        return is_results or path.resolve() == self._storage

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(_size(source) for source in self.files.values())

    def check_size(self, limit: int = MAX_BYTES) -> None:
        """Check that the cluster will take it.

        Raises:
          UserError: it is too large; the ten largest files are listed.
        """
        if self.size <= limit:
            return
        largest = sorted(((_size(s), t) for t, s in self.files.items()), reverse=True)[:10]
        rows = "\n".join(f"  {size / 1024**2:10.2f} MiB  {target}" for size, target in largest)
        raise UserError(
            f"the upload has {self.size / 1024**2:.1f} MiB, more than the {limit / 1024**2:g} MiB "
            "that a cluster takes. Put data on storage that all nodes see, and include less. "
            f"The largest files:\n{rows}"
        )

    def write(self, folder: Path) -> None:
        """Write the files below `folder`."""
        for target, source in self.files.items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                path.write_bytes(source)
            else:
                shutil.copy2(source, path)


def make_upload(
    configuration: str, plugins: Sequence[str], include: Sequence[Path], storage: Path
) -> Upload:
    """Return the upload of a run: Palaestra, config.yaml, plug-ins, and what the user includes.

    Args:
      configuration: the text of config.yaml.
      plugins: modules that the configuration imports.
      include: files and folders of the working directory.
      storage: the runs directory.

    Raises:
      UserError: something cannot be uploaded, or all of it is too large.
    """
    import palaestra
    from palaestra.runs.jobs.plugins import distribution_files, module_sources, plug_ins

    upload = Upload(storage)
    upload.add("config.yaml", configuration.encode())
    upload.add_source(Path(palaestra.__path__[0]))
    for module in plugins:
        for source in module_sources(module, installed=False):
            upload.add_source(source)
    for distribution in plug_ins():
        sources, metadata = distribution_files(distribution)
        for source in sources:
            upload.add_source(source)
        for target, text in metadata.items():
            upload.add(target, text.encode())
    for path in include:
        upload.add_included(path, Path.cwd())
    upload.check_size()
    return upload


def _and_parents(path: Path) -> list[Path]:
    return [path, *path.parents][:-1]


def _origin(source: Path | bytes) -> str:
    return "one that is made for the job" if isinstance(source, bytes) else str(source.resolve())


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size
