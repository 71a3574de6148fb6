"""The progress bar of sampling."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def row_bar(progress: bool | None, total: int) -> Any:
    """A bar on standard error of `total` image rows, after a second. progress: None shows it on a terminal only.

    A process without standard error, such as a service, has no bar in any case.
    """
    disable = None if progress is None else not progress
    return tqdm(total=total, unit="row", delay=1, disable=True if sys.stderr is None else disable, leave=False)
