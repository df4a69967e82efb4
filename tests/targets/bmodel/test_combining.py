"""Sizes in one file and files without weights: made-up ones, and real ones against the vendor's."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from converter.errors import InputError
from targets.sophgo.bmodel.combining import Source, plan
from targets.sophgo.bmodel.cutting import cut_kernel, cut_weights, put_kernel
from targets.sophgo.bmodel.kinds import Binary, binaries
from targets.sophgo.bmodel.layout import Layout, write_frame
from targets.sophgo.bmodel.reading import Bmodel, read_bmodel, stages, weights_of
from targets.sophgo.bmodel.schema import Model
from tests.targets.bmodel.times import assert_same_but_time

MakeBmodel = Callable[..., Path]
Fill = Callable[[Layout, Sequence[Bmodel], Path], None]


COMBINED = "d2f374f32e80f36c2c606981845d7bc27479c7aefd12c492720a9c7403e4e4a9"
"""SHA-256 of what model_tool 1.30.2 makes of two made-up files, with their time for its own."""


def cut(paths: Sequence[Path], folder: Path) -> list[Bmodel]:
    """The same files without weights."""
    found = []
    for number, path in enumerate(paths):
        cut_weights(read_bmodel(path), folder / f"{number}.cut")
        found.append(read_bmodel(folder / f"{number}.cut"))
    return found


def contents(bmodel: Bmodel, model: Model) -> list[bytes]:
    """The bytes of every Binary in the order of the schema."""
    return [bmodel.bytes_of(binary) for binary in binaries(model)]


def test_a_file_without_weights_is_shorter_by_them(make_bmodel: MakeBmodel, tmp_path: Path) -> None:
    path = make_bmodel("a")
    whole = read_bmodel(path)
    (bare,) = cut([path], tmp_path)
    assert bare.path.stat().st_size == path.stat().st_size - 12288
    assert bare.model == whole.model
    assert bare.gaps == whole.weights == (Binary(8192, 12288),)
    for binary in binaries(whole.model):
        if binary not in bare.gaps:
            assert bare.bytes_of(binary) == whole.bytes_of(binary)
    with pytest.raises(InputError, match="left out of this file"):
        bare.bytes_of(bare.gaps[0])


def test_weights_put_back_give_the_file(
    make_bmodel: MakeBmodel, fill: Fill, tmp_path: Path
) -> None:
    path = make_bmodel("a")
    layout = plan([Source(cut([path], tmp_path)[0], "w")])
    fill(layout, [read_bmodel(path)], tmp_path / "back.bmodel")
    assert (tmp_path / "back.bmodel").read_bytes() == path.read_bytes()
    write_frame(layout, tmp_path / "frame.bmodel")
    region = layout.weights[0]
    expected = bytearray(path.read_bytes())
    expected[region.offset : region.offset + region.size] = bytes(region.size)
    assert (tmp_path / "frame.bmodel").read_bytes() == expected


def test_without_its_kernel_module_too(make_bmodel: MakeBmodel, fill: Fill, tmp_path: Path) -> None:
    paths = [make_bmodel("a"), make_bmodel("b", width=16)]
    wholes, given = [read_bmodel(path) for path in paths], cut(paths, tmp_path)
    for bare in given:
        cut_kernel(bare, bare.path.with_suffix(".least"))
    least = [read_bmodel(bare.path.with_suffix(".least")) for bare in given]
    kernel = b"kernel" * 1000
    for number, (bare, less) in enumerate(zip(given, least, strict=True)):
        assert (less.lacks_kernel, less.lacks_weights, bare.lacks_kernel) == (True, True, False)
        assert less.path.stat().st_size == bare.path.stat().st_size - len(kernel)
        put_kernel(less, kernel, tmp_path / "whole")
        assert (tmp_path / "whole").read_bytes() == bare.path.read_bytes()
        fill(plan([Source(less, "w")]), [wholes[number]], tmp_path / "none")
        made = read_bmodel(tmp_path / "none")
        assert (made.kernel, made.gaps) == (None, ())
        assert made.whole_size == wholes[number].whole_size - 8192
        inside = [content for content in contents(made, made.model) if content]
        assert [*inside, kernel] == contents(wholes[number], wholes[number].model)
    fill(plan([Source(less, "w") for less in least]), wholes, tmp_path / "none")
    assert read_bmodel(tmp_path / "none").kernel is None
    # One that brings the module brings it for all.
    fill(plan([Source(least[0], "w"), Source(given[1], "w")]), wholes, tmp_path / "both")
    both = read_bmodel(tmp_path / "both")
    assert both.kernel is not None
    assert both.bytes_of(both.kernel) == kernel


@pytest.mark.parametrize("bare", [False, True])
def test_equal_weights_are_kept_once(
    bare: bool, make_bmodel: MakeBmodel, fill: Fill, tmp_path: Path
) -> None:
    paths = [make_bmodel("a"), make_bmodel("b", width=16)]
    wholes = [read_bmodel(path) for path in paths]
    given = cut(paths, tmp_path) if bare else wholes
    layout = plan([Source(bmodel, "one name") for bmodel in given])
    assert [region.users for region in layout.weights] == [(0, 1)]
    assert len(layout.weights[0].check_codes) == 2
    fill(layout, wholes, tmp_path / "both.bmodel")
    made = read_bmodel(tmp_path / "both.bmodel")
    assert made.path.stat().st_size == layout.size
    assert made.model.neuron_size == 8192 * 16
    (net,) = made.model.net
    for stage, whole in zip(net.parameter, wholes, strict=True):
        (wanted,) = (stage for _, stage in stages(whole.model))
        inside = [made.bytes_of(binary) for binary in binaries(stage)]
        assert inside == [whole.bytes_of(binary) for binary in binaries(wanted)]
        assert stage.input_tensor == wanted.input_tensor
    assert len({binary.start for binary in binaries(made.model) if binary.size}) == 5
    assert all(binary.start % 4096 == 0 for binary in binaries(made.model))


def test_other_weights_are_kept_beside(make_bmodel: MakeBmodel, fill: Fill, tmp_path: Path) -> None:
    paths = [make_bmodel("a"), make_bmodel("b", width=16, weights={"a": b"C" * 12288})]
    wholes = [read_bmodel(path) for path in paths]
    layout = plan([Source(wholes[0], "one"), Source(wholes[1], "other")])
    assert [region.users for region in layout.weights] == [(0,), (1,)]
    fill(layout, wholes, tmp_path / "both.bmodel")
    made = read_bmodel(tmp_path / "both.bmodel")
    found = [made.bytes_of(weights_of(stage) or Binary(0, 0)) for _, stage in stages(made.model)]
    assert found == [b"A" * 4096 + b"B" * 8192, b"C" * 12288]


def test_unequal_regions_of_one_name_are_a_mistake(make_bmodel: MakeBmodel) -> None:
    one, other = make_bmodel("a"), make_bmodel("b", width=16, weights={"a": b"A" * 4096})
    with pytest.raises(ValueError, match="weights of 12288 and 4096 bytes have one name"):
        plan([Source(read_bmodel(path), "same") for path in (one, other)])


def test_made_up_files_combine_as_the_vendors_tool_combined_them(
    make_bmodel: MakeBmodel, fill: Fill, tmp_path: Path
) -> None:
    wholes = [read_bmodel(make_bmodel("a")), read_bmodel(make_bmodel("b", width=16))]
    fill(plan([Source(whole, "w") for whole in wholes]), wholes, tmp_path / "both")
    assert hashlib.sha256((tmp_path / "both").read_bytes()).hexdigest() == COMBINED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 8}, "both have inputs of the same shapes: give each size once"),
        ({"width": 16, "chip": "BM1688"}, "made for BM1688, not BM1684X"),
    ],
)
def test_what_does_not_go_together(
    changes: dict[str, object], reason: str, make_bmodel: MakeBmodel
) -> None:
    sources = [Source(read_bmodel(make_bmodel("a")), "w")]
    sources.append(Source(read_bmodel(make_bmodel("b", **changes)), "w"))
    with pytest.raises(InputError, match=reason) as error:
        plan(sources)
    assert "a.bmodel" in str(error.value)
    assert "b.bmodel" in str(error.value)


def test_a_file_of_several_regions_is_not_combined_again(
    make_bmodel: MakeBmodel, fill: Fill, tmp_path: Path
) -> None:
    wholes = [read_bmodel(make_bmodel("a")), read_bmodel(make_bmodel("b", width=16))]
    fill(plan([Source(b, b.path.name) for b in wholes]), wholes, tmp_path / "both.bmodel")
    both = read_bmodel(tmp_path / "both.bmodel")
    third = read_bmodel(make_bmodel("c", width=32))
    with pytest.raises(InputError, match="2 weight regions: give the files it was made from"):
        plan([Source(both, "x"), Source(third, "y")])
    (bare,) = cut([both.path], tmp_path)
    fill(plan([Source(bare, "x")]), [both], tmp_path / "back.bmodel")
    assert (tmp_path / "back.bmodel").read_bytes() == both.path.read_bytes()


def test_what_is_no_bmodel(make_bmodel: MakeBmodel, tmp_path: Path) -> None:
    path = make_bmodel("a")
    whole = path.read_bytes()
    broken = tmp_path / "broken.bmodel"
    for content, reason in (
        (b"", "does not begin like one"),
        (b"PK" + whole, "does not begin like one"),
        (whole[:100], "cut short in its tables"),
        (whole[:-1], "bytes were expected, .* found"),
        (whole + b"\0", "bytes were expected, .* found"),
    ):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=reason):
            read_bmodel(broken)
    with pytest.raises(InputError, match="not readable as a bmodel"):
        read_bmodel(tmp_path / "none.bmodel")


@pytest.mark.slow
@pytest.mark.parametrize("component", ["vae_encoder", "vae_decoder"])
def test_the_vendors_combination_byte_for_byte(
    component: str,
    two_sizes: Callable[[str], list[Path]],
    model_tool: Callable[..., str],
    fill: Fill,
    tmp_path: Path,
) -> None:
    """Both sizes of the VAE encoder have one packing of the weights, those of the decoder not."""
    paths = two_sizes(component)
    model_tool("--combine", *paths, "-o", tmp_path / "theirs.bmodel")
    wholes = [read_bmodel(path) for path in paths]
    names = [hashlib.sha256(whole.bytes_of(whole.weights[0])).hexdigest() for whole in wholes]
    assert (names[0] == names[1]) == (component == "vae_encoder")
    bare = cut(paths, tmp_path)
    fill(plan([Source(*pair) for pair in zip(bare, names, strict=True)]), wholes, tmp_path / "ours")
    ours, theirs = (tmp_path / "ours").read_bytes(), (tmp_path / "theirs.bmodel").read_bytes()
    assert_same_but_time(ours, theirs)
    theirs_without = shutil.copyfile(paths[0], tmp_path / "without.bmodel")
    model_tool("--kernel_remove", theirs_without)
    cut_kernel(bare[0], tmp_path / "least")
    fill(plan([Source(read_bmodel(tmp_path / "least"), "w")]), wholes[:1], tmp_path / "ours")
    assert_same_but_time((tmp_path / "ours").read_bytes(), theirs_without.read_bytes())
