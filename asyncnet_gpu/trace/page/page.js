"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const canvas = byId("lanes");
  const pen = canvas.getContext("2d");
  const { lanes, height } = makeLanes(data);
  const bars = makeBars(data, lanes);
  const hostBars = makeHostBars(data, lanes);
  const arrows = makeArrows(data, bars);
  const whole = extent(data);
  let view = { ...whole };
  let width = 800;
  let hovered = null;
  let selected = null;

  // Tints of the Okabe-Ito palette: told apart by colour-blind readers, black text on all of them.
  const TINTS = ["#8fcdf2", "#7fd0b4", "#f4c56b", "#e3b0cc", "#f3e57c", "#9db8e6", "#d3d7dc"];
  const MOST_ROWS = 2000;
  const counts = new Map();
  for (const step of data.steps) counts.set(step.op, (counts.get(step.op) ?? 0) + 1);
  const operators = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
  const tint = new Map(operators.map((op, i) => [op, TINTS[Math.min(i, TINTS.length - 1)]]));

  const colours = new Map(); // of the theme; looked up once for each
  const css = (name) => {
    if (!colours.has(name)) {
      const style = getComputedStyle(document.documentElement);
      colours.set(name, style.getPropertyValue(name).trim());
    }
    return colours.get(name);
  };
  const toX = (us) => GUTTER + ((us - view.start) / (view.end - view.start)) * (width - GUTTER);
  const toTime = (x) => view.start + ((x - GUTTER) / (width - GUTTER)) * (view.end - view.start);

  // -- drawing ---------------------------------------------------------------------------------

  function draw() {
    const scale = window.devicePixelRatio || 1;
    width = canvas.clientWidth;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.fillStyle = css("--back");
    pen.fillRect(0, 0, width, height);
    drawLanes();
    pen.save();
    pen.beginPath();
    pen.rect(GUTTER, 0, width - GUTTER, height);
    pen.clip();
    drawRuler();
    drawMemory();
    for (const bar of seen(hostBars)) drawHostBar(bar);
    for (const bar of seen(bars)) drawBar(bar);
    drawArrows();
    pen.restore();
    canvas.dataset.bars = bars.length;
    canvas.dataset.arrows = arrows.length;
    canvas.dataset.view = `${view.start} ${view.end}`;
  }

  function drawLanes() {
    pen.textBaseline = "middle";
    for (const lane of lanes) {
      const middle = lane.y + lane.height / 2;
      if (lane.kind === "group") {
        text(lane.name, 10, middle + 2, GUTTER + 300, "600 12px system-ui, sans-serif", css("--text"));
        continue;
      }
      pen.fillStyle = css("--lane");
      pen.fillRect(GUTTER, lane.y + 1, width - GUTTER, lane.height - 2);
      const note = lane.kind === "stream" ? lane.note : "";
      const up = note ? 7 : 0;
      text(lane.name, 16, middle - up, GUTTER - 22, "12px system-ui, sans-serif", css("--text"));
      if (note) text(note, 16, middle + 8, GUTTER - 22, "10.5px system-ui, sans-serif", css("--soft"));
    }
    pen.fillStyle = css("--line");
    pen.fillRect(GUTTER - 0.5, RULER, 1, height - RULER);
  }

  function drawRuler() {
    const times = ticks(view.start, view.end, (width - GUTTER) / 110);
    const step = times.length > 1 ? times[1] - times[0] : view.end - view.start;
    for (const at of times) {
      const x = toX(at);
      pen.fillStyle = css("--line");
      pen.fillRect(x, RULER - 6, 1, height);
      text(timeText(at, step), x + 4, RULER / 2, 100, "11px system-ui, sans-serif", css("--soft"));
    }
  }

  // Bars inside the view; of those that fall on one pixel of a lane the first.
  function seen(all) {
    const last = new Map();
    return all.filter((bar) => {
      const [left, right] = [toX(bar.start), toX(bar.end)];
      if (right < GUTTER || left > width) return false;
      const pixel = Math.round(right);
      const hidden = right - left < 1 && last.get(bar.lane) === pixel;
      last.set(bar.lane, pixel);
      return !hidden || bar === hovered || bar === selected;
    });
  }

  function drawBar(bar) {
    const [left, right] = [toX(bar.start), toX(bar.end)];
    const step = data.steps[bar.step];
    const [y, h] = [bar.lane.y + 4, bar.lane.height - 8];
    const w = Math.max(1.5, right - left);
    pen.fillStyle = tint.get(step.op);
    rounded(left, y, w, h, Math.min(4, w / 2));
    pen.fill();
    if (bar.critical || bar === hovered || bar === selected) {
      pen.lineWidth = bar === hovered || bar === selected ? 2 : 2.5;
      pen.strokeStyle = bar.critical ? css("--critical") : css("--text");
      if (w > 5) {
        rounded(left + 1.25, y + 1.25, w - 2.5, h - 2.5, Math.min(3, w / 3));
        pen.stroke();
      } else {
        pen.fillStyle = pen.strokeStyle;
        pen.fillRect(left, y, w, 3);
        pen.fillRect(left, y + h - 3, w, 3);
      }
      if (bar === selected) pen.strokeRect(left - 2, y - 3, w + 4, h + 6);
    }
    const from = Math.max(left, GUTTER);
    const room = Math.min(right, width) - from - 10;
    if (room < 12) return;
    pen.textBaseline = "middle";
    const time = duration(bar.end - bar.start);
    fit([step.name], from + 6, y + h / 2 - 7, room, "600", 11.5, "#101214");
    fit([`${step.op} ${time}`, time], from + 6, y + h / 2 + 8, room, "", 10.5, "#2b3036");
  }

  function drawHostBar(bar) {
    const [left, right] = [toX(bar.start), toX(bar.end)];
    const [y, h] = [bar.lane.y + 3, bar.lane.height - 6];
    const w = Math.max(1, right - left);
    if (bar.what === "wait") {
      pen.strokeStyle = css("--soft");
      pen.lineWidth = 1;
      pen.setLineDash([3, 3]);
      pen.beginPath();
      pen.moveTo(left, y + h / 2);
      pen.lineTo(left + w, y + h / 2);
      pen.stroke();
      pen.setLineDash([]);
      if (w > 60) label("waits", left, w, y, h, css("--soft"));
      return;
    }
    pen.fillStyle = css("--host");
    pen.fillRect(left, y, Math.max(1, w - 0.5), h);
    if (w > 26) label(data.steps[bar.step].name, left, w, y, h, css("--text"));
  }

  function label(words, left, w, y, h, colour) {
    const from = Math.max(left, GUTTER) + 4;
    const room = Math.min(left + w, width) - from - 4;
    const back = words === "waits" ? css("--lane") : null;
    if (back !== null) {
      pen.fillStyle = back;
      pen.fillRect(from - 2, y, Math.min(room, 30) + 4, h);
    }
    text(words, from, y + h / 2, room, "10.5px system-ui, sans-serif", colour);
  }

  function drawMemory() {
    for (const lane of lanes.filter((l) => l.kind === "memory")) {
      const top = data.arena[lane.device];
      const bottom = lane.y + lane.height - 3;
      const scale = (lane.height - 8) / top;
      let most = 0;
      pen.fillStyle = css("--memory");
      for (const run of data.runs.filter((r) => r.slot === lane.slot)) {
        const points = run.memory[lane.device] ?? [];
        points.forEach(([at, live], i) => {
          const until = i + 1 < points.length ? points[i + 1][0] : at;
          most = Math.max(most, live);
          const x = toX(at);
          pen.fillRect(x, bottom - live * scale, Math.max(0.5, toX(until) - x), live * scale);
        });
      }
      pen.strokeStyle = css("--soft");
      pen.setLineDash([4, 4]);
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(GUTTER, bottom - top * scale + 0.5);
      pen.lineTo(width, bottom - top * scale + 0.5);
      pen.stroke();
      pen.setLineDash([]);
      const words = `at most ${bytesText(most)} live of an arena of ${bytesText(top)}`;
      pen.font = "10.5px system-ui, sans-serif";
      const w = pen.measureText(words).width;
      pen.fillStyle = css("--lane");
      pen.fillRect(width - w - 14, lane.y + 3, w + 10, 15);
      text(words, width - w - 9, lane.y + 11, w + 8, pen.font, css("--soft"));
    }
  }

  function drawArrows() {
    const wanted = byId("arrows").value;
    const focus = hovered ?? selected;
    for (const arrow of arrows) {
      const touched = focus !== null && (arrow.from === focus || arrow.to === focus);
      if (!touched && (wanted === "none" || (wanted === "critical" && !arrow.critical))) continue;
      const faded = focus !== null && !touched;
      drawArrow(arrow, touched, faded);
    }
  }

  function drawArrow(arrow, touched, faded) {
    const [x1, x2] = [toX(arrow.from.end), toX(arrow.to.start)];
    if (Math.max(x1, x2) < GUTTER - 40 || Math.min(x1, x2) > width + 40) return;
    const { y1, y2, between } = route(arrow);
    pen.globalAlpha = faded ? 0.25 : 1;
    pen.strokeStyle = arrow.critical ? css("--critical") : css("--arrow");
    pen.fillStyle = pen.strokeStyle;
    pen.lineWidth = touched ? 2.5 : arrow.critical ? 2 : 1.2;
    pen.beginPath();
    pen.moveTo(x1, y1);
    // Along the border of the lane it goes to, so that no label is crossed out.
    if (x2 - x1 > 30) {
      pen.quadraticCurveTo(x1 + 1, between, x1 + 10, between);
      pen.lineTo(x2 - 18, between);
      pen.quadraticCurveTo(x2 - 10, between, x2 - 5, y2);
    } else {
      pen.bezierCurveTo(x1 + 8, between, x2 - 14, between, x2 - 5, y2);
    }
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x2 + 1, y2);
    pen.lineTo(x2 - 7, y2 - 4);
    pen.lineTo(x2 - 7, y2 + 4);
    pen.fill();
    pen.beginPath();
    pen.arc(x1, y1, 2.2, 0, 7);
    pen.fill();
    if (touched) why(arrow, x1, x2, between);
    pen.globalAlpha = 1;
  }

  function route(arrow) {
    const [from, to] = [arrow.from.lane, arrow.to.lane];
    if (from.y > to.y) return { y1: from.y + 6, y2: to.y + to.height - 12, between: to.y + to.height };
    return { y1: from.y + from.height - 6, y2: to.y + 12, between: to.y };
  }

  function why(arrow, x1, x2, y) {
    pen.font = "600 11px system-ui, sans-serif";
    const w = pen.measureText(arrow.why).width;
    const x = Math.min(width - w - 8, Math.max(GUTTER + 8, (x1 + x2) / 2 - w / 2));
    const colour = pen.strokeStyle;
    pen.fillStyle = css("--back");
    rounded(x - 5, y - 9, w + 10, 18, 4);
    pen.fill();
    pen.lineWidth = 1;
    pen.stroke();
    text(arrow.why, x, y, w + 4, pen.font, colour);
  }

  function rounded(x, y, w, h, r) {
    pen.beginPath();
    pen.roundRect(x, y, Math.max(0.1, w), h, Math.max(0, r));
  }

  // The first of several wordings that fits, smaller if need be; else the last one, cut off.
  function fit(wordings, x, y, room, weight, size, colour) {
    for (const words of wordings) {
      for (const pixels of [size, size - 1.5]) {
        pen.font = `${weight} ${pixels}px system-ui, sans-serif`;
        if (pen.measureText(words).width <= room) {
          text(words, x, y, room, pen.font, colour);
          return;
        }
      }
    }
    text(wordings.at(-1), x, y, room, pen.font, colour);
  }

  function text(words, x, y, room, font, colour) {
    pen.font = font;
    pen.fillStyle = colour;
    let shown = words;
    if (pen.measureText(shown).width > room) {
      let letters = Math.floor((room * words.length) / pen.measureText(words).width);
      do {
        letters -= 1;
        shown = shortened(words, letters);
      } while (letters > 2 && pen.measureText(shown).width > room);
      if (letters <= 2) shown = "";
    }
    pen.textBaseline = "middle";
    if (shown) pen.fillText(shown, x, y);
  }

  // -- words -----------------------------------------------------------------------------------

  function element(tag, words, name) {
    const made = document.createElement(tag);
    if (words !== undefined) made.textContent = words;
    if (name) made.className = name;
    return made;
  }

  function describe(bar) {
    const step = data.steps[bar.step];
    const run = data.runs[bar.run];
    const rows = [
      ["operator", step.op],
      ["time", `${duration(bar.end - bar.start)}, starts at ${duration(bar.start - run.start)} of run ${bar.run}`],
      ["stream", `${data.streams[step.stream].name} (${data.streams[step.stream].kind}), slot ${run.slot}`],
    ];
    for (const blob of step.reads) rows.push(["reads", blob]);
    for (const blob of step.writes) rows.push(["writes", blob]);
    for (const wait of step.waits) rows.push(["waits for", `${data.steps[wait.from].name} (${wait.why})`]);
    if (step.line) rows.push(["added at", step.line]);
    const made = document.createDocumentFragment();
    made.append(element("h3", step.name));
    if (bar.critical) {
      const gap = run.gaps[bar.step];
      const before = run.path.indexOf(bar.step);
      const what = before > 0 ? data.steps[run.path[before - 1]].name : "the start of the run";
      const late = gap > 0 ? `, ${duration(gap)} after ${what}` : "";
      made.append(element("div", `on the critical path${late}`, "critical"));
    }
    const list = element("dl");
    for (const [term, words] of rows) list.append(element("dt", term), element("dd", words));
    made.append(list);
    return made;
  }

  function fillPage() {
    const how = data.report && !data.report.measured ? "simulated" : "measured";
    byId("title").textContent = `${data.net} · ${data.backend}, ${data.mode}`;
    const numbers = byId("numbers");
    if (data.report === null) {
      numbers.textContent = "nothing was traced";
      return;
    }
    const report = data.report;
    const parts = [
      ["run", duration(report.elapsed)], ["work", duration(report.work)],
      ["span", duration(report.span)], ["work / span", report.ratio.toFixed(2)],
      ["overlap", `${report.achieved.toFixed(2)} of ${report.possible.toFixed(2)} possible`],
    ];
    for (const [name, value] of parts) numbers.append(`${name} `, element("b", value), " · ");
    const n = data.runs.length;
    numbers.append(n > 1 ? `${how}, the fastest of ${n} runs` : how);
    report.causes.slice(0, 3).forEach((cause, i) => {
      const box = element("div", undefined, "limit");
      const share = cause.lost > 0 ? ` · ${Math.round((100 * cause.lost) / report.elapsed)} % of the run` : "";
      box.append(element("h2", `${i === 0 ? "First limit" : "Then"}: ${cause.kind}${share}`));
      box.append(element("p", cause.evidence), element("p", cause.remedy));
      byId("limits").append(box);
    });
  }

  function fillLegend() {
    const legend = byId("legend");
    const entry = (style, words) => {
      const item = element("span");
      const mark = element("i");
      Object.assign(mark.style, style);
      item.append(mark, words);
      legend.append(item);
    };
    const own = operators.slice(0, TINTS.length - 1);
    for (const op of own) entry({ background: tint.get(op) }, op);
    if (operators.length > own.length) entry({ background: TINTS.at(-1) }, "other operators");
    entry({ border: "2.5px solid var(--critical)" }, "critical path");
    entry({ borderTop: "2px solid var(--arrow)", height: "0", verticalAlign: "3px" }, "waits for an event");
  }

  function fillTable() {
    const body = byId("table").tBodies[0];
    if (bars.length > MOST_ROWS) {
      byId("rows").textContent = `The first ${MOST_ROWS} of ${bars.length} steps as a table`;
    }
    for (const bar of bars.slice(0, MOST_ROWS)) {
      const step = data.steps[bar.step];
      const waits = step.waits.map((w) => `${data.steps[w.from].name} (${w.why})`).join(", ");
      const row = element("tr");
      row.append(element("td", bar.run), element("td", step.name), element("td", step.op),
        element("td", data.streams[step.stream].name),
        element("td", duration(bar.start - data.runs[bar.run].start), "number"),
        element("td", duration(bar.end - bar.start), "number"),
        element("td", waits), element("td", bar.critical ? "yes" : ""));
      body.append(row);
    }
  }

  // -- moving ----------------------------------------------------------------------------------

  function show(next) {
    view = clamped(next, whole);
    draw();
  }

  function zoom(factor, at = (view.start + view.end) / 2) {
    view = zoomed(view, whole, at, factor);
    draw();
  }

  function pan(share) {
    const by = share * (view.end - view.start);
    show({ start: view.start + by, end: view.end + by });
  }

  function select(bar) {
    selected = bar;
    if (bar !== null) {
      byId("detail").replaceChildren(describe(bar));
      if (bar.end < view.start || bar.start > view.end) {
        const half = (view.end - view.start) / 2;
        const middle = (bar.start + bar.end) / 2;
        view = clamped({ start: middle - half, end: middle + half }, whole);
      }
    }
    draw();
  }

  function next(by) {
    if (bars.length === 0) return;
    const at = selected === null ? (by > 0 ? -1 : 0) : bars.indexOf(selected);
    select(bars[(at + by + bars.length) % bars.length]);
  }

  function hover(event) {
    const bar = barAt(bars, toX, event.offsetX, event.offsetY);
    const tip = byId("tip");
    if (bar !== hovered) {
      hovered = bar;
      draw();
      if (bar !== null) tip.replaceChildren(describe(bar));
    }
    tip.hidden = bar === null;
    if (bar === null) return;
    const frame = canvas.getBoundingClientRect();
    const right = window.innerWidth - tip.offsetWidth - 8;
    const below = frame.top + bar.lane.y + bar.lane.height + 10;
    const above = frame.top + bar.lane.y - tip.offsetHeight - 10;
    const fits = below + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, right))}px`;
    tip.style.top = `${fits ? below : Math.max(4, above)}px`;
  }

  let grip = null;
  canvas.addEventListener("pointerdown", (event) => {
    grip = { x: event.offsetX, view: { ...view }, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (grip === null) {
      hover(event);
      return;
    }
    const by = ((grip.x - event.offsetX) / (width - GUTTER)) * (grip.view.end - grip.view.start);
    if (Math.abs(event.offsetX - grip.x) > 3) grip.moved = true;
    if (grip.moved) {
      canvas.classList.add("moving");
      byId("tip").hidden = true;
      show({ start: grip.view.start + by, end: grip.view.end + by });
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    if (grip !== null && !grip.moved) select(barAt(bars, toX, event.offsetX, event.offsetY));
    grip = null;
    canvas.classList.remove("moving");
  });
  canvas.addEventListener("pointerleave", () => {
    hovered = null;
    byId("tip").hidden = true;
    draw();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      pan((event.deltaX || event.deltaY) / 800);
    } else {
      zoom(1.0015 ** event.deltaY, toTime(event.offsetX));
    }
  }, { passive: false });
  canvas.addEventListener("dblclick", () => show(whole));
  canvas.addEventListener("keydown", (event) => {
    const act = {
      ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), "+": () => zoom(0.7),
      "=": () => zoom(0.7), "-": () => zoom(1 / 0.7), 0: () => show(whole), n: () => next(1),
      p: () => next(-1), Escape: () => select(null),
    }[event.key];
    if (act === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  byId("in").addEventListener("click", () => zoom(0.7));
  byId("out").addEventListener("click", () => zoom(1 / 0.7));
  byId("fit").addEventListener("click", () => show(whole));
  byId("arrows").addEventListener("change", draw);

  // -- theme -----------------------------------------------------------------------------------

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  function theme(name) {
    document.documentElement.dataset.theme = name;
    colours.clear();
    draw();
  }
  dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () =>
    theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  window.addEventListener("resize", draw);

  fillPage();
  fillLegend();
  fillTable();
  theme(dark.matches ? "dark" : "light");
})();
