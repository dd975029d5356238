"""UTF-8 whatever the locale says."""

import os
import sys


def use_utf8() -> None:
    """Start this process again in Python's UTF-8 mode if the locale has another encoding.

    The encoding of file names and of what is printed is set when Python starts (docs.python.org/3/library/os.html,
    "Python UTF-8 Mode"). Under a locale such as de_DE.ISO-8859-1 a folder `Möwe` would be read as another name, and its
    store would get another key. Python itself does this under the locales C and POSIX.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606
