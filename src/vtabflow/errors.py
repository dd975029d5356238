"""The two ways a command ends badly. Neither shows a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one sentence that names the file, key or command and says what to do next. Exit code 2."""


class RunError(Exception):
    """A run that failed through no fault of its input (no space, no permission, ...). Exit code 1."""


def nearest(name: object, known: Iterable[str]) -> str:
    """A hint for an unknown name, " (did you mean <the most similar of known>?)", or "" if none is similar."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
