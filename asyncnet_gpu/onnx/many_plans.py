"""What an executable with many plans has in common with one that has a single plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from asyncnet_gpu.errors import NetError, message

if TYPE_CHECKING:
    from asyncnet_gpu.executor import Executable
    from asyncnet_gpu.plan.types import Plan
    from asyncnet_gpu.report import Report
    from asyncnet_gpu.run import Run
    from asyncnet_gpu.timeline import Timeline


class ManyPlans(ABC):
    """The methods of `asyncnet_gpu.Executable`, over the executables of single plans.

    What concerns one plan concerns the one used last, or the one for the inputs given. A
    `NetError` says so when there is none yet, and when the model runs in several stages, each with
    a plan of its own (`OnnxExecutable.stages`).
    """

    # -- what there is to choose from ----------------------------------------------------------

    @abstractmethod
    def _last(self) -> Executable:
        """Return the executable used last; `NetError` when there is none."""

    @abstractmethod
    def _chosen(
        self, inputs: Mapping[str, object] | None, named: Mapping[str, object]
    ) -> AbstractContextManager[tuple[Executable, dict[str, Any]]]:
        """Hold the executable for some inputs, with those that it takes; without any the last."""

    @abstractmethod
    def run(
        self, inputs: Mapping[str, object] | None = None, /, *, timeout_s: float | None = None,
        **named: object,
    ) -> dict[str, Any]:  # fmt: skip
        """Execute the model and wait."""

    @abstractmethod
    def submit(
        self, inputs: Mapping[str, object] | None = None, /, *, deadline_s: float | None = None,
        **named: object,
    ) -> Run:  # fmt: skip
        """Start the model and return at once with a `Run`."""

    @abstractmethod
    def close(self) -> None:
        """Cancel what is queued, wait for what runs, free every plan."""

    def plan_for(
        self, inputs: Mapping[str, object] | None = None, /, **named: object
    ) -> Executable:
        """Return the executable that such inputs use, making it when it is not there.

        It is closed when it falls out of the cache.
        """
        with self._chosen(inputs, named) as (exe, _):
            return exe

    # -- reading -------------------------------------------------------------------------------

    @property
    def backend(self) -> str:
        """Name of the backend that was taken, known from the first plan on."""
        return self._last().backend

    @property
    def plan(self) -> Plan:
        """The plan used last."""
        return self._last().plan

    @property
    def mode(self) -> str:
        """The mode of the plan used last."""
        return self._last().mode

    @property
    def why(self) -> str:
        """Why this mode; each plan decides for itself."""
        return self._last().why

    @property
    def slots(self) -> int:
        """Runs of the plan used last that can be in flight at a time."""
        return self._last().slots

    def explain(self, first: str, second: str) -> str:
        """Say why `second` waits for `first` in the plan used last; see `Plan.explain`."""
        return self.plan.explain(first, second)

    # -- watching ------------------------------------------------------------------------------

    @contextmanager
    def trace(
        self, inputs: Mapping[str, object] | None = None, /, *, nvtx: bool = False,
        cpu_times: bool = False, **named: object,
    ) -> Iterator[Timeline]:  # fmt: skip
        """Note when each step of the runs inside really ran; see `asyncnet_gpu.Executable.trace`.

        Parameters
        ----------
        inputs, named
            Inputs whose plan is traced; without them the plan used last. A timeline is of one
            plan: runs of other shapes inside are carried out, and not noted.
        nvtx, cpu_times
            As there.

        Raises
        ------
        NetError
            If there is no plan yet, or, at the end, if the runs inside used other plans only.
        """
        with self._chosen(inputs, named) as (exe, _):
            with exe.trace(nvtx=nvtx, cpu_times=cpu_times) as timeline:
                yield timeline
            if not timeline.runs and self._last() is not exe:
                raise NetError(
                    message(
                        "trace", "the runs inside used another plan than the one that was traced",
                        expected="runs of the same signature", got="inputs of other shapes",
                        remedy="Name the inputs: exe.trace(x=x); or run them once before.",
                    )
                )  # fmt: skip

    def report(
        self, inputs: Mapping[str, object] | None = None, /, *, rounds: int = 5, **named: object
    ) -> Report:
        """Run the model and say how much overlapped; see `asyncnet_gpu.Executable.report`.

        Parameters
        ----------
        inputs, named
            As for `run`; without them the plan used last, with seeded random values.
        rounds
            As there.
        """
        with self._chosen(inputs, named) as (exe, arrays):
            return exe.report(arrays, rounds=rounds)

    # -- parameters ----------------------------------------------------------------------------

    def get_parameter(self, name: str) -> Any:
        """Return the value of a parameter in the plan used last; each plan has its own."""
        return self._last().get_parameter(name)

    def set_parameter(self, name: str, value: object) -> NoReturn:
        """Refuse: each plan has parameters of its own, also those that are not made yet.

        Raises
        ------
        NetError
            Always.
        """
        raise NetError(
            message(
                "set_parameter", f"{name!r} of a model with several plans",
                expected="a net of one plan, or the plan's own executable",
                got="parameters in each plan",
                remedy="Bind the shapes, load_onnx(..., shapes=), or use "
                "exe.plan_for(...).set_parameter.",
            )
        )  # fmt: skip

    # -- the end -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def no_plan_yet() -> NetError:
    """Return the error of a question about the plan used last when there is none."""
    return NetError(
        message(
            "plan", "the model has no plan yet: it gets one for the shapes of its inputs",
            expected="a run before, or inputs", got="neither",
            remedy="Run it once, or name inputs: exe.plan_for(...), exe.trace(...), "
            "exe.report(...).",
        )
    )  # fmt: skip
