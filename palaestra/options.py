"""Typed options: one frozen pydantic model for each thing, with errors that name the field.

The same model checks a YAML file, a command-line override and a keyword argument, and its field
descriptions are the help text of `palaestra describe`.
"""

import inspect
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from palaestra.errors import UserError, did_you_mean


class Options(BaseModel):
    """Base of every options model: frozen, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)


M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], data: Mapping[str, Any], where: str = "") -> M:
    """Return `data` as an instance of `model`.

    Args:
      model: the options model.
      data: the raw values, as read from YAML or the command line.
      where: the path of `data` in the whole configuration, e.g. "agent"; it prefixes field names.

    Raises:
      UserError: one line for each wrong field, with its path, its value and what is accepted.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, dict(detail), where) for detail in error.errors()]
        raise UserError("\n".join(lines)) from None


def _explain(model: type[BaseModel], detail: dict[str, Any], where: str) -> str:
    location = [str(part) for part in detail["loc"]]
    path = ".".join(([where] if where else []) + location) or "configuration"
    if detail["type"] == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        known = owner.model_fields if owner is not None else ()
        return f"{path}: unknown key; {did_you_mean(location[-1], known)}"
    if detail["type"] == "missing":
        return f"{path}: required but not given."
    message = detail["msg"].removeprefix("Value error, ")
    return f"{path}: {detail['input']!r} is not accepted: {message[:1].lower()}{message[1:]}."


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """Return the nested model at `path`, or None where the path leaves the models."""
    for name in path:
        if name.isdigit():  # of a list of models
            continue
        field = model.model_fields.get(name)
        annotation = field.annotation if field else None
        candidates = [annotation, *get_args(annotation)]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return None
        model = nested[0]
    return model


@dataclass(frozen=True)
class Option:
    """One option of a registered thing, as `palaestra describe` shows it."""

    name: str
    type: str
    default: Any
    help: str
    required: bool = False


def options_of(thing: Any) -> list[Option]:
    """Return the options of a registered thing: of its `Config` model, else of its signature."""
    model = getattr(thing, "Config", None)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [
            Option(
                name,
                type_name(field.annotation),
                None if field.is_required() else field.get_default(call_default_factory=True),
                _help(field.description or "", field.metadata),
                field.is_required(),
            )
            for name, field in model.model_fields.items()
        ]
    if not callable(thing):
        return []
    helps = _argument_help(inspect.getdoc(thing) or "")
    helps |= _argument_help(inspect.getdoc(getattr(thing, "__init__", None)) or "")
    return [
        Option(
            parameter.name,
            type_name(parameter.annotation),
            None if parameter.default is parameter.empty else parameter.default,
            helps.get(parameter.name, ""),
            parameter.default is parameter.empty,
        )
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]


def type_name(annotation: Any) -> str:
    """Return a type as a reader would write it: `int | None`, `'low' | 'high'`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(argument) for argument in arguments)
    if origin is Literal:
        return " | ".join(repr(argument) for argument in arguments)
    if annotation is type(None):
        return "None"
    if annotation is inspect.Parameter.empty:
        return ""
    if origin is not None:
        inner = ", ".join("..." if a is Ellipsis else type_name(a) for a in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def _help(description: str, metadata: list[Any]) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{sign} {getattr(rule, name)}"
        for rule in metadata
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    ]
    return f"{description} ({', '.join(bounds)})" if bounds else description


def _argument_help(docstring: str) -> dict[str, str]:
    """Return the `Args:` section of a Google-style docstring as name -> text."""
    section = re.search(r"^\s*(?:Args|Arguments):\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    if not section:
        return {}
    found: dict[str, str] = {}
    name = ""
    for line in section.group(1).splitlines():
        start = re.match(r"\s+(\w+)(?: \([^)]*\))?: (.*)", line)
        if start:
            name = start.group(1)
            found[name] = start.group(2).strip()
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found
