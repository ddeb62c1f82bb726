"""Names that users give to things which last: datasets, jobs. They are ids and no paths: no file is named by one."""

from __future__ import annotations

import re

from telegrad.errors import GraphError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str, *, what: str) -> str:
    """The name of ``what``, as in "a dataset". GraphError (NAME_INVALID) if it is none."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GraphError(
            f"{name!r:.80} is no name of {what}: it must begin with a letter or digit of ASCII, and up to 127 letters,"
            " digits, dots, underscores and hyphens may follow",
            reason="NAME_INVALID",
        )
    return name
