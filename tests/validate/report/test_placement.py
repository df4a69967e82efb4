"""What a vendor's library runs, as the terminal and the page tell it."""

import json
from dataclasses import replace
from io import StringIO

from rich.console import Console

from targets.base import PlacedOperators, Placement
from targets.manifest import Manifest
from tests.validate.fakes import FakeReference, FakeTarget, Place
from validate.base import Level
from validate.report.terminal import print_placement, print_report
from validate.validate import ValidateRequest, validate

PLACEMENT = Placement(
    "CLML",
    (
        PlacedOperators("nn.conv2d", "CLML", "", 3, 900_000_000),
        PlacedOperators("add", "CLML", "", 5, 0),
        PlacedOperators("matmul", "OpenCL", "a product of 3 axes", 2, 100_000_000),
        PlacedOperators("shape_of", "the host", "CLML has no such operator", 4, 0),
        *(PlacedOperators(f"op{i}", "OpenCL", "moves nothing", 9 - i, 0) for i in range(9)),
    ),
    graphs=2,
    structures=1,
    kernels=8,
    handed_over=1_500_000,
    handed_back=500_000,
)


def test_the_terminal_names_what_runs_where_and_why() -> None:
    said = StringIO()
    print_placement("unet 64x64", PLACEMENT, Console(file=said, width=200))
    whole, *rest = said.getvalue().splitlines()
    assert whole.startswith("unet 64x64: 90.0% of 1.00 GFLOP on CLML in 2 graphs (1 of them")
    assert whole.endswith("8 kernels); 1.5 MB go in and 0.5 MB come out")
    listed = ", ".join(f"{9 - i} op{i}" for i in range(8))
    assert rest == [
        "  on CLML: 5 add, 3 nn.conv2d",
        f"  on OpenCL (moves nothing): {listed}, 1 others (the report names them)",
        "  on the host (CLML has no such operator): 4 shape_of",
        "  on OpenCL (a product of 3 axes): 2 matmul",
    ]


def test_a_library_without_graphs_says_why_it_runs_what_it_runs() -> None:
    said = StringIO()
    alone = replace(PLACEMENT, library="OpenCL", why="its kernels are generated")
    print_placement("unet 64x64", alone, Console(file=said, width=200))
    whole, taken, *rest = said.getvalue().splitlines()
    assert whole == "unet 64x64: 10.0% of 1.00 GFLOP on OpenCL: its kernels are generated"
    assert taken.startswith("  on OpenCL: 9 op0, ")
    assert len(rest) == 2


def test_page_manifest_and_numbers_have_it(
    place: Place, target: FakeTarget, reference: FakeReference
) -> None:
    manifest = Manifest.load(place.artifacts)
    first, *others = manifest.artifacts
    placed = replace(manifest, artifacts=[replace(first, placement=PLACEMENT), *others])
    placed.save()
    assert Manifest.load(place.artifacts).artifacts[0].placement == PLACEMENT
    request = ValidateRequest(place.artifacts, levels=(Level.COMPONENT,))
    target.unproven = "a twin ran here"
    report = validate(request, open_target={"fake": target}.__getitem__, open_reference=reference)
    page = request.report_path.read_text()
    assert "90.0% of 1.00 GFLOP on CLML in 2 graphs" in page
    assert page.index("<td>nn.conv2d</td><td>CLML</td>") < page.index("<td>shape_of</td><td>the")
    assert '<p class="soft">fake: a twin ran here.</p>' in page
    numbers = json.loads(request.json_path.read_text())
    (mine,) = numbers["placements"].values()
    assert mine["share"] == 0.9
    assert numbers["unproven"] == {"fake": "a twin ran here"}
    said = StringIO()
    print_report(report, Console(file=said, width=200))
    assert said.getvalue().splitlines()[-2] == "fake: a twin ran here."
