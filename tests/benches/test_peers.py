"""Other programs beside ours: what becomes of one that is missing, refuses the image or answers wrongly."""

from contextlib import contextmanager, nullcontext
from importlib.util import find_spec

import numpy as np
import pytest

from scripts.benches import peers
from scripts.benches.group_walk import Walks
from scripts.benches.harness import Bench, WrongAnswer, expect
from scripts.benches.image import build
from scripts.benches.machine import RAM_SIZE, machine
from scripts.benches.native import Loops
from scripts.benches.peers import PEERS, Peer, Refused

BATCH, CALL = ("batch", 10.0), ("call", 100.0)


def new_walks():
    return Walks(machine(), Loops("walk"), build(pages=2048), 2000)


@pytest.fixture(scope="module")
def walks():
    return new_walks()


@contextmanager
def right(walks, va, pa):
    yield lambda: None


@contextmanager
def wrong(walks, va, pa):
    expect("it", va, pa + np.uint64(8), pa)
    yield lambda: None


@contextmanager
def broken(walks, va, pa):
    raise ImportError("libneeded.so.0: cannot open\nshared object file")
    yield


@contextmanager
def picky(walks, va, pa):
    with peers.opening():
        raise ValueError("not an ELF core file" + "!" * 1000)
    yield lambda: None


def measured(monkeypatch, walks, *chosen):
    monkeypatch.setattr(peers, "PEERS", chosen)
    return list(peers.rows(Bench("g", share=0.001), walks, BATCH, CALL))


@pytest.mark.parametrize("one, ours", [(True, CALL), (False, BATCH)])
def test_a_peer_is_compared_with_our_way_of_asking(monkeypatch, walks, one, ours):
    (row,) = measured(monkeypatch, walks, Peer("json", right, "a peer", 10, one))
    assert (row.name, row.ours_ns, row.against) == (*ours, "a peer")
    assert row.against_ns is not None


def test_a_peer_that_is_not_installed_has_no_row(monkeypatch, walks):
    assert not measured(monkeypatch, walks, Peer("no_such_package_here", broken, "a peer", 10))


@pytest.mark.parametrize("prepare, why", [
    (broken, "not measured: libneeded.so.0: cannot open shared object file"),
    (picky, "not measured: " + ("not an ELF core file" + "!" * 1000)[: peers.WORDS]),
])  # fmt: skip
def test_a_peer_that_cannot_be_used_says_why_and_misses_nothing(monkeypatch, walks, prepare, why):
    refused, after = measured(monkeypatch, walks, Peer("json", prepare, "a peer", 10), Peer("json", right, "next", 10))
    assert (refused.name, refused.ours_ns, refused.against, refused.against_ns) == ("a peer", None, why, None)
    assert refused.ok
    assert after.against == "next"


def test_a_peer_that_answers_wrongly_is_an_error(monkeypatch, walks):
    with pytest.raises(WrongAnswer, match="it: 10 of 10 answers are wrong"):
        measured(monkeypatch, walks, Peer("json", wrong, "a peer", 10))


def test_a_file_that_cannot_be_written_is_a_refusal(monkeypatch, walks, tmp_path):
    monkeypatch.setattr(peers, "TemporaryDirectory", lambda: nullcontext(str(tmp_path / "missing")))
    with pytest.raises(Refused, match="No such file"), peers.image_file(walks, walks.pa[:0]):
        pass


def test_the_file_is_gone_afterwards(walks):
    with peers.image_file(walks, walks.pa[:0], b"head") as path:
        assert path.stat().st_size == 4 + RAM_SIZE
    assert not path.parent.exists()


def test_peers_are_asked_for_what_lies_in_ram_and_in_no_table(walks):
    pa = walks.pa[peers.fit_for_peers(walks, 1000)]
    assert len(pa) == 1000
    assert np.all(pa < RAM_SIZE)
    assert not set((pa >> np.uint64(12)).tolist()) & set((walks.image.addresses >> np.uint64(12)).tolist())


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.package)
def test_an_installed_peer_is_right_and_its_check_can_fail(peer):
    if find_spec(peer.package) is None:
        pytest.skip(f"{peer.package} is not installed")
    walks, other = new_walks(), new_walks()  # a peer may leave marks in the memory
    chosen = peers.fit_for_peers(walks, 100)
    va, pa = walks.va[chosen], walks.pa[chosen]
    try:
        with peer.prepare(walks, va, pa) as run:
            run()
    except (ImportError, Refused) as why:
        pytest.skip(f"{peer.package} cannot be used here: {why}")
    with pytest.raises(WrongAnswer), peer.prepare(other, va, np.roll(pa, 1)):
        pass
