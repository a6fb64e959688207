"use strict";
// Sorts a table by the pressed heading: numbers start with the largest, words with the first; blanks stay last.
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
  });
}
