// Faults against time.

const canvas = byId("timeline");
const which = byId("which");
const LEAST_SPAN = 5;
const AXIS = 22;
const line = { from: 0, to: duration, shown: [true, true, true], drag: null, points: [] };

// Where each file lies from top to bottom, from 0 to 1; files with more touched pages get more room.
const bands = [];
{
  const weights = files.map((file) => Math.sqrt(sumOfCounts(file.touches)) + 2);
  const all = weights.reduce((sum, weight) => sum + weight, 0) || 1;
  let top = 0;
  for (const weight of weights) {
    bands.push([top / all, (top + weight) / all]);
    top += weight;
  }
}

// Only pages that were faulted on take room within the band of a file.
const ends = files.map(() => [Infinity, 0]);
for (let i = 0; i < faults.at.length; i++) {
  const end = ends[faults.file[i]];
  if (!end) continue;
  end[0] = Math.min(end[0], faults.page[i]);
  end[1] = Math.max(end[1], faults.page[i]);
}

function layout() {
  const width = Math.max(canvas.clientWidth, 200);
  const height = innerHeight < 700 ? 300 : 380;
  const gutter = width < 700 ? 0 : 190;
  return { width, height, gutter, plot: { x: gutter, w: width - gutter - 8, h: height - AXIS } };
}

// A round step for about `wanted` marks over `span`.
function step(span, wanted) {
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const nice = [1, 2, 5, 10].find((factor) => factor * power >= rough);
  return Math.max(nice * power, 1);
}

function drawAxis(context, { width, height, plot }) {
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "alphabetic";
  context.textAlign = "left";
  const by = step(line.to - line.from, Math.max(plot.w / 110, 2));
  for (let at = Math.ceil(line.from / by) * by; at <= line.to; at += by) {
    const x = plot.x + ((at - line.from) / (line.to - line.from)) * plot.w;
    context.fillStyle = colour("line");
    context.fillRect(x, 0, 1, plot.h + 4);
    context.fillStyle = colour("soft");
    if (x < width - 52) context.fillText(at === 0 ? "0" : time(at), x + 3, height - 7);
  }
}

function drawBands(context, { gutter, plot, width }) {
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.font = "11px ui-monospace, monospace";
  let free = -Infinity;
  files.forEach((file, index) => {
    const [top, end] = bands[index].map((part) => part * plot.h);
    if (index % 2) {
      context.fillStyle = colour("band");
      context.fillRect(0, top, width, end - top);
    }
    const middle = (top + end) / 2;
    // A name that would lie on the one above is left out; the tooltip tells it.
    if (!gutter || middle - free < 12 || end - top < 5) return;
    free = middle;
    context.fillStyle = colour("soft");
    const name = file.name.slice(file.name.lastIndexOf("/") + 1);
    context.fillText(name.length > 26 ? name.slice(0, 25) + "…" : name, gutter - 8, middle, gutter - 12);
  });
}

function drawPageAxis(context, { gutter, plot }, index) {
  if (!gutter) return;
  const [first, last] = ends[index];
  context.textAlign = "right";
  context.font = "11px ui-monospace, monospace";
  context.fillStyle = colour("soft");
  if (last < first) return;
  context.textBaseline = "top";
  context.fillText("page " + first, gutter - 8, 4);
  context.textBaseline = "bottom";
  context.fillText("page " + last, gutter - 8, plot.h - 2);
}

// The dots that are to be seen: fault, x and y.
function visible(plot, only) {
  const points = [];
  const margin = 4;
  for (let i = 0; i < faults.at.length; i++) {
    const file = faults.file[i];
    const kind = faults.resolution.charCodeAt(i) - 48;
    if (!bands[file] || (only >= 0 && file !== only) || !line.shown[kind]) continue;
    const part = (faults.at[i] - line.from) / (line.to - line.from);
    if (part < 0 || part > 1) continue;
    const [first, last] = ends[file];
    const [top, end] = only >= 0 ? [0, plot.h] : bands[file].map((place) => place * plot.h);
    const pad = Math.min(margin, (end - top) / 3);
    const within = last > first ? (faults.page[i] - first) / (last - first) : 0.5;
    points.push([i, plot.x + part * plot.w, top + pad + within * (end - top - 2 * pad), kind]);
  }
  return points;
}

