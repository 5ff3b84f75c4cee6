"""Which plug-in modules an export may import: installed ones that the reader allows by name."""

import importlib
import importlib.util
import site
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from palaestra.errors import UserError


def import_allowed(modules: Sequence[str], allowed: Sequence[str], source: Path) -> None:
    """Import the modules that an export names, if all of them are allowed and installed.

    Importing a module runs its code, and an export may come from anybody. So its configuration
    never decides what is imported: the reader does. A module beside the export or in the working
    directory is refused even then, because it may have come with the export.

    Args:
      modules: what the export asks for.
      allowed: what the reader allows.
      source: the file that asks, for messages.

    Raises:
      UserError: a module that is not allowed, not installed, or fails at import.
    """
    for module in modules:
        if module not in allowed:
            raise UserError(
                f"{source}: plugins: the agent needs the module {module!r}, and importing a module "
                "runs its code. An export brings no code: if you have installed this module and "
                f"trust it, allow it by name (--allow-plugin {module})."
            )
        _check_installed(module, source)
    for module in modules:
        try:
            importlib.import_module(module)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{source}: plugins: module {module!r} fails at import: "
                f"{type(error).__name__}: {error}"
            ) from error


def _check_installed(module: str, source: Path) -> None:
    """Raise `UserError` unless the module's package lies in a folder of installed packages."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)  # finds a top-level name without importing it
    except ValueError:
        spec = None
    places = [] if spec is None else [*(spec.submodule_search_locations or [spec.origin or ""])]
    roots = [Path(folder).resolve() for folder in installed_folders()]
    outside = [p for p in places if not any(Path(p).resolve().is_relative_to(r) for r in roots)]
    if not places or outside:
        found = f"it was found at {outside[0]!r}" if outside else "it is not installed"
        raise UserError(
            f"{source}: plugins: module {module!r} is not accepted: {found}; an installed "
            f"package is expected, in {' or '.join(map(str, roots))}."
        )


def installed_folders() -> list[str]:
    """Return the folders into which packages are installed."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return list(dict.fromkeys(folders))
