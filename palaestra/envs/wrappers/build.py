"""Wrappers by name, with their options checked: what `make_vec` puts around an environment."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.vector import VectorWrapper
from pydantic import BaseModel

from palaestra.envs.signatures import check_wrapper, parameters_of
from palaestra.errors import UserError, did_you_mean
from palaestra.options import validate
from palaestra.registry import registry

Wrappers = Sequence[str | Mapping[str, Any]]
"""Names, or `{"name": ..., option: ...}`, innermost first."""


@dataclass(frozen=True)
class WrapperSpec:
    """One wrapper that is to be put around an environment."""

    name: str
    cls: type
    options: dict[str, Any]

    @property
    def of_rows(self) -> bool:
        """Whether it wraps single environments, and so each row before they are put together."""
        return issubclass(self.cls, gymnasium.Wrapper)

    def __call__(self, env: Any) -> Any:
        """Return the environment, wrapped."""
        return self.cls(env, **self.options)


def read_wrappers(
    wrappers: Wrappers, discount: float
) -> tuple[list[WrapperSpec], list[WrapperSpec]]:
    """Return the wrappers of rows and those of the vector environment, innermost first.

    Args:
      wrappers: registered names, or "module:Class" of a Gymnasium wrapper, alone or with options.
      discount: of the run, for a wrapper that has the option `discount` and is not given it.

    Raises:
      UserError: an unknown wrapper or option, or an order that cannot be built.
    """
    if isinstance(wrappers, str | Mapping):
        raise UserError(f"wrappers: {wrappers!r} is not accepted: a list of wrappers is.")
    specs = [_read(item, f"wrappers[{i}]", discount) for i, item in enumerate(wrappers)]
    around = next((i for i, spec in enumerate(specs) if not spec.of_rows), len(specs))
    for i, spec in enumerate(specs[around:], around):
        if spec.of_rows:
            raise UserError(
                f"wrappers[{i}]: {spec.name} wraps each row, so that it has to stand before "
                f"{specs[around].name}, which wraps all rows at once."
            )
    return specs[:around], specs[around:]


def wrapper_names(wrappers: Wrappers) -> list[str]:
    """Return the names of wrappers that are given with or without options."""
    return [w if isinstance(w, str) else str(w.get("name", "")) for w in wrappers]


def named_modules(env_id: str, wrappers: Wrappers) -> tuple[str, ...]:
    """Return the modules that these names import, e.g. "minigrid" of "minigrid:MiniGrid-Empty-v0".

    Importing a module runs its code. Naming it in one's own configuration is the permission; where
    a configuration comes from somebody else, ask before `make_vec` is called.
    """
    names = [env_id, *wrapper_names(wrappers)]
    return tuple(dict.fromkeys(name.partition(":")[0] for name in names if ":" in name))


def import_module(where: str, module: str) -> Any:
    """Import a module that a configuration names.

    Raises:
      UserError: it is no module name, not installed, or fails at import.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise UserError(f"{where}: {module!r} is no module; accepted: a name such as my_package.x.")
    try:
        return importlib.import_module(module)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(
            f"{where}: module {module!r} cannot be imported: {error}; accepted: an installed one."
        ) from error
    except Exception as error:
        raise UserError(
            f"{where}: module {module!r} fails at import: {type(error).__name__}: {error}"
        ) from error


def _read(item: Any, where: str, discount: float) -> WrapperSpec:
    given = {"name": item} if isinstance(item, str) else item
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise UserError(
            f"{where}: {item!r} is not accepted: a name, or a mapping with the key `name` and the "
            "wrapper's options, is."
        )
    name = given["name"]
    options = {key: value for key, value in given.items() if key != "name"}
    cls = _class(name, where)
    config = getattr(cls, "Config", None)
    if isinstance(config, type) and issubclass(config, BaseModel):
        if "discount" in config.model_fields:
            options.setdefault("discount", discount)
        validate(config, options, f"{where}.{name}")
    else:
        accepted = parameters_of(cls)
        if accepted is not None and "discount" in accepted:
            options.setdefault("discount", discount)
        check_wrapper(f"{where}.{name}", cls, options)
    return WrapperSpec(name, cls, options)


def _class(name: str, where: str) -> type:
    if ":" not in name:
        try:
            cls = registry.get("wrapper", name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    else:
        module, _, attribute = name.partition(":")
        found = vars(import_module(where, module))
        if attribute not in found:
            classes = [key for key, value in found.items() if _is_wrapper(value)]
            raise UserError(
                f"{where}: module {module!r} has no {attribute!r}; "
                f"{did_you_mean(attribute, classes)}"
            )
        cls = found[attribute]
    if not _is_wrapper(cls):
        raise UserError(
            f"{where}: {name} is not accepted: a subclass of gymnasium.Wrapper or of "
            "gymnasium.vector.VectorWrapper is."
        )
    wrapper: type = cls
    return wrapper


def _is_wrapper(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, gymnasium.Wrapper | VectorWrapper)
