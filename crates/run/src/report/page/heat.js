// The heat map of each file.

const MOST_CELLS = 4096;
const OPEN_AT_FIRST = 12;
const STOPS = [[63, 87, 214], [28, 148, 168], [88, 171, 69], [232, 187, 34]];

// From 0, the first, to 1, the last.
function heat(part) {
  const at = Math.min(Math.max(part, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  const mix = (i) => Math.round(STOPS[low][i] + (STOPS[low + 1][i] - STOPS[low][i]) * (at - low));
  return `rgb(${mix(0)},${mix(1)},${mix(2)})`;
}

// The n-th touch of the run for each page, by file, and its time; of faults that were recorded.
const firstFaults = files.map(() => new Map());
let touchesOfRun = 0;
for (let i = 0; i < faults.at.length; i++) {
  const known = firstFaults[faults.file[i]];
  if (known && !known.has(faults.page[i])) known.set(faults.page[i], { order: ++touchesOfRun, at: faults.at[i] });
}

// The pages of a file, gathered in at most MOST_CELLS cells.
function cellsOf(index, orderOf) {
  const file = files[index];
  const pages = Math.max(file.pages, 1);
  const each = Math.ceil(pages / MOST_CELLS);
  const cells = Array.from({ length: Math.ceil(pages / each) }, () => ({ touched: 0, order: 0, copied: 0, failed: "" }));
  const cell = (page) => cells[Math.min(Math.floor(page / each), cells.length - 1)];
  let nth = 0;
  for (let run = 0; run < file.touches.length; run += 2) {
    for (let k = 0; k < file.touches[run + 1]; k++) {
      const page = file.touches[run] + k;
      nth++;
      const known = firstFaults[index].get(page);
      const order = orderOf === "run" && known ? known.order : nth;
      const here = cell(page);
      if (!here.touched++ || order < here.order) Object.assign(here, { order, nth, page, at: known && known.at });
    }
  }
  for (let run = 0; run < file.copied.length; run += 2) {
    for (let k = 0; k < file.copied[run + 1]; k++) cell(file.copied[run] + k).copied++;
  }
  for (const [first, pagesFailed, reason] of file.failed) {
    const last = Math.min(first + pagesFailed, pages);
    for (let page = first; page < last; page += 1) cell(page).failed = reason;
  }
  const last = orderOf === "run" && touchesOfRun ? touchesOfRun : nth;
  return { cells, each, last };
}

function drawHeat(card) {
  const width = Math.max(card.canvas.clientWidth, 60);
  const { cells, last } = card.map;
  const size = cells.length <= 600 ? 11 : cells.length <= 1600 ? 8 : 6;
  const columns = Math.max(Math.floor(width / size), 1);
  const context = prepare(card.canvas, width, Math.ceil(cells.length / columns) * size);
  Object.assign(card, { size, columns });
  const [pale, bad, mark] = [colour("pale"), colour("bad"), colour("mark")];
  const gap = size > 6 ? 1 : 0.5;
  cells.forEach((cell, i) => {
    const [x, y, side] = [(i % columns) * size, Math.floor(i / columns) * size, size - gap];
    context.fillStyle = pale;
    context.fillRect(x, y, side, side);
    if (cell.touched) {
      // Of a cell with many pages as much is filled as was touched, so that a few pages do not look like all.
      const part = Math.max(cell.touched / Math.min(card.map.each, files[card.index].pages), 0.3);
      context.fillStyle = heat(last > 1 ? (cell.order - 1) / (last - 1) : 0);
      context.fillRect(x, y + side * (1 - Math.min(part, 1)), side, side * Math.min(part, 1));
    }
    if (cell.failed) {
      context.fillStyle = bad;
      context.fillRect(x, y, side, side);
      context.strokeStyle = colour("back");
      context.lineWidth = 1.2;
      context.beginPath();
      context.moveTo(x + 2, y + 2); context.lineTo(x + side - 2, y + side - 2);
      context.moveTo(x + side - 2, y + 2); context.lineTo(x + 2, y + side - 2);
      context.stroke();
    }
    if (cell.copied) {
      context.fillStyle = mark;
      context.beginPath();
      context.arc(x + side / 2, y + side / 2, Math.max(size / 5, 1.2), 0, 7);
      context.fill();
    }
  });
}

function heatTip(card, event) {
  const box = card.canvas.getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left) / card.size);
  const at = Math.floor((event.clientY - box.top) / card.size) * card.columns + column;
  const cell = column < card.columns ? card.map.cells[at] : undefined;
  if (!cell) return hideTip();
  const [first, each] = [at * card.map.each, card.map.each];
  const end = Math.min(first + each, files[card.index].pages);
  const lines = [each === 1 ? `page ${first}` : `pages [${first}, ${end}): ${cell.touched} touched`];
  lines.push(`offset 0x${(first * PAGE).toString(16)}`);
  if (cell.touched) {
    const which = each === 1 ? "touched as" : `page ${cell.page} first, as`;
    const when = cell.at === undefined ? "" : `, at ${time(cell.at)}`;
    lines.push(`${which} number ${cell.order} of ${card.map.last}${when}`);
  } else {
    lines.push("never touched");
  }
  if (cell.copied) lines.push(each === 1 ? "copied by a process" : `${cell.copied} copied by processes`);
  if (cell.failed) lines.push("could not be supplied: " + cell.failed);
  showTip(event, lines.join("\n"));
}

