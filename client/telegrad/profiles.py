"""Profiles: servers by name, each with its address, its authority and its token, in a file of the user's alone.

``telegrad login`` writes it, ``tg.connect("name")`` and the command line read it. It is
``$XDG_CONFIG_HOME/telegrad/profiles.toml``, else ``~/.config/telegrad/profiles.toml``, and may be edited by hand::

    default = "gpu-box"

    [profiles.gpu-box]
    address = "grpcs://gpu-box:50051"
    ca_cert = "/home/alice/ca.pem"
    token_file = "/home/alice/client.token"

A token goes to the address of its profile and nowhere else. A file that others may read is refused, as a token file is.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from telegrad.errors import AccessError, NotFound
from telegrad.transport.access import find_token, read_token_file

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FIELDS = ("address", "ca_cert", "token_file", "token")


@dataclass(frozen=True, slots=True)
class Profile:
    """A server, and how to come in. ``token`` is in the file itself, ``token_file`` is the path of another."""

    address: str
    ca_cert: str | None = None
    token_file: str | None = None
    token: str | None = field(default=None, repr=False)

    def find_token(self) -> str | None:
        """The profile's token, else the environment's. AccessError if its file cannot be read or others may read it."""
        if self.token is None and self.token_file is not None:
            return read_token_file(self.token_file)
        return find_token(self.token)


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles by name, and which of them is meant where none is named."""

    by_name: Mapping[str, Profile] = field(default_factory=dict[str, Profile])
    default: str | None = None

    def find(self, name: str) -> Profile:
        """A profile by name; NotFound names those that there are."""
        if name not in self.by_name:
            known = f"there are {', '.join(sorted(self.by_name))}" if self.by_name else "there is none yet"
            raise NotFound(
                f"no profile {name!r}; {known}; make it with telegrad login --profile {name} ADDRESS, or write"
                " grpc://host:port"
            )
        return self.by_name[name]

    def put(self, name: str, profile: Profile) -> Profiles:
        """With the profile under this name; the first one is the default."""
        return replace(self, by_name={**self.by_name, name: profile}, default=self.default or name)

    def without(self, name: str) -> Profiles:
        """Without the profile; NotFound if it is not there. No other becomes the default by itself."""
        self.find(name)
        left = {known: profile for known, profile in self.by_name.items() if known != name}
        return Profiles(left, None if self.default == name else self.default)


def profiles_path() -> Path:
    """Where the profiles are kept."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "telegrad" / "profiles.toml"


def is_name(text: str) -> bool:
    """Whether a profile may have this name; no address is one."""
    return NAME.fullmatch(text) is not None


def read_profiles() -> Profiles:
    """The profiles of this user; none if there is no file. AccessError if it is no such file, or others may read it."""
    path = profiles_path()
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except FileNotFoundError:
        return Profiles()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"the profiles in {path} cannot be read: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise AccessError(f"the profiles in {path} can be read by others; run chmod 600 {path}")
    return _parse(text, path)


def write_profiles(profiles: Profiles) -> Path:
    """Replace the user's profiles, whole or not at all; the file is the user's alone. Returns where it is."""
    path = profiles_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".profiles.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(_text(profiles))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise AccessError(f"the profiles in {path} cannot be written: {error.strerror}") from error
    return path


def _parse(text: str, path: Path) -> Profiles:
    import tomllib  # only those who have profiles need it

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AccessError(f"the profiles in {path} are no TOML: {error}; correct the file or log in anew") from None
    default, tables = document.get("default"), document.get("profiles", {})
    if set(document) - {"default", "profiles"} or not isinstance(default, str | None) or not isinstance(tables, dict):
        raise AccessError(f'{path} may have default = "name" and tables [profiles.name], and nothing else at its top')
    found = {name: _profile(name, entry, path) for name, entry in cast("dict[str, object]", tables).items()}
    return Profiles(found, default)


def _profile(name: str, entry: object, path: Path) -> Profile:
    if not is_name(name) or not isinstance(entry, dict):
        raise AccessError(f"{name!r} in {path} is no profile; write [profiles.name]")
    texts = cast("dict[str, str]", {key: value for key, value in entry.items() if isinstance(value, str)})
    if len(texts) < len(cast("dict[str, object]", entry)) or set(texts) - set(_FIELDS) or "address" not in texts:
        raise AccessError(
            f"profile {name!r} in {path} needs an address and may have {', '.join(_FIELDS[1:])}, as texts"
        )
    return Profile(**texts)


def _text(profiles: Profiles) -> str:
    lines = ["# Written by telegrad login. Whoever reads this file can use its tokens."]
    if profiles.default is not None:
        lines.append(f"default = {_quoted(profiles.default)}")
    for name, profile in profiles.by_name.items():
        lines += ["", f"[profiles.{_quoted(name) if '.' in name else name}]"]
        given = ((key, cast("str | None", getattr(profile, key))) for key in _FIELDS)
        lines += [f"{key} = {_quoted(value)}" for key, value in given if value is not None]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML string: JSON's but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
