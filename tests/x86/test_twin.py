"""The C walker against the reference: result, fault, steps, what software sees, bus accesses, memory afterwards."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmu import Access, Fault, Translation, x86
from mmu.core import ffi, lib
from mmu.x86.native import c_registers
from mmu.x86.walk import linear_address
from tests.x86.images import ACCESSES, GUESTS, STAGE2, Image, address, registers, stage2

QUERIES = 24
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32 - 1)


def same_walks(seed, guest, nested, bus_error, update):
    images = [Image(seed, guest, nested) for _ in range(2)]
    r = random.Random(seed)
    for _ in range(QUERIES):
        regs = registers(r, guest, stage2(r, nested), bus_error)
        va, access = address(r, guest), r.choice(ACCESSES)
        answers = []
        for image, engine in zip(images, ("reference", "native"), strict=True):
            with image.space.trace() as trace:
                answer = x86.walk(image.space, regs, va, access, engine=engine, update=update)
            seen = x86.exception(answer, regs) if isinstance(answer, Fault) else None
            answers.append((answer, answer.steps, seen, trace))
        assert answers[0] == answers[1], (regs, hex(va), access)
        again = x86.walk(images[1].space, regs, va, access, update=False, steps=False)  # untraced: RAM is read directly
        assert type(again) is type(answers[1][0])
    assert images[0].memory() == images[1].memory()


@pytest.mark.parametrize("guest", GUESTS)
@relaxed
@given(seed=seeds, bus_error=st.sampled_from(["zero", "machine-check"]), update=st.booleans())
def test_both_walkers_agree(guest, seed, bus_error, update):
    same_walks(seed, guest, "none", bus_error, update)


@pytest.mark.parametrize("nested", STAGE2)
@relaxed
@given(seed=seeds, guest=st.sampled_from(list(GUESTS)), bus_error=st.sampled_from(["zero", "machine-check"]),
       update=st.booleans())  # fmt: skip
def test_both_walkers_agree_behind_stage_2(nested, seed, guest, bus_error, update):
    same_walks(seed, guest, nested, bus_error, update)


@pytest.mark.parametrize("nested", ["none", *STAGE2])
@relaxed
@given(seed=seeds, guest=st.sampled_from(list(GUESTS)))
def test_what_c_allows_without_another_walk_needs_none(nested, seed, guest):
    """A right is in `allowed` exactly when the reference grants that access now and updates nothing for it."""
    image, r = Image(seed, guest, nested, tidy=True), random.Random(seed)
    found, fault = ffi.new("struct mmu_x86_translation *"), ffi.new("struct mmu_x86_fault *")
    for _ in range(QUERIES):
        regs = registers(r, guest, stage2(r, nested))
        va, access, update = address(r, guest, exotic=False), r.choice(ACCESSES), lib.MMU_X86_UPDATE
        status = lib.mmu_x86_walk(image.space.port, c_registers(regs), va, access, update, found, fault, ffi.NULL)
        if status != lib.MMU_OK:
            continue
        flags = access & (Access.IMPLICIT | Access.SHADOW_STACK)
        for kind in (Access.READ, Access.WRITE) if flags else (Access.READ, Access.WRITE, Access.FETCH):
            if linear_address(regs, va, kind | flags) != linear_address(regs, va, access):
                assert not found.allowed & kind  # LAM: the same pointer is another address to a fetch
                continue
            with image.space.trace() as trace:
                again = x86.walk(image.space, regs, va, kind | flags, engine="reference", update=True)
            free = isinstance(again, Translation) and all(entry.kind == "read" for entry in trace)
            assert bool(found.allowed & kind) == free