function drawTimeline() {
  const place = layout();
  const context = prepare(canvas, place.width, place.height);
  const only = Number(which.value);
  if (only < 0) drawBands(context, place);
  drawAxis(context, place);
  if (only >= 0) drawPageAxis(context, place, only);
  line.points = visible(place.plot, only);
  const side = line.points.length > 20000 ? 1.5 : line.points.length > 2000 ? 2.5 : 4;
  // Failed ones last, so that none is hidden.
  KINDS.forEach((name, kind) => {
    context.fillStyle = colour(kind === 2 ? "bad" : name);
    const size = kind === 2 ? Math.max(side, 3) + 3 : side;
    for (const [, x, y, its] of line.points) {
      if (its === kind) context.fillRect(x - size / 2, y - size / 2, size, size);
    }
  });
  if (!line.points.length) {
    context.fillStyle = colour("soft");
    context.textAlign = "center";
    context.font = "13px system-ui, sans-serif";
    context.fillText("no fault here", place.plot.x + place.plot.w / 2, place.plot.h / 2);
  }
  if (line.drag) {
    const [a, b] = [line.drag.begin, line.drag.now].sort((x, y) => x - y);
    context.fillStyle = colour("major");
    context.globalAlpha = 0.18;
    context.fillRect(a, 0, b - a, place.plot.h);
    context.globalAlpha = 1;
  }
}

function show(from, to) {
  const span = Math.min(Math.max(to - from, LEAST_SPAN), duration);
  line.from = Math.min(Math.max(from, 0), duration - span);
  line.to = line.from + span;
  drawTimeline();
}

const xOf = (event) => event.clientX - canvas.getBoundingClientRect().left;
function timeAt(x) {
  const { plot } = layout();
  return line.from + (Math.min(Math.max(x - plot.x, 0), plot.w) / plot.w) * (line.to - line.from);
}

function timelineTip(event) {
  const [x, y] = [xOf(event), event.clientY - canvas.getBoundingClientRect().top];
  let [best, least] = [null, 100];
  for (const point of line.points) {
    const distance = (point[1] - x) ** 2 + (point[2] - y) ** 2;
    if (distance < least) [best, least] = [point, distance];
  }
  if (!best) return hideTip();
  const i = best[0];
  const process = data.processes.find((row) => row.index === faults.process[i]);
  showTip(event, [
    `${KINDS[best[3]]} fault at ${time(faults.at[i])}, took ${time(faults.duration[i])}`,
    `${files[faults.file[i]].name}, page ${faults.page[i]} (0x${(faults.page[i] * PAGE).toString(16)})`,
    process ? `process ${process.pid}: ${process.command.slice(0, 120)}` : "",
  ].join("\n"));
}

function startTimeline() {
  which.append(new Option("all files", -1));
  files.forEach((file, index) => which.append(new Option(file.name, index)));
  which.addEventListener("change", drawTimeline);
  const sums = [0, 0, 0];
  for (const letter of faults.resolution) sums[Number(letter)]++;
  KINDS.forEach((name, kind) => {
    const label = byId("kinds").appendChild(element("label", "kind"));
    const box = label.appendChild(element("input"));
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => { line.shown[kind] = box.checked; drawTimeline(); });
    const dot = label.appendChild(element("span", "dot"));
    dot.style.background = `var(--${kind === 2 ? "bad" : name})`;
    label.append(`${name} ${number(sums[kind])}`);
  });
  const span = () => line.to - line.from;
  byId("earlier").addEventListener("click", () => show(line.from - span() / 2, line.to - span() / 2));
  byId("later").addEventListener("click", () => show(line.from + span() / 2, line.to + span() / 2));
  byId("closer").addEventListener("click", () => show(line.from + span() / 4, line.to - span() / 4));
  byId("farther").addEventListener("click", () => show(line.from - span() / 2, line.to + span() / 2));
  byId("whole").addEventListener("click", () => show(0, duration));
  canvas.addEventListener("dblclick", () => show(0, duration));
  canvas.addEventListener("mousedown", (event) => { line.drag = { begin: xOf(event), now: xOf(event) }; });
  canvas.addEventListener("mousemove", (event) => {
    if (!line.drag) return timelineTip(event);
    line.drag.now = xOf(event);
    drawTimeline();
  });
  addEventListener("mouseup", () => {
    if (!line.drag) return;
    const [a, b] = [line.drag.begin, line.drag.now].sort((x, y) => x - y);
    const [from, to] = [timeAt(a), timeAt(b)];
    line.drag = null;
    if (b - a > 4) show(from, to); else drawTimeline();
  });
  canvas.addEventListener("mouseleave", hideTip);
  drawTimeline();
}
