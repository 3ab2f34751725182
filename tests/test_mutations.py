"""The tables of mutations fit the code as it is."""

import pytest

from tests.mutations import ROOT, Mutation, mutations


@pytest.mark.parametrize("mutation", mutations(), ids=lambda m: m.name)
def test_the_mutation_applies_to_the_code_as_it_is(mutation):
    assert mutation.apply((ROOT / mutation.file).read_text()) != ""
    assert any((ROOT / test.partition("::")[0]).is_file() for test in mutation.tests)


def test_names_are_different():
    names = [m.name for m in mutations()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("text, count", [("", 0), ("a a", 2)])
def test_old_text_must_be_there_exactly_once(text, count):
    with pytest.raises(ValueError, match=f"f.c must hold the old text exactly once, not {count} times"):
        Mutation("name", "f.c", "a", "b", ()).apply(text)
