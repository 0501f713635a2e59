"""Reading job_managers.ini: which managers there are, of which kind, with which options."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lwr.config import options as o
from lwr.config.ini import Entry, IniFile
from lwr.config.model import ManagerConfig
from lwr.config.option import MANAGER, Option, nearest
from lwr.config.values import HIDDEN, Setting, Values, claim
from lwr.core.job import DEFAULT_MANAGER, check_manager_name
from lwr.errors import BadName, ConfigError
from lwr.managers.manager import ManagerKind, Site

_DEFAULT_TYPE = "queued_python"
_PREFIX = "manager:"
_ENV_NAME = re.compile(r"env_(?P<variable>[A-Za-z_][A-Za-z0-9_]*)", re.IGNORECASE)
_SECRET_NAME = re.compile(r"key|token|secret|pass|credential", re.IGNORECASE)
_SYSTEM_PROPERTIES = (
    o.GALAXY_CONFIG_FILE,
    o.GALAXY_DATASET_FILES_PATH,
    o.GALAXY_DATATYPES_CONFIG_FILE,
    o.GALAXY_VIRTUAL_ENV,
)


@dataclass(frozen=True, slots=True)
class ManagerDefaults:
    """What a manager's section takes over when it does not say it itself."""

    staging_directory: str
    debug: bool
    galaxy_home: str


@dataclass(frozen=True, slots=True)
class _Section:
    """One section, read but not parsed."""

    name: str
    type: str
    kind: ManagerKind
    values: Values
    env: Mapping[str, str]


def default_manager(
    defaults: ManagerDefaults, kinds: Mapping[str, ManagerKind], settings: list[Setting]
) -> Mapping[str, ManagerConfig]:
    """The one manager of a server without job_managers.ini: one slot of this machine."""
    settings.append(Setting(f"{_PREFIX}{DEFAULT_MANAGER}", "type", _DEFAULT_TYPE, "default"))
    values = Values(f"{_PREFIX}{DEFAULT_MANAGER}", Path.cwd(), {}, settings)
    kind = _kind(Entry("type", _DEFAULT_TYPE, "default"), kinds)
    return {DEFAULT_MANAGER: _manager(_Section(DEFAULT_MANAGER, _DEFAULT_TYPE, kind, values, {}), defaults)}


def read_managers(
    ini: IniFile, defaults: ManagerDefaults, kinds: Mapping[str, ManagerKind], settings: list[Setting]
) -> Mapping[str, ManagerConfig]:
    """All managers of the file, in its order.

    Raises:
        ConfigError: no manager, another section, a bad name, no or an unknown type, an option that is unknown or
            that the type does not take, a value that cannot work.
    """
    managers: dict[str, ManagerConfig] = {}
    used: set[str] = set()
    for section in ini.sections:
        name = _manager_name(ini, section)
        read = _section(ini, section, name, kinds, settings, used)
        managers[name] = _manager(read, defaults)
    if not managers:
        raise ConfigError(f"{ini.path} defines no manager.", "Add a section `[manager:_default_]` with a `type`.")
    _check_defaults(ini, used)
    return managers


def _manager_name(ini: IniFile, section: str) -> str:
    if not section.startswith(_PREFIX):
        raise ConfigError(
            f"[{section}] ({ini.path.name}) is not a section of this file.", "Sections are called `[manager:NAME]`."
        )
    try:
        return check_manager_name(section.removeprefix(_PREFIX))
    except BadName as error:
        raise ConfigError(f"[{section}] ({ini.path.name}): {error.message}", error.hint) from error


