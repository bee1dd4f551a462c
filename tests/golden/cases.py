"""The list of all golden cases, in the order they are made."""

import cases_main  # noqa: F401  (both modules fill the list)
import cases_other  # noqa: F401
from case import CASES

assert len({c.name for c in CASES}) == len(CASES)
