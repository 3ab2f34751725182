"""How the property tests choose their examples.

The default gives the same examples each time, so that a check that passed passes again. To look for new ones:
HYPOTHESIS_PROFILE=explore scripts/check, which prints the seed of a failure.
"""

import os

from hypothesis import settings

settings.register_profile("check", derandomize=True, database=None, deadline=None)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "check"))
