"""The files that peers are given, read by others than those that wrote them."""

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from mmu import Access, AddressSpace, HostMemory, Ram, x86
from scripts.benches import dump
from scripts.benches.image import build, registers

SIZE = 64 << 20
COUNT = 500


@pytest.fixture(scope="module")
def image():
    return build(size=SIZE, pages=2048)


@pytest.fixture(scope="module")
def questions(image):
    va, pa = image.questions(COUNT)
    fit = (pa < SIZE) & ~np.isin(pa >> np.uint64(12), image.addresses >> np.uint64(12))
    return va[fit], pa[fit]


def test_a_raw_file_is_memory_in_which_walks_find_the_marks(tmp_path, image, questions):
    va, pa = questions
    assert len(va) > COUNT // 2
    path = tmp_path / "raw"
    dump.write(path, image, SIZE, pa)
    assert path.stat().st_size == SIZE
    memory = HostMemory(SIZE)
    with path.open("r+b") as file:
        memory.map_file(0, SIZE, file.fileno())
    space = AddressSpace()
    space.map(0, Ram(SIZE, memory=memory))
    answers = [x86.walk(space, registers(image), a, Access.READ).pa for a in va.tolist()]
    assert answers == pa.tolist()
    assert [space.load(a, 8)[0] for a in answers] == pa.tolist()


def test_tables_win_over_marks(tmp_path, image):
    path = tmp_path / "raw"
    dump.write(path, image, SIZE, image.addresses)
    words = np.fromfile(path, np.uint64)
    for address, table in zip(image.addresses, image.tables):
        assert np.array_equal(words[int(address) // 8 :][:512], table)
    assert np.count_nonzero(words) == np.count_nonzero(image.tables)


def test_a_crash_dump_tells_its_root_and_holds_all_memory(tmp_path, image, questions):
    _, pa = questions
    raw, core = tmp_path / "raw", tmp_path / "core"
    dump.write(raw, image, SIZE, pa)
    dump.write(core, image, SIZE, pa, dump.vmcore(image, SIZE))
    with core.open("rb") as file:
        elf = ELFFile(file)
        assert (elf.header.e_type, elf.get_machine_arch()) == ("ET_CORE", "x64")
        notes, load = elf.iter_segments()
        (note,) = notes.iter_notes()
        assert (note.n_name, notes.header.p_filesz) == ("VMCOREINFO", note.n_size)
        told = dict(line.split("=") for line in bytes(note.n_descdata).decode().splitlines())
        assert int(told["SYMBOL(swapper_pg_dir)"], 16) - dump.KERNEL_MAP == image.root
        assert (load.header.p_type, load.header.p_paddr, load.header.p_memsz) == ("PT_LOAD", 0, SIZE)
        assert load.header.p_offset % dump.PAGE_SIZE == 0
        assert load.data() == raw.read_bytes()


def test_no_address_of_the_image_lies_in_the_segment_of_a_crash_dump(tmp_path, image):
    path = tmp_path / "head"
    path.write_bytes(dump.vmcore(image, SIZE))
    with path.open("rb") as file:
        base = ELFFile(file).get_segment(1).header.p_vaddr
    for _, va, _ in image.pages:
        assert not np.any((va >= base) & (va < base + SIZE))