const sumOfCounts = (runs) => {
  let sum = 0;
  for (let i = 1; i < runs.length; i += 2) sum += runs[i];
  return sum;
};

function cardOf(index) {
  const file = files[index];
  const [touched, copied] = [sumOfCounts(file.touches), sumOfCounts(file.copied)];
  const box = element("details");
  const summary = box.appendChild(element("summary"));
  summary.appendChild(element("span", "name", file.name));
  const facts = summary.appendChild(element("span", "facts"));
  const share = file.pages ? Math.round((touched / file.pages) * 100) : 0;
  facts.append(`${number(touched)} of ${count(file.pages, "page")} touched (${share}%), `
    + `${number(file.counts[0])} major, ${number(file.counts[1])} minor, ${number(copied)} copied, `
    + `mapped ${count(file.mappings, "time")}, `
    + bytes(file.length));
  if (file.failed.length) {
    facts.append(element("span", "bad", `, ${file.failed.reduce((sum, row) => sum + row[1], 0)} failed`));
  }
  const inside = box.appendChild(element("div", "inside"));
  const canvas = inside.appendChild(element("canvas"));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Pages of ${file.name} by the order of their first touch`);
  const card = { index, box, canvas, touched, name: file.name, map: null };
  canvas.addEventListener("mousemove", (event) => heatTip(card, event));
  canvas.addEventListener("mouseleave", hideTip);
  box.addEventListener("toggle", () => refresh(card));
  return card;
}

// Draws a map that can be seen; others are not even counted.
function refresh(card) {
  if (!card.box.open || card.box.hidden) return;
  card.map ??= cellsOf(card.index, byId("order").value);
  drawHeat(card);
}

const cards = files.map((_, index) => cardOf(index));

function arrange() {
  const ways = {
    touched: (a, b) => b.touched - a.touched || a.index - b.index,
    failed: (a, b) => files[b.index].failed.length - files[a.index].failed.length || ways.touched(a, b),
    mapped: (a, b) => a.index - b.index,
    name: (a, b) => (a.name < b.name ? -1 : 1),
  };
  byId("files").replaceChildren(...[...cards].sort(ways[byId("sort").value]).map((card) => card.box));
}

function startHeat() {
  arrange();
  // What failed is what somebody will look for.
  const urgency = (card) => (files[card.index].failed.length ? 1e12 : 0) + card.touched;
  [...cards].sort((a, b) => urgency(b) - urgency(a)).slice(0, OPEN_AT_FIRST)
    .filter((card) => urgency(card))
    .forEach((card) => { card.box.open = true; });
  cards.forEach(refresh);
  byId("sort").addEventListener("change", arrange);
  byId("order").addEventListener("change", () => {
    cards.forEach((card) => { card.map = null; });
    cards.forEach(refresh);
  });
  byId("find").addEventListener("input", () => {
    const wanted = byId("find").value.toLowerCase();
    for (const card of cards) {
      card.box.hidden = !card.name.toLowerCase().includes(wanted);
      refresh(card);
    }
  });
}
