"use strict";
const end = document.getElementById("run").parentNode; // the scans stand before it
// Sorts a table by the pressed heading: numbers start with the largest, words with the first; blanks stay last; the scans follow.
for (const button of document.querySelectorAll("table.sortable thead button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const body = button.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const numeric = button.dataset.kind === "number";
    const now = heading.getAttribute("aria-sort");
    const ascending = now ? now === "descending" : !numeric;
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.key;
    const rows = Array.from(body.rows).sort((a, b) => {
      const left = key(a), right = key(b);
      if (left === "" || right === "") return (left === "") - (right === "");
      const order = numeric ? Number(left) - Number(right) : left.localeCompare(right, undefined, { numeric: true });
      return ascending ? order : -order;
    });
    body.append(...rows);
    for (const row of rows) end.before(document.querySelector(row.cells[0].firstElementChild.hash));
  });
}

// One slice of a scan at a time, drawn while it is near the window.
const viewers = new Map();
class Viewer {
  constructor(figure) {
    const numbers = (name) => figure.dataset[name].split(" ").map(Number);
    this.canvas = figure.querySelector("canvas");
    this.range = figure.querySelector("input[type=range]");
    this.contour = figure.querySelector("input[type=checkbox]");
    this.output = figure.querySelector("output");
    this.paths = figure.dataset.paths.split("|");
    [this.sheet, this.box, this.units, this.numbers] = ["sheet", "box", "units", "numbers"].map(numbers);
    this.count = figure.dataset.count;
    this.canvas.style.aspectRatio = figure.dataset.ratio;
    this.picture = new Image();
    this.range.addEventListener("input", () => this.draw());
    this.contour.addEventListener("change", () => this.draw());
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.canvas.addEventListener("click", () => this.canvas.focus());
    this.say();
    figure.hidden = false;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    new IntersectionObserver((seen) => {
      if (seen.at(-1).isIntersecting) this.open(figure.dataset.picture);
      else this.shut();
    }, { rootMargin: "50%" }).observe(figure);
  }
  open(picture) {
    this.picture.src = picture;
    this.picture.decode().then(() => this.draw(), () => {});
  }
  // Hundreds of scans would not fit in memory.
  shut() {
    this.picture.removeAttribute("src");
    this.canvas.width = this.canvas.height = 0;
  }
  get place() { return Number(this.range.value); }
  step(by) { this.show(this.place + by); }
  show(place) { this.range.value = place; this.draw(); }
  nearest(number) {
    const away = this.numbers.map((one) => Math.abs(one - number));
    this.show(away.indexOf(Math.min(...away)));
  }
  toggle() { this.contour.checked = !this.contour.checked; this.draw(); }
  // The page scrolls as ever until the picture was clicked; then the wheel goes through the slices.
  wheel(event) {
    if (document.activeElement !== this.canvas) return;
    event.preventDefault();
    this.step(Math.sign(event.deltaY));
  }
  say() { this.output.value = `Slice ${this.numbers[this.place]} of ${this.count}`; }
  draw() {
    this.say();
    const wide = this.canvas.clientWidth, high = this.canvas.clientHeight;
    if (!this.picture.naturalWidth || !wide) return;
    const dense = Math.min(window.devicePixelRatio || 1, 2);
    const width = (this.canvas.width = Math.round(wide * dense)), height = (this.canvas.height = Math.round(high * dense));
    const pen = this.canvas.getContext("2d"), place = this.place;
    const [columns, pitchX, pitchY] = this.sheet, [left, top, boxX, boxY] = this.box;
    const fromX = (place % columns) * pitchX + left, fromY = Math.floor(place / columns) * pitchY + top;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.picture, fromX, fromY, boxX, boxY, 0, 0, width, height);
    if (this.contour.checked && this.paths[place]) {
      const contour = new Path2D();
      contour.addPath(new Path2D(this.paths[place]), new DOMMatrix([width / this.units[0], 0, 0, height / this.units[1], 0, 0]));
      pen.strokeStyle = "#ffb000";
      pen.lineWidth = 1.5 * dense;
      pen.stroke(contour);
    }
    pen.fillStyle = "#e8e8e8";
    pen.font = `${13 * dense}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    pen.fillText("R", 8 * dense, height / 2);
    pen.fillText("L", width - 16 * dense, height / 2);
  }
}
for (const figure of document.querySelectorAll(".viewer")) {
  const article = figure.closest("article"), viewer = new Viewer(figure);
  viewers.set(article, viewer);
  for (const cell of article.querySelectorAll("[data-slice]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Show the middle one";
    button.append(...cell.childNodes);
    button.addEventListener("click", () => viewer.nearest(Number(cell.dataset.slice)));
    cell.append(button);
  }
}

// Keys: scans, slices, contour, table. The current scan is the one gone to or pressed on, until the page is scrolled by
// hand; then it is the one a third down the window.
let gone = null;
function current() {
  const line = innerHeight / 3;
  const there = (one) => { const box = one.getBoundingClientRect(); return box.top <= line && box.bottom > line; };
  return gone ?? Array.from(document.querySelectorAll("article")).find(there) ?? null;
}
function go(to) {
  if (to?.localName !== "article") return;
  document.activeElement?.blur();
  to.scrollIntoView({ behavior: "instant" });
  gone = to;
}
function table() {
  gone = null;
  document.getElementById("all").scrollIntoView({ behavior: "instant" });
}
const keys = {
  j: (scan) => go(scan ? scan.nextElementSibling : document.querySelector("article")),
  k: (scan) => go(scan?.previousElementSibling),
  t: table,
  c: (scan) => viewers.get(scan)?.toggle(),
  ArrowLeft: (scan) => viewers.get(scan)?.step(-1),
  ArrowRight: (scan) => viewers.get(scan)?.step(1),
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const ranged = event.target.type === "range" && key.startsWith("Arrow"); // it moves by itself
  if (keys[key] && !ranged) {
    event.preventDefault();
    keys[key](current());
  } else if (["PageDown", "PageUp", "Home", "End", "ArrowDown", "ArrowUp", " "].includes(event.key)) gone = null;
});
for (const moved of ["wheel", "touchmove"]) addEventListener(moved, () => { gone = null; }, { passive: true });
addEventListener("hashchange", () => { gone = document.querySelector("article:target"); });
for (const chosen of ["pointerdown", "focusin"]) {
  document.addEventListener(chosen, (event) => { gone = event.target.closest("article") ?? gone; });
}
for (const hint of document.querySelectorAll(".keys")) hint.hidden = false;