def _section(
    ini: IniFile,
    section: str,
    name: str,
    kinds: Mapping[str, ManagerKind],
    settings: list[Setting],
    used: set[str],
) -> _Section:
    own, inherited = ini.own(section), ini.defaults(section)
    type_entry = next((entry for entry in (*own, *inherited) if entry.name.lower() == "type" and entry.text), None)
    if type_entry is None:
        raise ConfigError(f"[{section}] ({ini.path.name}) has no type.", f"Types are {', '.join(sorted(kinds))}.")
    kind = _kind(type_entry, kinds)
    known = [*o.MANAGER_OPTIONS, *own_options(kind)]
    claimed: dict[bool, list[tuple[Option[Any], Entry]]] = {True: [], False: []}
    env: dict[str, str] = {}
    for is_own, entry in (*((False, entry) for entry in inherited), *((True, entry) for entry in own)):
        option = _find(entry.name, known)
        if match := _ENV_NAME.fullmatch(entry.name):
            env[match["variable"]] = entry.text
            shown = HIDDEN if _SECRET_NAME.search(entry.name) else entry.text
            settings.append(Setting(section, entry.name, shown, entry.origin))
        elif option:
            claimed[is_own].append((option, entry))
        elif is_own:
            raise _unknown(entry, section, type_entry.text, known, kinds)
        else:
            continue
        used.add(entry.name)
    values = Values(section, ini.path.parent, claim(claimed[False]) | claim(claimed[True]), settings)
    return _Section(name, values.get(o.TYPE), kind, values, env)


def _manager(section: _Section, defaults: ManagerDefaults) -> ManagerConfig:
    values = section.values
    values.get(o.M_ASSIGN_IDS, default=o.ASSIGN_IDS.default)
    galaxy_home = values.get(o.GALAXY_HOME, default=defaults.galaxy_home)
    galaxy_home = "" if galaxy_home.lower() == "none" else galaxy_home
    properties = {option.name: values.get(option) for option in _SYSTEM_PROPERTIES}
    return ManagerConfig(
        name=section.name,
        type=section.type,
        kind=section.kind,
        staging_directory=values.path(o.M_STAGING_DIRECTORY, default=defaults.staging_directory),
        debug=values.get(o.M_DEBUG, default=str(defaults.debug).lower()),
        options={option.name: values.get(option) for option in own_options(section.kind)},
        site=Site(
            section.env,
            galaxy_home,
            search_path=(str(Path(sys.executable).parent),),
            galaxy_virtual_env=properties[o.GALAXY_VIRTUAL_ENV.name],
        ),
        system_properties={name: text for name, text in {"galaxy_home": galaxy_home, **properties}.items() if text},
    )


def own_options(kind: ManagerKind) -> list[Option[object]]:
    """The options that only this kind takes."""
    return [Option(own.name, MANAGER, own.parse, own.default, own.doc, aliases=own.aliases) for own in kind.options]


def _find(name: str, known: Iterable[Option[Any]]) -> Option[Any] | None:
    """Names were not sensitive to case in old files."""
    return next((option for option in known if name.lower() in option.names), None)


def _kind(entry: Entry, kinds: Mapping[str, ManagerKind]) -> ManagerKind:
    kind = kinds.get(entry.text)
    if kind is None:
        hint = nearest(entry.text, kinds)
        raise ConfigError(
            f"type = {entry.text!r} ({entry.origin}) is not a type of manager.",
            f"{hint} Types are {', '.join(sorted(kinds))}.".strip(),
        )
    return kind


def _unknown(
    entry: Entry, section: str, kind: str, known: list[Option[Any]], kinds: Mapping[str, ManagerKind]
) -> ConfigError:
    for unserved in o.UNSERVED_MANAGER_OPTIONS:
        if unserved.covers(entry.name.lower()):
            return ConfigError(
                f"{entry.name} ({entry.origin}): {unserved.what} is not in this version of LWR.", "Remove the line."
            )
    takers = sorted(name for name, other in kinds.items() if _find(entry.name, own_options(other)))
    if takers:
        return ConfigError(
            f"{entry.name} ({entry.origin}) is not an option of type {kind}.", f"It is one of {', '.join(takers)}."
        )
    near = nearest(entry.name, (name for option in known for name in option.names))
    return ConfigError(
        f"{entry.name} ({entry.origin}) is not an option of [{section}].", near or "See job_managers.ini.sample."
    )


def _check_defaults(ini: IniFile, used: set[str]) -> None:
    """A name in [DEFAULT] that no manager takes and no value refers to is a slip of the pen."""
    for entry in ini.defaults(ini.sections[0]):
        if entry.name not in used and not ini.only_referenced(entry.name):
            known = (name for option in o.MANAGER_OPTIONS for name in option.names)
            raise ConfigError(
                f"{entry.name} ({entry.origin}) in [DEFAULT] is an option of no manager here.",
                nearest(entry.name, known),
            )
