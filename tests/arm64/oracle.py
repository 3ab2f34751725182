"""Permissions as the manual's tables have them, looked up rather than computed; knows nothing of `mmu.arm64`.

Source: DDI 0487, "Data accesses permissions for stage 1 translations" (the tables of AP[2:1] and of APTable[1:0]),
"Instruction execution permissions for stage 1", "Restriction on writable and executable memory" (WXN), "PAN", "EPAN",
"Hierarchical control", "Hardware management of the dirty state", "Stage 2 data accesses permissions", and XN[1:0].
"""

# AP[2:1] -> what the higher EL and what EL0 may do to data.
AP = {0b00: ("RW", ""), 0b01: ("RW", "RW"), 0b10: ("R", ""), 0b11: ("R", "R")}
AP_SINGLE = {0b00: "RW", 0b01: "RW", 0b10: "R", 0b11: "R"}
# APTable[1:0] -> what is taken away below, from the higher EL and from EL0.
AP_TABLE = {0b00: ("", ""), 0b01: ("", "RW"), 0b10: ("W", "W"), 0b11: ("W", "RW")}
S2AP = {0b00: "", 0b01: "R", 0b10: "W", 0b11: "RW"}
S2XN = {0b00: ("X", "X"), 0b01: ("", "X"), 0b10: ("", ""), 0b11: ("X", "")}  # for EL1, for EL0


def minus(rights: str, taken: str) -> str:
    return "".join(r for r in rights if r not in taken)


def effective_ap(ap: int, dbm: int, dirty_by_hardware: bool) -> int:
    """A clean page that hardware may make dirty is a writable page."""
    return {0b10: 0b00, 0b11: 0b01}.get(ap, ap) if dbm and dirty_by_hardware else ap


def two_ranges(*, ap, pxn, uxn, dbm=0, ap_table=0, pxn_table=0, uxn_table=0, hpd=False, wxn=False, hd=False):
    """(rights of the higher EL, rights of EL0) as strings of R, W and X; PAN left out."""
    if hpd:
        ap_table = pxn_table = uxn_table = 0
    higher, el0 = AP[effective_ap(ap, dbm, hd)]
    higher, el0 = minus(higher, AP_TABLE[ap_table][0]), minus(el0, AP_TABLE[ap_table][1])
    higher_x = not pxn and not pxn_table and "W" not in el0 and not (wxn and "W" in higher)
    el0_x = not uxn and not uxn_table and not (wxn and "W" in el0)
    return higher + "X" * higher_x, el0 + "X" * el0_x


def one_range(*, ap, xn, dbm=0, ap_table=0, xn_table=0, hpd=False, wxn=False, hd=False):
    if hpd:
        ap_table = xn_table = 0
    rights = minus(AP_SINGLE[effective_ap(ap, dbm, hd)], "W" if ap_table in (0b10, 0b11) else "")
    executable = not xn and not xn_table and not (wxn and "W" in rights)
    return rights + "X" * executable


def after_pan(higher: str, el0: str, *, pan: bool, epan: bool) -> str:
    """What is left to the higher EL for its own accesses."""
    if not pan:
        return higher
    if "R" in el0 or "W" in el0 or (epan and "X" in el0):
        return minus(higher, "RW")
    return higher


def stage2(*, s2ap, xn, dbm=0, hd=False):
    """(rights of EL1, rights of EL0)."""
    if dbm and hd:
        s2ap = {0b00: 0b10, 0b01: 0b11}.get(s2ap, s2ap)
    return tuple(S2AP[s2ap] + x for x in S2XN[xn])
