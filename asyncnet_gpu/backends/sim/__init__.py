"""The simulated backend: no arithmetic, virtual time, as many devices as a net asks for."""

from __future__ import annotations

from asyncnet_gpu.backends.sim.backend import SimBackend
from asyncnet_gpu.backends.sim.simulate import GPU, Simulation, simulate

__all__ = ["GPU", "SimBackend", "Simulation", "create", "simulate"]


def create() -> SimBackend:
    """Return a new simulated backend with the rates of a data-centre GPU."""
    return SimBackend()
