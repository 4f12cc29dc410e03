"""`conv1d` as `conv`."""

from asyncnet_gpu.backends.cuda.overrides.conv import bind

__all__ = ["bind"]
