// The tree of processes.

const DEEPEST = 12;

function segmentTable(process) {
  const table = element("table");
  const head = table.appendChild(element("tr"));
  const columns = ["addresses", "", "offset", "present", "copied", "what"];
  columns.forEach((name, i) => head.append(element("th", i > 1 && i < 5 ? "number" : "", name)));
  for (const [range, protection, file, offset, name, present, copied] of process.segments) {
    const row = table.appendChild(element("tr"));
    row.append(element("td", "", range), element("td", "", protection), element("td", "number", offset));
    row.append(element("td", "number", present), element("td", "number", copied));
    row.append(element("td", "", files[file] ? files[file].name : name));
  }
  return table;
}

function processRow(process) {
  const box = element("details");
  const summary = box.appendChild(element("summary"));
  const name = summary.appendChild(element("span", "name"));
  name.style.paddingLeft = Math.min(process.depth, DEEPEST) * 1.1 + "rem";
  name.title = process.command;
  if (process.replaces) name.append(element("span", "tag", "exec "));
  if (process.depth > DEEPEST) name.append(element("span", "tag", `[${process.depth}] `));
  // A command line can be megabytes long; its beginning tells what it is.
  name.append(process.command.slice(0, 300) || "?");
  const [major, minor, failed] = process.counts;
  summary.append(element("span", "number", "pid " + process.pid));
  summary.append(element("span", "number faults", count(major + minor + failed, "fault")));
  const bar = summary.appendChild(element("span", "bar"));
  const inner = bar.appendChild(element("i"));
  const end = process.ended ?? duration;
  inner.style.left = Math.min((process.started / duration) * 100, 99.5) + "%";
  inner.style.width = Math.max(((end - process.started) / duration) * 100, 0) + "%";
  bar.title = `${time(process.started)} to ${process.ended === null ? "?" : time(end)}`;
  box.addEventListener("toggle", () => {
    if (!box.open || box.children.length > 1) return;
    const inside = box.appendChild(element("div", "inside"));
    const facts = inside.appendChild(element("p", "hint"));
    facts.textContent = `from ${time(process.started)} to ${process.ended === null ? "?" : time(process.ended)}, `
      + `end: ${process.end}; ${major} major, ${minor} minor, ${failed} failed, slept ${time(process.slept)}`;
    if (process.segments.length) inside.append(segmentTable(process));
    else inside.append("The segment table was not read.");
  });
  return box;
}

function startProcesses() {
  const rows = data.processes.map(processRow);
  byId("processes").append(...rows);
  if (rows.length === 1) rows[0].open = true;
}
