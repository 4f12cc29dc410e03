// Perfetto's trace processor (WebAssembly) as a child process: requests of its RPC protocol on stdin,
// replies on stdout. Takes the place of the browser's worker for the engine that Perfetto's UI ships.
// node trace_processor.js FOLDER_OF_ENGINE
"use strict";
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const folder = process.argv[2];

// What a worker has and Node has not: a scope named self, an address, and requests for files beside it.
globalThis.self = globalThis;
globalThis.location = { href: "file://" + folder + "/engine_bundle.js" };
globalThis.WorkerGlobalScope = class {};
globalThis.XMLHttpRequest = class {
  open(_method, url) {
    this.file = path.join(folder, path.basename(url));
  }
  send() {
    this.response = new Uint8Array(fs.readFileSync(this.file)).buffer;
  }
};
// stdout belongs to the protocol.
console.log = console.info = console.error;
Object.defineProperty(globalThis, "process", { value: undefined, configurable: true });

const node = { stdin: 0, stdout: 1 };
const port = {
  postMessage: (bytes) => {
    for (let at = 0; at < bytes.length; ) at += fs.writeSync(node.stdout, bytes, at);
  },
};

vm.runInThisContext(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"));
self.onmessage({ data: port });

// A request: four bytes of length, little-endian, and a TraceProcessorRpcStream.
function request() {
  const length = Buffer.alloc(4);
  if (!read(length)) return null;
  const body = Buffer.alloc(length.readUInt32LE());
  return read(body) ? new Uint8Array(body) : null;
}

function read(buffer) {
  for (let at = 0; at < buffer.length; ) {
    const n = fs.readSync(node.stdin, buffer, at, buffer.length - at);
    if (n === 0) return false;
    at += n;
  }
  return true;
}

// Loaded synchronously; what the engine does next waits in the queue before this.
setTimeout(() => {
  for (let next = request(); next !== null; next = request()) port.onmessage({ data: next });
}, 0);
