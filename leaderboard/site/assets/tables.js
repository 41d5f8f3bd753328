"use strict";
// Tables of class "data" become sortable, searchable and filterable; notes of cells open on hover.

const PAGE = 50;   // rows at a time in a long table
const SEARCH = 8;  // rows from which a table can be searched and filtered

// Numbers by value; cells without one come last, whichever way round.
const byValue = (sign) => (a, b) =>
  a === "" || b === "" ? (a === "") - (b === "") : sign * (Number(a) - Number(b));
DataTable.type("quantity", { order: { asc: byValue(1), desc: byValue(-1) } });

for (const table of document.querySelectorAll("table.data")) enhance(table);

function enhance(table) {
  const rows = table.tBodies[0].rows.length;
  const headings = [...table.tHead.rows[0].cells];
  const indices = (test) => headings.flatMap((heading, k) => (test(heading) ? [k] : []));
  const minor = indices((heading) => "minor" in heading.dataset);
  const choices = indices((heading) => "filtered" in heading.dataset)
    .map((column) => [column, choiceOf(table, column, headings[column].textContent)])
    .filter(([, select]) => select && rows >= SEARCH);
  const label = table.parentElement.getAttribute("aria-label");
  const wide = table.parentElement;

  const made = new DataTable(table, {
    autoWidth: false,
    order: [],
    orderClasses: false,
    paging: rows > PAGE,
    pageLength: PAGE,
    lengthMenu: [PAGE, 4 * PAGE, -1],
    columnDefs: [
      { targets: indices((heading) => heading.classList.contains("number")), type: "quantity" },
      { targets: indices((heading) => !heading.classList.contains("number")), type: "string" },
      { targets: minor, visible: false },
    ],
    language: { search: "Search", info: "_START_ to _END_ of _TOTAL_ rows",
      infoEmpty: "no rows", infoFiltered: "(of _MAX_ in all)", lengthMenu: "Rows _MENU_",
      zeroRecords: "No row matches." },
    layout: {
      topStart: choices.length ? () => boxOf(choices.map(([, select]) => select)) : null,
      topEnd: [
        ...(rows >= SEARCH ? ["search"] : []),
        ...(minor.length ? [{ buttons: [{ extend: "colvis", text: "Columns" }] }] : []),
      ],
      bottomStart: rows >= SEARCH ? "info" : null,
      bottomEnd: rows > PAGE ? ["pageLength", "paging"] : null,
    },
  });

  table.classList.add("ready");

  // What scrolls is now the table alone, without its controls.
  const scroller = made.table().container().querySelector(".dt-layout-table");
  for (const name of ["class", "role", "tabindex", "aria-label"]) wide.removeAttribute(name);
  scroller.classList.add("wide");
  scroller.setAttribute("role", "region");
  scroller.setAttribute("aria-label", label);
  scroller.tabIndex = 0;

  // Screen readers are told, too, which columns are shown.
  made.on("buttons-action column-visibility", () => {
    for (const button of made.table().container().querySelectorAll(".buttons-columnVisibility")) {
      button.setAttribute("aria-pressed", button.classList.contains("dt-button-active"));
    }
  });

  for (const [column, box] of choices) {
    box.querySelector("select").addEventListener("change", ({ target }) => {
      const wanted = target.value;
      const chosen = target.selectedIndex > 0 ? (text) => text === wanted : null;
      made.column(column).search.fixed("choice", chosen).draw();
    });
  }
  if (rows > PAGE) printWhole(made);
}

// Paper has no pages of a table to turn.
function printWhole(made) {
  let length = PAGE;
  addEventListener("beforeprint", () => {
    length = made.page.len();
    made.page.len(-1).draw();
  });
  addEventListener("afterprint", () => made.page.len(length).draw());
}

// A field to choose one of the texts of a column; nothing where all are the same.
function choiceOf(table, column, heading) {
  const texts = new Set([...table.tBodies[0].rows].map((row) => row.cells[column].dataset.filter));
  if (texts.size < 2) return null;
  const label = document.createElement("label");
  const select = document.createElement("select");
  label.className = "choice";
  select.setAttribute("aria-label", heading);
  label.append(heading, select);
  select.append(new Option("all", ""));
  for (const text of [...texts].sort()) select.append(new Option(text || "(none)", text));
  return label;
}

function boxOf(parts) {
  const box = document.createElement("div");
  box.className = "choices";
  box.append(...parts);
  return box;
}

// Notes of cells: one is open at a time, beside its cell, above everything else.
document.documentElement.classList.add("scripted");
let shown = null;

function hide() {
  if (shown) shown.open = false;
  shown = null;
}

function show(note) {
  if (shown !== note) hide();
  shown = note;
  note.open = true;
  const box = note.parentElement.getBoundingClientRect();
  const text = note.querySelector("pre");
  const { offsetWidth: width, offsetHeight: height } = text;
  const below = box.bottom + height < innerHeight || box.top < height;
  text.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 16))}px`;
  text.style.top = `${below ? box.bottom : box.top - height}px`;
}

document.addEventListener("pointerover", ({ target }) => {
  const note = target.closest("td")?.querySelector("details.more");
  if (note) show(note);
  else hide();
});
document.addEventListener("focusin", ({ target }) => {
  const note = target.closest("details.more");
  if (note) show(note);
  else hide();
});
document.addEventListener("click", (event) => {
  const note = event.target.closest("details.more");
  if (!note) return;
  event.preventDefault(); // it is open already
  show(note);
});
document.addEventListener("keydown", ({ key }) => key === "Escape" && hide());
document.addEventListener("scroll", ({ target }) => shown?.contains(target) || hide(), true);
