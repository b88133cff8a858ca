"use strict";

// Sorting: a heading's button orders the lines between the references; what has no value stays last.
function sortBy(header) {
  const table = header.closest("table");
  const column = [...header.parentNode.children].indexOf(header);
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentNode.children) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  table.classList.add("sorted");
  const sign = descending ? -1 : 1;
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  for (const body of table.tBodies) {
    if (body.classList.contains("reference")) continue;
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[column];
      const text = cell ? cell.dataset.value ?? cell.textContent.trim() : "";
      const number = text === "" || text === "–" ? NaN : Number(text);
      return { row, text: text === "–" ? "" : text, number };
    });
    keyed.sort((a, b) => {
      if ((a.text === "") !== (b.text === "")) return a.text === "" ? 1 : -1;
      if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) ? 1 : -1;
      return sign * (Number.isNaN(a.number) ? compare(a.text, b.text) : a.number - b.number);
    });
    for (const { row } of keyed) body.append(row);
  }
}

// A link to a record opens what it is folded into.
function show(address) {
  const target = address.length > 1 && document.getElementById(decodeURIComponent(address.slice(1)));
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  for (const before of document.querySelectorAll("tr.found")) before.classList.remove("found");
  if (target.tagName === "TR") target.classList.add("found");
  target.scrollIntoView({ block: target.tagName === "TR" ? "center" : "start" });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("th button");
  if (button) return sortBy(button.parentNode);
  const link = event.target.closest("a");
  const address = link && (link.getAttribute("href") ?? link.getAttribute("xlink:href"));
  if (address && address === location.hash) show(address); // no change of address, no event of it
});
addEventListener("hashchange", () => show(location.hash));
if (location.hash) show(location.hash);

// Beside the text the contents are always open; above it they begin closed.
const contents = document.querySelector("nav.contents > details");
const beside = matchMedia("(min-width: 1180px)");
const fold = () => { contents.open = beside.matches; };
beside.addEventListener("change", fold);
fold();
