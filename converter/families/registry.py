"""Every family that can be exported, by name."""

from converter.errors import InputError
from converter.families.sd2 import SD2
from converter.families.sd15 import SD15
from converter.families.sdxl import SDXL
from converter.families.sdxl_refiner import SDXL_REFINER

FAMILIES = {family.name: family for family in (SD15, SD2, SDXL, SDXL_REFINER)}


def check_family(wanted: str, found: str) -> None:
    """Raise InputError unless what was found is the family that -v names."""
    if wanted not in FAMILIES:
        raise InputError(f"-v {wanted}: no such family: choose one of {', '.join(FAMILIES)}")
    if wanted != found:
        raise InputError(f"-v {wanted}: this is {found}: write -v {found}, or leave it out")
