"""`AsyncNet`: the definition that a user writes, checked while it is written."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncnet_gpu import ops
from asyncnet_gpu.barrier import AsyncNetBarrier
from asyncnet_gpu.blob import Blob
from asyncnet_gpu.errors import NetError, ShapeError, message
from asyncnet_gpu.net_state import After, NetState, SourceDef, names_line, user_line
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.specs import TensorSpec, as_dtype, spec

if TYPE_CHECKING:
    from asyncnet_gpu.executor import Executable
    from asyncnet_gpu.ops.base import Attrs, Op


#: Highest index of a logical device: a larger one is a mistake.
MOST_DEVICES = 4095


class AsyncNet(NetState):
    """A net of operators, defined once and run serially, on streams or as a CUDA graph.

    Every operator in `asyncnet_gpu.ops` is a method in snake_case. It takes blobs by position
    (NumPy arrays and numbers become constants), attributes by keyword, and optionally ``name=`` and
    ``after=[...]`` (blobs, barriers or node names that must come first). Shapes and dtypes are
    inferred at once and errors name the line that made them.

    Parameters
    ----------
    name
        Shown in plans, errors and traces.

    Examples
    --------
    >>> net = AsyncNet("double")
    >>> x = net.input("x", (3,), "float32")
    >>> net.output(net.add(x, x, name="y"))
    >>> with net.compile(backend="cpu") as exe:
    ...     print(exe.run(x=[1, 2, 3])["y"])
    [2. 4. 6.]
    """

    # -- sources ---------------------------------------------------------------------------

    @names_line
    def input(self, name: str, shape: Sequence[int] | int, dtype: object = "float32") -> Blob:
        """Declare a blob that the caller gives to each run.

        Parameters
        ----------
        name
            Keyword of ``exe.run``.
        shape, dtype
            Static; an array of another shape or dtype is refused by the run.

        Raises
        ------
        NetError
            If the name is taken.
        ShapeError
            If an extent is negative or the dtype is not supported.
        """
        return self._source(name, spec(shape, dtype, where=f"input {name!r}"), "input", None)

    @names_line
    def parameter(self, name: str, value: object) -> Blob:
        """Declare a persistent blob with a first value; every slot sees the same bytes.

        The array is copied when the net is compiled. Operators that update in place
        (``net.assign`` and others) change it for all later runs.
        """
        array = self._array(name, value)
        return self._source(name, TensorSpec(array.shape, array.dtype), "parameter", array)

    @names_line
    def output(self, *blobs: Blob, **named: Blob) -> None:
        """Mark blobs as results of a run: by their own name, or by keyword under another."""
        for key, blob in [
            *((b.name if isinstance(b, Blob) else "", b) for b in blobs),
            *named.items(),
        ]:
            self._own(blob, "output")
            if key in self.outputs and self.outputs[key] != blob.name:
                raise NetError(
                    message(
                        "net.output", f"output {key!r} is declared twice",
                        expected="one blob for each output name", got=blob.name,
                        remedy="Pass it under another keyword.",
                    )
                )  # fmt: skip
            self.outputs[key] = blob.name

    # -- operators -------------------------------------------------------------------------

    def __getattr__(self, attribute: str) -> Callable[..., Any]:
        # Reached only for names that are no attribute: operators are found by file, not listed.
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        op = ops.registry().get(attribute)
        if attribute in BARRIERS:
            return self.barrier
        if op is None:
            raise AttributeError(
                f"[net] {attribute!r} is no operator of asyncnet_gpu.{_hint(attribute)}"
            )
        return _method(op, self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *ops.registry()})

    @names_line
    def call(
        self, fn: Callable[..., object], *blobs: object, shape: Any, dtype: Any,
        name: str | Sequence[str] | None = None, after: After = (),
    ) -> Any:  # fmt: skip
        """Add the user's own function ``fn(xp, *arrays, out=array)``.

        Parameters
        ----------
        fn
            Called with numpy or cupy, the input arrays (read only, possibly strided) and the
            output to fill; it must not keep them. For several outputs ``out`` is a tuple.
        shape, dtype
            Of the output; lists of shapes and dtypes for several outputs.
        """
        several = isinstance(shape, list)
        shapes = (
            tuple(tuple(s) for s in shape)
            if several
            else ((shape,) if isinstance(shape, int) else tuple(shape),)
        )
        dtypes = tuple(dtype) if isinstance(dtype, (list, tuple)) else (dtype,) * len(shapes)
        attrs = {"fn": fn, "shapes": shapes, "dtypes": _dtype_names(dtypes, "call")}
        outs = self.add_node(ops.registry()["call"], blobs, attrs, name=name, after=after)
        return tuple(outs) if several else outs[0]

    @names_line
    def kernel(
        self, source: str, entry: str, args: Sequence[object], *, out: Any,
        grid: int | Sequence[int], block: int | Sequence[int],
        cpu: Callable[..., object] | None = None, shared_bytes: int = 0,
        name: str | Sequence[str] | None = None, after: After = (),
    ) -> Any:  # fmt: skip
        """Add the user's own CUDA C++ kernel and its CPU twin.

        Parameters
        ----------
        source, entry
            CUDA C++ and the name (``extern "C"``) or name expression of the ``__global__``.
        args
            Blobs, and NumPy scalars passed by value, in the order of the kernel's parameters. The
            outputs follow as last parameters. All arrays are C-contiguous: a strided view is copied
            before.
        out
            ``(shape, dtype)``, or a list of such pairs.
        grid, block
            Blocks and threads per block; up to three extents.
        cpu
            ``cpu(xp, *args, out=array)``, the same function on NumPy arrays. Without it the net
            runs on CUDA only.
        """
        outs = list(out) if isinstance(out, list) else [out]
        slots: list[object] = [None if _is_blob(a) else a for a in args]
        blobs = [a for a, s in zip(args, slots, strict=True) if s is None]
        attrs = {
            "source": source, "entry": entry, "args": tuple(slots),
            "grid": _extents(grid), "block": _extents(block), "cpu": cpu,
            "shapes": tuple((s,) if isinstance(s, int) else tuple(s) for s, _ in outs),
            "dtypes": _dtype_names([d for _, d in outs], "kernel"),
            "shared_bytes": int(shared_bytes),
        }  # fmt: skip
        made = self.add_node(ops.registry()["kernel"], blobs, attrs, name=name, after=after)
        return tuple(made) if isinstance(out, list) else made[0]

    @names_line
    def barrier(
        self, *blobs: Blob, name: str | None = None, cross_device: bool | None = None,
        outputs: Sequence[object] | None = None, after: After = (),
    ) -> AsyncNetBarrier:  # fmt: skip
        """Order without computing: what uses one of `blobs` later starts after all their makers.

        With no blobs: everything defined before happens before everything defined after. On CUDA
        this is events recorded and waited across streams; the host does not stop.

        Parameters
        ----------
        blobs
            Pass through in place; go on using the same handles.
        cross_device
            True lets the blobs live on several devices (the default when they do).
        outputs
            Only for definitions from elsewhere: must be the blobs themselves.

        Raises
        ------
        NetError
            If `outputs` differ from `blobs` (an out-of-place barrier orders nothing), a blob is
            given twice, or `cross_device` is False for blobs on several devices.
        """
        names = tuple(self._own(blob, "barrier").name for blob in blobs)
        self._check_barrier(names, outputs, cross_device)
        several = len({self._devices[n] for n in names}) > 1
        whole = not names or several or bool(cross_device)
        op = ops.registry()["async_net_barrier" if whole else "async_barrier"]
        node = self._node_name(op, name)
        device = self._devices[names[0]] if names else self._device
        self._append(op, node, {}, names, names, device, after)
        return AsyncNetBarrier(self, node, names)

    @names_line
    def add_node(
        self, op: Op, operands: Sequence[object], attrs: Attrs, *,
        name: str | Sequence[str] | None = None, outputs: Sequence[str] | None = None,
        after: After = (),
    ) -> tuple[Blob, ...]:  # fmt: skip
        """Add a node for `op`; the methods named after operators all end here.

        Parameters
        ----------
        name
            Of the node and its output; a sequence names each of several outputs.
        outputs
            Names of the outputs where they are not those that `name` gives.

        Returns
        -------
        One blob for each output of the operator.
        """
        line = user_line()
        try:
            names = self._operands(op, operands)
            full = self._attrs(op, attrs)
            specs = tuple(self._specs[n] for n in names)
            op.check_inputs(specs)
            outs = op.infer(specs, full)
        except (ShapeError, NetError) as error:
            error.add_note(
                f"while adding {op.name!r} (node {name!r}) to net {self.name!r} at {line}"
            )
            raise
        out_names = tuple(names[i] for i in op.mutates)
        node = self._node_name(op, self._first_name(name))
        if op.mutates:
            self._check_mutable(op, out_names)
        else:
            out_names = self._output_names(node, name if outputs is None else outputs, len(outs))
        self._append(op, node, full, names, out_names, self._device, after)
        for out, out_spec in zip(out_names, outs, strict=True):
            self._specs[out] = out_spec
            self._devices.setdefault(out, self._device)
        return tuple(Blob(self, n, self._specs[n]) for n in out_names)

    @names_line
    def device(self, index: int) -> AbstractContextManager[None]:
        """Place what is added inside on logical device `index` (the same on every backend)."""
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index <= MOST_DEVICES:
            raise NetError(
                message("net.device", f"device {index!r}", expected=f"0 to {MOST_DEVICES}",
                        got=repr(index), remedy="Devices are counted from 0.")
            )  # fmt: skip
        return self._on_device(index)

    @contextmanager
    def _on_device(self, index: int) -> Iterator[None]:
        outer, self._device = self._device, index
        try:
            yield
        finally:
            self._device = outer

    # -- reading and compiling -------------------------------------------------------------

    @property
    def sources(self) -> tuple[SourceDef, ...]:
        """Inputs, parameters, states and constants in order of definition."""
        return tuple(self._sources.values())

    @property
    def n_devices(self) -> int:
        """Number of logical devices that the net names."""
        return 1 + max([0, *self._devices.values(), *(d.device for d in self.definitions)])

    @names_line
    def check_complete(self) -> None:
        """Raise `NetError` if the net cannot be compiled yet."""
        if not self.outputs:
            raise NetError(
                message(f"net {self.name!r}", "no outputs", expected="at least one", got="none",
                        remedy="Call net.output(blob).")
            )  # fmt: skip

    def compile(self, **options: Any) -> Executable:
        """Plan, prove and load the net; see `asyncnet_gpu.compile` for the options."""
        from asyncnet_gpu.api import compile as compile_net

        return compile_net(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as JSON-able data; see `asyncnet_gpu.serialize`."""
        from asyncnet_gpu.serialize import net_to_dict

        return net_to_dict(self)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the net as an ONNX model; see `asyncnet_gpu.onnx.save_onnx`."""
        from asyncnet_gpu.onnx.export import save_onnx

        save_onnx(self, path)

    @staticmethod
    def from_dict(
        data: Mapping[str, Any], *, functions: Mapping[str, Callable[..., object]] | None = None
    ) -> AsyncNet:
        """Rebuild a net from `to_dict`; user functions are given by name, never imported."""
        from asyncnet_gpu.serialize import net_from_dict

        return net_from_dict(data, functions=functions)

    def __repr__(self) -> str:
        return (
            f"<AsyncNet {self.name!r}: {len(self.definitions)} nodes, "
            f"{len(self._sources)} sources, {len(self.outputs)} outputs>"
        )


def _hint(attribute: str) -> str:
    """Name the operator that was likely meant: NumPy's ``mean`` is ``reduce_mean`` here."""
    words = [name for name in ops.registry() if attribute in name.split("_")]
    words.sort(key=lambda name: (not name.startswith("reduce_"), len(name)))
    near = words or difflib.get_close_matches(attribute, ops.registry(), n=1)
    return f" Did you mean net.{near[0]}?" if near else " See dir(net) for all of them."


