"""Every kernel compiles for every supported GPU. Needs NVIDIA's compiler, and no GPU.

A kernel file names the template instances that a backend may ask for::

    // instantiate: softmax_rows<float>

Each kernel that a file defines must be in the result: a template that nobody instantiates would
compile to nothing, and pass.

For the oldest architecture every instance is compiled: what an architecture lacks, that one lacks.
The others share the instances among them, and every kernel is among the share of each. With
ASYNCNET_NVRTC=all every instance is compiled for every architecture.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
FILES = sorted(KERNELS.glob("*.cu"))
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

INSTANCE = re.compile(r"^// instantiate: *(.+?) *$", re.MULTILINE)
COMMENT_OR_MACRO = re.compile(
    r"//[^\n]*|/\*.*?\*/|^[ \t]*#(?:[^\n\\]|\\.)*", re.MULTILINE | re.DOTALL
)
KERNEL = re.compile(
    r"__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+"
    r"(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\("
)


def kernel_names(source: str) -> set[str]:
    """Return the names of the kernels that a file defines, without those that macros make."""
    return set(KERNEL.findall(COMMENT_OR_MACRO.sub("", source)))


def instances(source: str, arch: str) -> list[str]:
    """Return the instances to compile for an architecture."""
    names: list[str] = INSTANCE.findall(source)
    if arch == ARCHITECTURES[0] or os.environ.get("ASYNCNET_NVRTC") == "all":
        return names
    others = ARCHITECTURES[1:]
    share = others.index(arch)
    chosen = set(names[share :: len(others)])
    of_kernel: dict[str, list[str]] = {}
    for name in names:
        of_kernel.setdefault(name.split("<")[0], []).append(name)
    for same in of_kernel.values():
        if chosen.isdisjoint(same):
            chosen.add(same[share % len(same)])
    return [name for name in names if name in chosen]


def cuda_include() -> str:
    """Return the folder of CUDA's headers, as kernels may include cuda_fp16.h."""
    from cuda.pathfinder import locate_nvidia_header_directory

    found = locate_nvidia_header_directory("cudart")
    assert found is not None, "no CUDA headers: the extra `test` brings them"
    return str(getattr(found, "abs_path", found))


def compile_to_cubin(source: str, name: str, arch: str) -> bytes:
    """Compile as the CUDA backend does; raise with the compiler's text for an error or warning."""
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(
        name=name, arch=arch, std="c++17", include_path=[str(KERNELS), cuda_include()]
    )
    log = io.StringIO()
    program = Program(source, "c++", options)
    try:
        code = program.compile("cubin", name_expressions=instances(source, arch), logs=log)
    finally:
        program.close()
    warnings = log.getvalue().strip("\x00\n ")
    assert not warnings, f"{name} for {arch}:\n{warnings}"
    cubin = bytes(code.code)
    sections = set(re.findall(rb"\.text\.(\w+)", cubin))
    assert sections, f"{name}: no kernel in it. A template needs a line `// instantiate: ...`"
    missing = [k for k in kernel_names(source) if not any(k.encode() in s for s in sections)]
    assert not missing, f"{name}: {missing} are not instantiated: add `// instantiate: ...`"
    return cubin


def test_there_are_kernels() -> None:
    assert FILES, f"no .cu file in {KERNELS.name}/"


@pytest.fixture(scope="session")
def cubins(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Future[bytes]]]:
    """Compile all that the selected tests ask for, in two threads: the compiler lets Python run."""
    wanted = [
        (item.callspec.params["file"], item.callspec.params["arch"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_kernel_compiles"
    ]
    # Once in this thread: cuda.core cannot be imported, nor its library loaded, by two at a time.
    compile_to_cubin("__global__ void first(float* x) { x[0] = 1; }", "first.cu", "sm_80")
    with ThreadPoolExecutor(2, "nvrtc") as pool:
        yield {
            (file.name, arch): pool.submit(compile_to_cubin, file.read_text(), file.name, arch)
            for file, arch in wanted
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_kernel_compiles(
    file: Path, arch: str, cubins: dict[tuple[str, str], Future[bytes]]
) -> None:
    assert cubins[file.name, arch].result().startswith(b"\x7fELF")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_instance_and_every_kernel_has_its_architectures(file: Path) -> None:
    source = file.read_text()
    names = INSTANCE.findall(source)
    assert instances(source, ARCHITECTURES[0]) == names
    shares = [instances(source, arch) for arch in ARCHITECTURES[1:]]
    assert {name for share in shares for name in share} == set(names)
    for share in shares:
        assert {n.split("<")[0] for n in share} == {n.split("<")[0] for n in names}


TEMPLATE = "template <class T> __global__ void {}(T* x) {{ x[0] = T(1); }}\n"
WRONG = {
    'identifier "y" is undefined': "__global__ void f(float* x) { x[0] = y; }",
    "never referenced": "__global__ void f(float* x) { int unused; x[0] = 1; }",
    "no kernel in it": TEMPLATE.format("f"),
    "'second'": "// instantiate: f<int>\n" + TEMPLATE.format("f") + TEMPLATE.format("second"),
    "nothing": "// instantiate: f<nothing>\n" + TEMPLATE.format("f"),
}


@pytest.mark.parametrize("complaint", WRONG)
def test_what_is_wrong_is_found(complaint: str) -> None:
    with pytest.raises(Exception, match=re.escape(complaint)):
        compile_to_cubin(WRONG[complaint], "planted.cu", "sm_80")
