// What the other parts use: the data, small helpers, the tooltip.

const PAGE = 4096;
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
addEventListener("error", (event) => {
  root.dataset.error = event.message;
  const problem = byId("problem");
  problem.textContent = "This page failed: " + event.message;
  problem.hidden = false;
});

const data = JSON.parse(byId("data").textContent);
const files = data.files;
const faults = data.faults;
// Times are told as distances, which are shorter.
for (let i = 1; i < faults.at.length; i++) faults.at[i] += faults.at[i - 1];
// What a duration of nought would be divided by.
let lastAt = 1;
for (const at of faults.at) lastAt = Math.max(lastAt, at);
const duration = Math.max(data.duration, lastAt);
const KINDS = ["major", "minor", "failed"];

// All text comes into the page through here, never as HTML.
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
const number = (n) => n.toLocaleString("en");
const count = (n, what) => number(n) + " " + what + (n === 1 ? "" : "s");

function time(us) {
  if (us < 1000) return Math.round(us) + " us";
  if (us < 1e6) return (us / 1e3).toFixed(us < 1e5 ? 2 : 1) + " ms";
  return (us / 1e6).toFixed(3) + " s";
}

function bytes(n) {
  let unit = 0;
  while (n >= 1024 && unit < 4) { n /= 1024; unit++; }
  return (unit ? n.toFixed(1) : n) + " " + ["bytes", "KiB", "MiB", "GiB", "TiB"][unit];
}

// A canvas as sharp as the screen; gives its context, in units of the page.
function prepare(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

const tip = byId("tip");
function showTip(event, text) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 4)) + "px";
  const below = event.clientY + 16;
  tip.style.top = (below + box.height > innerHeight ? event.clientY - box.height - 10 : below) + "px";
}
const hideTip = () => { tip.hidden = true; };
