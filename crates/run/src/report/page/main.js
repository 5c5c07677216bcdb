// Puts the page together, and says in the root element that it did.

document.title = data.head.slice(0, 200);
byId("head").textContent = data.head;
for (const [name, value] of data.totals) byId("totals").append(element("dt", "", name), element("dd", "", value));

startTimeline();
startHeat();
startProcesses();

let waiting = 0;
function again() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => { drawTimeline(); cards.forEach(refresh); });
}
addEventListener("resize", again);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);

const drawn = cards.filter((card) => card.map).length;
root.dataset.shown = `${files.length} files, ${drawn} maps, ${data.processes.length} processes, ${line.points.length} dots`;
