"""The tree of errors: each class knows its exit code and its HTTP status.

```
LifelongError            exit 1  HTTP 500
├── ConfigError          exit 2  HTTP 400   a wrong argument, option or setting
│   └── UnknownName      exit 2  HTTP 404   no plug-in, option or version of that name
├── DataError            exit 3  HTTP 400   samples or vectors of a wrong shape, type or value
│   ├── TooLarge         exit 3  HTTP 413   a request or a record over the limit
│   ├── Halted           exit 12 HTTP 409   too much of a stream cannot be learned; a person has to look
│   └── NotFinite        exit 3  HTTP 400   a model's answer to these samples is NaN or infinite
├── NotFound             exit 4  HTTP 404   a file, folder, data set or id that is not there
├── ArtifactError        exit 5  HTTP 409   a snapshot, checkpoint or segment that is damaged or foreign
├── Refused              exit 6  HTTP 409   the gate said no; the report says why
├── SpaceError           exit 7  HTTP 409   vectors of a Space that may not be compared or stored
├── Locked               exit 8  HTTP 409   another process writes here
├── Unavailable          exit 9  HTTP 503   nothing is live yet, or a dependency is missing
│   ├── Busy             exit 9  HTTP 429   too much is under way; again later
│   └── Behind           exit 9  HTTP 412   a gallery has not come as far as was asked
├── Forbidden            exit 11 HTTP 403   no token, or one that may not do this
└── RetentionGap         exit 10 HTTP 410   a stream deleted records that were not read yet
```

A message says what is wrong, what was got and what to do, in one line. Anything that is not a
`LifelongError` is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import ClassVar

UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # of an OSError: full, over a quota, read-only
IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM})  # of a path


class LifelongError(Exception):
    """The root: whatever this project tells a user went wrong."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class ConfigError(LifelongError):
    """An argument, option or setting is wrong."""

    exit_code = 2
    http_status = 400


class UnknownName(ConfigError):
    """A name that nothing answers to; the message lists near misses."""

    http_status = 404

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str]) -> UnknownName:
        """Return the error for `name`, with the nearest of the `known` names.

        >>> str(UnknownName.among("strategy", "powrlaw", ["naive", "powerlaw"]))
        "no strategy is called 'powrlaw'; did you mean 'powerlaw'?"
        """
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(names) or 'none is installed'}"
        return cls(f"no {kind} is called {name!r}; {hint}")


class DataError(LifelongError):
    """Samples, labels or vectors have a wrong shape, type or value."""

    exit_code = 3
    http_status = 400


class TooLarge(DataError):
    """A request or record is over the limit."""

    http_status = 413


class Halted(DataError):
    """Too many records of a stream cannot be learned; the run waits for a person, and starts again to no avail."""

    exit_code = 12
    http_status = 409


class NotFinite(DataError):
    """A model answered with NaN or an infinity: to samples out of its range, or because it is broken."""


class NotFound(LifelongError):
    """A file, folder, data set, version or id is not there."""

    exit_code = 4
    http_status = 404


class ArtifactError(LifelongError):
    """A snapshot, checkpoint or gallery file is damaged, incomplete or not ours."""

    exit_code = 5
    http_status = 409


class Refused(LifelongError):
    """The gate refused a candidate; nothing that was live has changed."""

    exit_code = 6
    http_status = 409


class SpaceError(LifelongError):
    """Vectors of one Space were offered where they may not be compared or stored."""

    exit_code = 7
    http_status = 409


class Locked(LifelongError):
    """Another process is the writer here."""

    exit_code = 8
    http_status = 409


class Unavailable(LifelongError):
    """Nothing is live yet, or something that is needed is not installed."""

    exit_code = 9
    http_status = 503


class Busy(Unavailable):
    """Too much is under way; the same request may be sent again later."""

    http_status = 429


class Behind(Unavailable):
    """A gallery has not come as far as the change that was to be seen: it is another one, or an older copy."""

    http_status = 412


class Forbidden(LifelongError):
    """No token, an unknown one, or one that may not do this."""

    exit_code = 11
    http_status = 403


class RetentionGap(LifelongError):
    """A stream deleted records before they were read."""

    exit_code = 10
    http_status = 410
