"""Keyword arguments of things that others wrote, checked before they are called."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel

from palaestra.errors import UserError, did_you_mean


def parameters_of(creator: Callable[..., Any]) -> set[str] | None:
    """Return the names of the keyword arguments of `creator`, or None if it takes any."""
    parameters = inspect.signature(creator).parameters
    config = getattr(creator, "Config", None)
    if isinstance(config, type) and issubclass(config, BaseModel):
        return {*config.model_fields, *parameters} - {"options", "kwargs"}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return set(parameters)


def check_keywords(
    where: str, creator: Callable[..., Any], keywords: Mapping[str, Any], also: Collection[str] = ()
) -> None:
    """Refuse keyword arguments that `creator` does not take; one that takes any checks them itself.

    Args:
      where: whose they are, for the message.
      creator: a class or function; its `Config` model counts where it has one.
      keywords: what it is to be called with.
      also: other names that are accepted.

    Raises:
      UserError: an unknown name.
    """
    accepted = parameters_of(creator)
    if accepted is None:
        return
    accepted = accepted - {"num_envs"} | set(also)
    for key in keywords:
        if key not in accepted:
            raise UserError(f"{where}: {key}: unknown option; {did_you_mean(key, accepted)}")


def check_wrapper(where: str, cls: type, keywords: Mapping[str, Any]) -> None:
    """Refuse keyword arguments that a wrapper does not take, and the lack of one that it needs.

    Raises:
      UserError: an unknown name, or a required one that is missing.
    """
    _, *options = inspect.signature(cls).parameters.values()  # the first one is the environment
    known = [p for p in options if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if not any(p.kind is p.VAR_KEYWORD for p in options):
        accepted = {p.name for p in known}
        for key in keywords:
            if key not in accepted:
                raise UserError(f"{where}: {key}: unknown option; {did_you_mean(key, accepted)}")
    for parameter in known:
        if parameter.default is parameter.empty and parameter.name not in keywords:
            raise UserError(f"{where}: {parameter.name}: required but not given.")
