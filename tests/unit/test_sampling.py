"""Resize, grid_sample and col2im: launches promised, random cases, and the same choices on CUDA."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu import ops
from asyncnet_gpu.errors import ShapeError
from asyncnet_gpu.ops.grid_sample import PADDINGS
from asyncnet_gpu.ops.resize_axes import COORDINATES, ROUNDINGS
from asyncnet_gpu.ops.strided import plane_grid
from asyncnet_gpu.specs import TensorSpec
from tests.cuda.test_nvrtc import KERNELS, cuda_include

BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


# -- one launch for a node -----------------------------------------------------------------------


def launches(name, arrays, **given):
    """Return how many launches a node takes on CUDA."""
    op = ops.registry()[name]
    attrs = {**op.attrs, **given}
    specs = tuple(TensorSpec(a.shape, a.dtype) for a in arrays)
    outs = op.infer(specs, attrs)
    made = [[np.empty(s.shape, s.dtype) for s in some]
            for some in (outs, op.scratch(specs, outs, attrs, "cuda"))]  # fmt: skip
    found = op.kernel(arrays, made[0], attrs, made[1])
    assert all(launch.grid[1] <= 65535 and launch.grid[2] == 1 for launch in found)
    return len(found)


IMAGE = np.zeros((2, 3, 8, 6), np.float32)


@pytest.mark.parametrize("x", [IMAGE, IMAGE.transpose(0, 2, 3, 1), IMAGE[:, ::2, ::-1]],
                         ids=["plain", "channels_last", "strided"])  # fmt: skip
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_a_resize_is_one_launch(x, mode):
    sizes = tuple(e if i == 0 else e + 3 for i, e in enumerate(x.shape))
    assert launches("resize", [x], sizes=sizes, mode=mode) == 1
    smaller = tuple(e if i == 0 else e - 1 for i, e in enumerate(x.shape))
    assert launches("resize", [x], sizes=smaller, mode=mode) == 1


def test_a_wide_filter_is_one_launch_for_each_axis():
    wide = {"mode": "linear", "antialias": True}
    assert launches("resize", [IMAGE], sizes=(2, 3, 3, 2), **wide) == 2
    assert launches("resize", [IMAGE], sizes=(2, 3, 8, 2), **wide) == 1
    assert launches("resize", [IMAGE], sizes=(2, 3, 16, 12), **wide) == 1  # no wider than without
    assert launches("resize", [IMAGE], sizes=(2, 3, 8, 6), **wide) == 1
    assert launches("resize", [IMAGE], sizes=(3, 4, 5, 7), mode="linear") == 4


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_a_grid_sample_is_one_launch(mode):
    grid = np.zeros((2, 2, 5, 4), np.float32).transpose(0, 2, 3, 1)
    assert launches("grid_sample", [IMAGE[:, :, ::2], grid], mode=mode) == 1
    volume = np.zeros((1, 2, 3, 3, 3), np.float16)
    assert launches("grid_sample", [volume, np.zeros((1, 2, 2, 2, 3))], mode=mode) == 1


def test_a_col2im_is_one_launch():
    x = np.zeros((2, 9, 8), np.float32).transpose(0, 2, 1)
    assert launches("col2im", [x], image=(4, 4), block=(2, 2)) == 1


@pytest.mark.parametrize(
    ("size", "planes"), [(1, 1), (1, 10**9), (12, 10**6), (10**9, 3), (300, 7)]
)
@pytest.mark.parametrize("width", [0, 32])
def test_a_plane_grid_has_threads_for_its_places_and_no_more_than_it_may(size, planes, width):
    grid, block = plane_grid(size, planes, width)
    assert block[0] * block[1] == 256
    assert block[0] == (width or block[0])
    assert grid[1] <= 65535
    assert grid[2] == block[2] == 1
    assert (grid[0] - 1) * block[0] < size
    assert (grid[1] - 1) * block[1] < planes
    assert grid[0] * grid[1] <= 2048 or grid[1] == 1
    if width == 0 and size >= 16:
        assert block[0] < 2 * size


# -- random cases against the references ---------------------------------------------------------


def random_resize(rng):
    """Return the input and the attributes of a resize, or None where they do not fit together."""
    mode = str(rng.choice(["nearest", "linear", "cubic"]))
    shape = tuple(rng.integers(1, 8, rng.integers(1, 4)).tolist())
    scales = np.where(rng.random(len(shape)) < 0.3, 1.0, rng.uniform(0.2, 2.6, len(shape)))
    sizes = tuple(np.maximum(1, np.floor(shape * scales)).astype(int).tolist())
    given = rng.random() < 0.6
    attrs = {
        "sizes": sizes, "scales": tuple(scales.tolist()) if given else None, "mode": mode,
        "coordinates": str(rng.choice(COORDINATES)), "rounding": str(rng.choice(ROUNDINGS)),
        "cubic_a": float(rng.choice([-0.75, -0.5])), "antialias": bool(rng.random() < 0.4),
        "exclude_outside": bool(rng.random() < 0.3), "extrapolation": -7.5,
    }  # fmt: skip
    if attrs["coordinates"] == "tf_crop_and_resize":
        attrs["roi"] = (*rng.uniform(-0.2, 0.4, len(shape)), *rng.uniform(0.5, 1.3, len(shape)))
        if attrs["exclude_outside"]:  # no weight at all is left far outside
            attrs["exclude_outside"] = False
    dtype = str(rng.choice(["float32", "float32", "float64", "uint8"]))
    x = rng.uniform(0, 200, shape) if dtype == "uint8" else rng.standard_normal(shape)
    return "resize", [x.astype(dtype)], attrs


def random_grid_sample(rng):
    space = rng.integers(1, 6, rng.integers(1, 4)).tolist()
    points = rng.integers(1, 5, len(space)).tolist()
    batch = int(rng.integers(1, 3))
    x = rng.standard_normal((batch, int(rng.integers(1, 4)), *space))
    grid = rng.uniform(-2.5, 2.5, (batch, *points, len(space)))
    attrs = {"mode": str(rng.choice(["nearest", "linear", "cubic"])),
             "padding": str(rng.choice(PADDINGS)),
             "align_corners": bool(rng.random() < 0.5)}  # fmt: skip
    return "grid_sample", [x.astype(np.float32), grid.astype(np.float32)], attrs


def random_col2im(rng):
    n = int(rng.integers(1, 4))
    image, block, strides, dilations = (rng.integers(1, high, n).tolist() for high in (7, 4, 4, 3))
    pads = rng.integers(0, 3, 2 * n).tolist()
    counts = [
        (image[i] + pads[i] + pads[i + n] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        for i in range(n)
    ]
    attrs = {"image": tuple(image), "block": tuple(block), "strides": tuple(strides),
             "dilations": tuple(dilations), "pads": tuple(pads)}  # fmt: skip
    x = rng.standard_normal((2, 3 * int(np.prod(block)), max(0, int(np.prod(counts)))))
    return "col2im", [x.astype(np.float32)], attrs


MAKERS = {f.__name__[7:]: f for f in (random_resize, random_grid_sample, random_col2im)}
CASES = 60


def net_of(cases):
    """Return a net in which every case is a node, its inputs, and what the references say."""
    net, given, wanted = ag.AsyncNet("sampling"), {}, {}
    for i, (name, arrays, attrs) in enumerate(cases):
        op = ops.registry()[name]
        blobs = []
        for k, array in enumerate(arrays):
            blobs.append(net.input(f"x{i}_{k}", array.shape, array.dtype))
            given[f"x{i}_{k}"] = array
        try:
            (out,) = net.add_node(op, blobs, attrs)
        except ShapeError:  # a block larger than the image
            assert name == "col2im"
            continue
        net.output(**{f"y{i}": out})
        wanted[f"y{i}"] = (op.reference(arrays, {**op.attrs, **attrs})[0], arrays[0].dtype, attrs)
    return net, given, wanted


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", MAKERS)
def test_random_cases(kind, backend):
    cases = [MAKERS[kind](np.random.default_rng(seed)) for seed in range(CASES)]
    net, given, wanted = net_of(cases)
    assert len(wanted) > CASES / 3
    with net.compile(backend=backend) as exe:
        got = exe.run(given)
    for key, (want, dtype, attrs) in wanted.items():
        value = ag.to_numpy(got[key])
        assert value.dtype == dtype, key
        assert value.shape == want.shape
        if dtype == np.uint8:  # cut, not rounded: a sum just below an integer is the one below
            least = 0 if attrs["mode"] == "nearest" else 1
            assert np.abs(value.astype(int) - want.astype(int)).max(initial=0) <= least, attrs
        else:
            np.testing.assert_allclose(value, want, rtol=2e-4, atol=5e-5, err_msg=str(attrs))


# -- the same choices on both backends ---------------------------------------------------------


def nearest_net():
    """Return a net of resizes that pick their elements: extents at which roundings matter."""
    net = ag.AsyncNet("choices")
    x = net.input("x", (1, 37), "float64")
    rng = np.random.default_rng(0)
    extents = [7, 36, 38, 54, 55, 74, 111, 185, 259]
    for coordinates, rounding in itertools.product(COORDINATES, ROUNDINGS):
        for out in extents:
            scale = out / 37 if out % 2 else float(rng.uniform(out, out + 0.99)) / 37
            roi = (0.0, 0.1, 1.0, 0.7) if coordinates == "tf_crop_and_resize" else None
            made = net.resize(
                x, sizes=(1, out), scales=(1.0, scale), coordinates=coordinates,
                rounding=rounding, roi=roi, extrapolation=-1.0,
            )  # fmt: skip
            net.output(**{f"{coordinates}_{rounding}_{out}": made})
    grid = net.input("grid", (1, 1, 4000, 2), "float32")
    image = net.reshape(x, shape=(1, 1, 1, 37))
    for padding, corners in itertools.product(PADDINGS, (False, True)):
        made = net.grid_sample(image, grid, mode="nearest", padding=padding, align_corners=corners)
        net.output(**{f"{padding}_{corners}": made})
    # Multiples of half a pixel, as near as float32 comes to them, and just beside.
    halves = np.arange(-1000, 1000) / np.float32(2)
    at = np.concatenate([(2 * halves + 1) / 37 - 1, 2 * halves / 36 - 1]).astype(np.float32)
    pairs = np.stack([at, np.zeros_like(at)], -1).reshape(1, 1, 4000, 2)
    return net, {"x": np.arange(37.0).reshape(1, 37), "grid": pairs}


@pytest.mark.gpu
def test_nearest_elements_are_the_same_on_both_backends():
    net, given = nearest_net()
    with net.compile(backend="cpu") as exe:
        want = exe.run(given)
    with net.compile(backend="cuda") as exe:
        for key, value in exe.run(given).items():
            np.testing.assert_array_equal(ag.to_numpy(value), want[key], err_msg=key)


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("resize.cu", "resize_nearest<unsigned int>"),
        ("grid_sample.cu", "grid_sample<float, float, 2, 1>"),
    ],
)
def test_what_chooses_elements_is_not_fused(file, entry):
    """NVRTC fuses products and sums where it may; a source would then be rounded otherwise."""
    assert "fma." not in ptx(file, entry)
    assert "fma." in ptx(file, entry.replace("nearest<", "axis<float, ").replace("2, 1>", "2, 4>"))


def ptx(file, entry):
    """Return what the compiler makes of an instance."""
    from cuda.bindings import nvrtc

    source = (KERNELS / file).read_text().encode()
    _, program = nvrtc.nvrtcCreateProgram(source, file.encode(), 0, [], [])
    nvrtc.nvrtcAddNameExpression(program, entry.encode())
    folders = [f"-I{folder}" for folder in (KERNELS, cuda_include())]
    options = [o.encode() for o in ("--std=c++17", "--gpu-architecture=sm_80", *folders)]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    assert int(result) == 0, entry
    text = b" " * nvrtc.nvrtcGetPTXSize(program)[1]
    nvrtc.nvrtcGetPTX(program, text)
    return text.decode()


# -- what padding means --------------------------------------------------------------------------


def sampled(x, grid, **attrs):
    net = ag.AsyncNet("sample")
    blobs = [net.input(n, a.shape, a.dtype) for n, a in (("x", x), ("grid", grid))]
    net.output(y=net.grid_sample(*blobs, **attrs))
    with net.compile(backend="cpu") as exe:
        return exe.run(x=x, grid=grid)["y"]


PADS = {"zeros": "constant", "border": "edge"}
WIDTH = 4


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
def test_a_sample_outside_is_one_of_the_padded_image(mode, padding, corners):
    """PyTorch and onnxruntime agree; ONNX's reference jumps at the border where mode is cubic."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 2, 5, 6))
    at = rng.uniform(-1.9, 6.9, (1, 50, 1, 2)) * [1, 5 / 6]  # in pixels, x before y
    np_mode = PADS.get(padding, "reflect" if corners else "symmetric")
    padded = np.pad(x, [(0, 0), (0, 0), (WIDTH, WIDTH), (WIDTH, WIDTH)], np_mode)

    def frame(pixels, image):
        extents = np.array(image.shape[:1:-1], float)
        return 2 * pixels / (extents - 1) - 1 if corners else (2 * pixels + 1) / extents - 1

    got = sampled(x, frame(at, x), mode=mode, padding=padding, align_corners=corners)
    want = sampled(padded, frame(at + WIDTH, padded), mode=mode, align_corners=corners)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_cubic_samples_do_not_jump_at_the_border():
    x = np.random.default_rng(2).standard_normal((1, 1, 1, 5))
    steps = np.linspace(-1.6, 1.6, 2001)
    grid = np.stack([steps, np.zeros_like(steps)], -1).reshape(1, 1, -1, 2)
    for corners in (False, True):
        line = sampled(x, grid, mode="cubic", padding="border", align_corners=corners).reshape(-1)
        assert np.abs(np.diff(line)).max() < 0.04


def test_infinite_elements_beside_zeros_stay_outside():
    x = np.full((1, 1, 2, 2), np.inf)
    grid = np.full((1, 1, 1, 2), -3.0)
    assert sampled(x, grid).tolist() == [[[[0.0]]]]
