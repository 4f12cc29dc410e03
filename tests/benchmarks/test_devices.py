"""``asyncnet devices`` on machines with GPUs, with none, and with half-silent drivers."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from asyncnet_gpu.cli import devices, main


class NVMLError(Exception):
    """As in pynvml."""


def fake_nvml(n: int, *, broken: bool = False, silent: frozenset[str] = frozenset()) -> ModuleType:
    """Return a stand-in for pynvml with `n` GPUs; calls named in `silent` are not supported."""
    module = ModuleType("pynvml")

    def init() -> None:
        if broken:
            raise NVMLError("Driver Not Loaded")

    calls: dict[str, Any] = {
        "nvmlInit": init,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "580.65",
        "nvmlDeviceGetCount": lambda: n,
        "nvmlDeviceGetHandleByIndex": lambda i: i,
        "nvmlDeviceGetName": lambda h: b"GPU of old bindings" if h else "GPU",
        "nvmlDeviceGetUUID": lambda h: f"GPU-{h}",
        "nvmlDeviceGetPciInfo": lambda h: SimpleNamespace(busId=f"0000:0{h}:00.0"),
        "nvmlDeviceGetMemoryInfo": lambda h: SimpleNamespace(total=8 << 30, used=1 << 30),
        "nvmlDeviceGetUtilizationRates": lambda h: SimpleNamespace(gpu=7),
        "nvmlDeviceGetClockInfo": lambda h, kind: 1500 + kind,
        "nvmlDeviceGetMaxClockInfo": lambda h, kind: 2000,
        "nvmlDeviceGetPowerUsage": lambda h: 71_500,
        "nvmlDeviceGetTemperature": lambda h, kind: 40,
        "nvmlDeviceGetTopologyCommonAncestor": lambda a, b: 30,
        "nvmlDeviceGetP2PStatus": lambda a, b, kind: 0 if {a, b} == {0, 1} else 5,
    }
    for name, call in calls.items():
        setattr(module, name, _refuse if name in silent else call)
    vars(module).update(
        NVMLError=NVMLError, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_TEMPERATURE_GPU=0,
        NVML_P2P_CAPS_INDEX_NVLINK=2,
    )  # fmt: skip
    return module


def _refuse(*_: object) -> None:
    raise NVMLError("Not Supported")


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncnet_gpu.backends.cuda.inventory", None)


def test_gpus_and_their_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(3))
    found = devices.nvml_view()
    assert found["driver"] == "580.65"
    assert found["problem"] is None
    assert [d["name"] for d in found["devices"]] == ["GPU", "GPU of old bindings"] + [
        "GPU of old bindings"
    ]
    first = found["devices"][0]
    assert first["memory_total_bytes"] == 8 << 30
    assert first["power_w"] == 71.5
    assert first["sm_clock_mhz"] == 1501
    links = {tuple(link["devices"]): (link["path"], link["nvlink"]) for link in found["links"]}
    assert links == {
        (1, 0): ("host bridge", True),
        (2, 0): ("host bridge", False),
        (2, 1): ("host bridge", False),
    }


def test_what_a_gpu_does_not_say_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_cupy: None
) -> None:
    silent = frozenset({"nvmlDeviceGetPowerUsage", "nvmlDeviceGetTopologyCommonAncestor"})
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(2, silent=silent))
    found = devices.nvml_view()
    assert found["devices"][0]["power_w"] is None
    assert found["devices"][0]["temperature_c"] == 40
    assert found["links"] == [{"devices": [1, 0], "path": None, "nvlink": True}]
    assert main(["devices"]) == 0
    printed = capsys.readouterr().out
    assert "GPU 1 and 0: NVLink" in printed
    assert "No device for the CUDA backend: CuPy cannot be imported" in printed


@pytest.mark.parametrize("broken", [True, False])
def test_a_machine_without_gpu_says_why(
    broken: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_cupy: None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(0, broken=broken))
    assert main(["devices"]) == 0
    printed = capsys.readouterr().out
    assert ("Driver Not Loaded" if broken else "the driver finds none") in printed
    assert "cores usable" in printed


def test_json_has_the_cpu_and_its_blas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_cupy: None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert main(["devices", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "nvidia-ml-py is not installed" in found["nvml"]["problem"]
    assert found["cpu"]["usable_cores"] >= 1
    assert all(blas["threads"] >= 1 for blas in found["cpu"]["blas"])


def test_the_cpu_says_how_it_launches_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_cupy: None
) -> None:
    monkeypatch.setattr(devices, "missing", lambda: "")
    assert (devices.cpu_view()["native"], devices.cpu_view()["native_problem"]) == (True, None)
    assert main(["devices"]) == 0
    assert "Launches on the CPU: native\n" in capsys.readouterr().out
    monkeypatch.setattr(devices, "loop_of", lambda function, dtypes: None)
    assert main(["devices", "--json"]) == 0
    cpu = json.loads(capsys.readouterr().out)["cpu"]
    assert cpu["native"] is False
    assert "does not give out its inner loops" in cpu["native_problem"]


def test_the_cpu_says_that_native_launches_are_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_cupy: None
) -> None:
    monkeypatch.setenv("ASYNCNET_NATIVE", "0")
    assert main(["devices"]) == 0
    assert "Launches on the CPU: from Python (ASYNCNET_NATIVE=0)" in capsys.readouterr().out


@pytest.mark.gpu
def test_cupy_sees_the_devices_that_nets_run_on() -> None:
    import cupy

    found = devices.cupy_view()
    assert len(found["devices"]) == cupy.cuda.runtime.getDeviceCount()
    assert found["version"] == cupy.__version__
    for device in found["devices"]:
        assert device["memory_total_bytes"] > 0
        assert device["index"] not in device["reaches"]
