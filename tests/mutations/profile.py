"""pytest plugin of the mutation run: cheap tests first, the same examples each time, no search for small failures."""

from hypothesis import Phase, is_hypothesis_test, settings

settings.register_profile(
    "mutations", derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate))


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: is_hypothesis_test(item.obj))
