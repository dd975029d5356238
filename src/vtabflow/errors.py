"""The two ways a command ends badly. Neither shows a traceback."""


class UserError(Exception):
    """Bad input: one sentence that names the file, key or command and says what to do next. Exit code 2."""


class RunError(Exception):
    """A run that failed through no fault of its input (no space, no permission, ...). Exit code 1."""
