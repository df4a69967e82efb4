"""Every family that can be exported, by name."""

from converter.families.sd2 import SD2
from converter.families.sd15 import SD15
from converter.families.sdxl import SDXL
from converter.families.sdxl_refiner import SDXL_REFINER

FAMILIES = {family.name: family for family in (SD15, SD2, SDXL, SDXL_REFINER)}
