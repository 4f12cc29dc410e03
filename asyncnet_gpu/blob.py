"""`Blob`: the handle of a named value while a net is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from asyncnet_gpu.net import AsyncNet
    from asyncnet_gpu.specs import TensorSpec


class Blob:
    """A named value of a net: knows shape and dtype, holds no data.

    Arithmetic on blobs adds nodes: ``a + b`` is ``net.add(a, b)``.
    """

    __slots__ = ("name", "net", "spec")

    def __init__(self, net: AsyncNet, name: str, spec: TensorSpec) -> None:
        self.net = net
        self.name = name
        self.spec = spec

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the array."""
        return self.spec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of the array."""
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.spec.ndim

    def __add__(self, other: object) -> Blob:
        return self._binary("add", self, other)

    def __radd__(self, other: object) -> Blob:
        return self._binary("add", other, self)

    def __sub__(self, other: object) -> Blob:
        return self._binary("sub", self, other)

    def __rsub__(self, other: object) -> Blob:
        return self._binary("sub", other, self)

    def __mul__(self, other: object) -> Blob:
        return self._binary("mul", self, other)

    def __rmul__(self, other: object) -> Blob:
        return self._binary("mul", other, self)

    def __truediv__(self, other: object) -> Blob:
        return self._binary("div", self, other)

    def __rtruediv__(self, other: object) -> Blob:
        return self._binary("div", other, self)

    def __matmul__(self, other: object) -> Blob:
        return self._binary("matmul", self, other)

    def __neg__(self) -> Blob:
        made: Blob = self.net.neg(self)
        return made

    def _binary(self, op: str, left: object, right: object) -> Blob:
        made: Blob = getattr(self.net, op)(left, right)
        return made

    def __repr__(self) -> str:
        return f"<Blob {self.name!r} {self.spec}>"
