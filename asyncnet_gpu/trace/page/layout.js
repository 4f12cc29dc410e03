"use strict";
// What goes where: lanes, bars, arrows, ticks. Pure functions of the data; nothing here draws.

const GUTTER = 168;
const RULER = 26;
const HEIGHTS = { group: 24, stream: 44, host: 20, memory: 44 };

// Lanes from top to bottom: for each slot its streams and its memory, then the threads of the host.
function makeLanes(data) {
  const lanes = [];
  let y = RULER;
  const add = (kind, name, more) => {
    lanes.push({ kind, name, y, height: HEIGHTS[kind], ...more });
    y += HEIGHTS[kind];
  };
  const slots = [...new Set(data.runs.map((run) => run.slot))].sort((a, b) => a - b);
  for (const slot of slots) {
    const n = data.runs.filter((run) => run.slot === slot).length;
    add("group", `slot ${slot} · ${n} run${n === 1 ? "" : "s"}`, {});
    data.streams.forEach((stream, id) => add("stream", stream.name, { slot, stream: id, note: stream.kind }));
    for (const device of Object.keys(data.arena)) {
      if (data.arena[device] > 0) add("memory", `memory ${device}`, { slot, device });
    }
  }
  const threads = [...new Set(data.runs.flatMap((run) => run.host.map((part) => part[0])))];
  if (threads.length > 0) add("group", "host threads", {});
  for (const thread of threads) add("host", thread.replace(/^asyncnet-/, ""), { thread });
  return { lanes, height: y + 6 };
}

// One bar for each step of each run, in the order of the runs.
function makeBars(data, lanes) {
  const lane = new Map(lanes.filter((l) => l.kind === "stream").map((l) => [`${l.slot}/${l.stream}`, l]));
  return data.runs.flatMap((run, number) => {
    const path = new Set(run.path);
    return run.slices.map(([step, start, end]) => ({
      run: number, step, start, end, critical: path.has(step),
      lane: lane.get(`${run.slot}/${data.steps[step].stream}`),
    }));
  });
}

function makeHostBars(data, lanes) {
  const lane = new Map(lanes.filter((l) => l.kind === "host").map((l) => [l.thread, l]));
  return data.runs.flatMap((run, number) =>
    run.host.map(([thread, what, step, start, end]) => ({
      run: number, step, what, start, end, lane: lane.get(thread),
    })),
  );
}

// One arrow for each wait, from the end of the step that recorded the event.
function makeArrows(data, bars) {
  const bar = new Map(bars.map((b) => [`${b.run}/${b.step}`, b]));
  const arrows = [];
  for (const to of bars) {
    for (const wait of data.steps[to.step].waits) {
      const from = bar.get(`${to.run}/${wait.from}`);
      if (from !== undefined) {
        arrows.push({ from, to, why: wait.why, critical: onPath(data.runs[to.run].path, from, to) });
      }
    }
  }
  return arrows;
}

function onPath(path, from, to) {
  const at = path.indexOf(to.step);
  return at > 0 && path[at - 1] === from.step;
}

function extent(data) {
  const ends = data.runs.map((run) => run.start + run.elapsed);
  const end = Math.max(1e-3, ...ends);
  return { start: -0.01 * end, end: 1.02 * end };
}

// About `count` round times inside a view.
function ticks(start, end, count) {
  const rough = (end - start) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const made = [];
  for (let i = Math.ceil(start / step); i * step <= end; i += 1) made.push(i * step);
  return made;
}

function timeText(us, step = Math.abs(us)) {
  const digits = (unit) => Math.max(0, Math.min(3, Math.ceil(-Math.log10(step / unit || 1) + 1e-9)));
  if (Math.max(Math.abs(us), step) >= 1e6) return `${(us / 1e6).toFixed(Math.max(digits(1e6), 1))} s`;
  if (Math.max(Math.abs(us), step) >= 1e3) return `${(us / 1e3).toFixed(digits(1e3))} ms`;
  return `${us.toFixed(digits(1))} µs`;
}

// Three digits and a unit that suits.
function duration(us) {
  const [scale, unit] = us >= 1e6 ? [1e6, "s"] : us >= 1e3 ? [1e3, "ms"] : [1, "µs"];
  return `${Number((us / scale).toPrecision(3))} ${unit}`;
}

// The beginning and the end of a name: what tells names apart stands at either.
function shortened(words, letters) {
  const head = Math.ceil(letters * 0.6);
  return `${words.slice(0, head)}…${words.slice(words.length - (letters - head))}`;
}

function bytesText(n) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) [n, i] = [n / 1024, i + 1];
  return `${Number(n.toPrecision(3))} ${units[i]}`;
}

// Zooming keeps the time under the pointer where it is.
function zoomed(view, whole, at, factor) {
  const full = whole.end - whole.start;
  const span = Math.min(full, Math.max(full * 1e-6, (view.end - view.start) * factor));
  const share = (at - view.start) / (view.end - view.start);
  return clamped({ start: at - share * span, end: at + (1 - share) * span }, whole);
}

function clamped(view, whole) {
  const span = Math.min(view.end - view.start, whole.end - whole.start);
  const start = Math.min(Math.max(view.start, whole.start), whole.end - span);
  return { start, end: start + span };
}

// The bar under a point; a bar narrower than the pointer can still be met.
function barAt(bars, toX, x, y) {
  let best = null;
  for (const bar of bars) {
    if (y < bar.lane.y || y >= bar.lane.y + bar.lane.height) continue;
    const [left, right] = [toX(bar.start), toX(bar.end)];
    const distance = x < left ? left - x : x > right ? x - right : 0;
    if (distance <= 3 && (best === null || distance < best.distance)) best = { bar, distance };
  }
  return best && best.bar;
}

if (typeof module !== "undefined") {
  module.exports = {
    makeLanes, makeBars, makeHostBars, makeArrows, extent, ticks, timeText, duration, bytesText,
    shortened,
    zoomed, clamped, barAt,
  };
}
