"use strict";
// A click on a heading sorts by that column, a second one turns the order around.
for (const heading of document.querySelectorAll("th")) {
  heading.querySelector("button").addEventListener("click", () => {
    const row = heading.parentElement, column = [...row.children].indexOf(heading);
    const rising = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of row.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const body = heading.closest("table").tBodies[0];
    const numeric = heading.classList.contains("number");
    const key = (line) => {
      const cell = line.cells[column];
      if (!numeric) return cell.textContent;
      return "value" in cell.dataset ? Number(cell.dataset.value) : null;
    };
    const compare = (a, b) => {
      const x = key(a), y = key(b);
      if (x === null || y === null) return (x === null) - (y === null); // empty ones stay last
      return (rising ? 1 : -1) * (numeric ? x - y : x.localeCompare(y));
    };
    body.append(...[...body.rows].sort(compare));
  });
}