def _is_blob(value: object) -> bool:
    """Whether a kernel's argument is a blob (or an array for one), not a scalar by value."""
    return isinstance(value, Blob) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _dtype_names(dtypes: Sequence[object], where: str) -> tuple[str, ...]:
    return tuple(as_dtype(dtype, where=where).name for dtype in dtypes)


def _extents(value: int | Sequence[int]) -> tuple[int, int, int]:
    extents = (value,) if isinstance(value, int) else tuple(value)
    if not 1 <= len(extents) <= 3 or min(extents) < 1:
        raise NetError(
            message("kernel", "bad grid or block", expected="one to three extents of at least 1",
                    got=extents, remedy="Give the number of blocks and of threads per block.")
        )  # fmt: skip
    x, y, z = (*extents, 1, 1, 1)[:3]
    return int(x), int(y), int(z)


def _method(op: Op, net: AsyncNet) -> Callable[..., Any]:
    """Return the bound method of an operator: blobs by position, attributes by keyword."""

    def method(*operands: object, name: Any = None, after: After = (), **attrs: Any) -> Any:
        outs = net.add_node(op, operands, attrs, name=name, after=after)
        return outs[0] if len(outs) == 1 else outs

    method.__name__ = method.__qualname__ = op.name
    method.__doc__ = op.doc
    return method
