"""Every behaviour holds for both engines."""

import pytest


@pytest.fixture(params=("native", "reference"))
def engine(request):
    return request.param
