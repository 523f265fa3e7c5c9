// The leaderboard: sorted, filtered, in pages, with the details of a trial below its row.

const table = { sort: "rank", ascending: true, page: 0, open: null, order: rows };
const shownColumns = new Set(columns.filter(column => column.shown && (study.rows === 0 || column.values.some(value => value !== null))).map(column => column.name));
const collator = new Intl.Collator("en", { numeric: true });

function compare(column, a, b) {
  const [x, y] = [column.values[a], column.values[b]];
  // Nothing stands behind everything, whichever way the order goes.
  if (x === null || y === null) return (x === null) - (y === null) || a - b;
  const order = typeof x === "string" ? collator.compare(x, y) : (x - y) * Math.sign(column.factor || 1);
  return (table.ascending ? order : -order) || a - b;
}

function sortBy(name) {
  const column = columnOf.get(name);
  if (table.sort === name) table.ascending = !table.ascending;
  else [table.sort, table.ascending] = [name, column.better < 1];
  table.page = 0;
  orderRows();
  drawTable();
}

function orderRows() {
  const column = columnOf.get(table.sort);
  table.order = rows.filter(row => passes[row]).sort((a, b) => compare(column, a, b));
}

const pageSize = () => Number(byId("rows").value);
const pages = () => Math.max(1, Math.ceil(table.order.length / pageSize()));

function drawTable() {
  table.page = Math.min(Math.max(table.page, 0), pages() - 1);
  const visible = columns.filter(column => shownColumns.has(column.name));
  const heads = visible.map(column => {
    const sorted = table.sort === column.name ? (table.ascending ? "ascending" : "descending") : "none";
    const arrow = { ascending: "▲", descending: "▼", none: "" }[sorted];
    const button = element("button", { type: "button", title: `Sort by ${column.label.toLowerCase()}` }, column.short ?? column.label, element("span", { "aria-hidden": "true" }, arrow));
    button.addEventListener("click", () => {
      sortBy(column.name);
      byId("table").querySelector(`th[data-column="${CSS.escape(column.name)}"] button`).focus();
    });
    return element("th", { scope: "col", "aria-sort": sorted, "data-column": column.name, class: isNumeric(column) ? "number" : "text" }, button);
  });
  heads.push(element("th", { scope: "col", class: "text" }, element("span", { class: "plain" }, "Details")));
  byId("table").tHead.replaceChildren(element("tr", {}, ...heads));
  const size = pageSize();
  const from = table.page * size;
  const body = document.createDocumentFragment();
  for (const row of table.order.slice(from, from + size)) {
    const cells = visible.map(column => element("td", { class: isNumeric(column) ? "number" : "text" }, column.role === "score" ? formatWithError(column, row) : format(column, row)));
    const trial = valueOf("trial", row);
    const isOpen = table.open === row;
    const button = element("button", { type: "button", "aria-expanded": String(isOpen), "aria-label": `Details of trial ${trial}` }, isOpen ? "Hide" : "Show");
    button.addEventListener("click", () => {
      table.open = isOpen ? null : row;
      drawTable();
      byId("table").querySelector(`tr[data-trial="${trial}"] button`).focus();
    });
    body.append(element("tr", { "data-trial": trial, class: isFinished(row) ? "" : "unfinished" }, ...cells, element("td", { class: "text" }, button)));
    if (isOpen) body.append(element("tr", { class: "details" }, element("td", { colspan: visible.length + 1 }, detailsOf(row))));
  }
  if (table.order.length === 0) {
    body.append(element("tr", {}, element("td", { colspan: visible.length + 1, class: "text" }, study.rows ? "No trial passes the filters." : "The study has no trials yet.")));
  }
  byId("table").tBodies[0].replaceChildren(body);
  const last = Math.min(from + size, table.order.length);
  const all = table.order.length === study.rows ? `${study.rows} trials` : `${table.order.length} of ${study.rows} trials`;
  byId("count").textContent = table.order.length ? `${all}, rows ${from + 1} to ${last}` : all;
  byId("page").textContent = `Page ${table.page + 1} of ${pages()}`;
  byId("first").disabled = byId("previous").disabled = table.page === 0;
  byId("next").disabled = byId("last").disabled = table.page === pages() - 1;
}

function detailsOf(row) {
  const trial = valueOf("trial", row);
  const box = element("div", { class: "trial" });
  if (isFinished(row)) {
    const command = element("code", {}, takeAway(trial));
    const copy = element("button", { type: "button" }, "Copy");
    copy.addEventListener("click", () => copied(command, copy));
    box.append(element("p", {}, "Export this network, with the weights that the search kept of it, else predicted ones (in the folder of this page):"), element("p", { class: "command" }, command, copy));
  }
  const [normal, normalConcat, reduce, reduceConcat] = study.genotypes[row];
  const facts = element("dl", { class: "grid" });
  const fact = (name, value) => facts.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  for (const column of columns) {
    if (column.values[row] === null || column.name.endsWith("_se")) continue;
    const value = column.name === "hash" ? column.values[row] : column.digits === null ? column.values[row].toLocaleString("en") : formatWithError(column, row);
    fact(column.label, value);
  }
  box.append(facts, element("p", { class: "words" }, `Normal cell: ${cellInWords(normal, normalConcat)}`), element("p", { class: "words" }, `Reduction cell: ${cellInWords(reduce, reduceConcat)}`));
  return box;
}

async function copied(source, button) {
  const range = document.createRange();
  range.selectNodeContents(source);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  let done = false;
  try {
    await navigator.clipboard.writeText(source.textContent);
    done = true;
  } catch {
    // Pages opened from a file may not reach the clipboard; the older way still works in most browsers.
    done = document.execCommand("copy");
  }
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

// Shows a trial's details, on whatever page it stands.
function openTrial(row) {
  if (!table.order.includes(row)) return;
  table.open = row;
  table.page = Math.floor(table.order.indexOf(row) / pageSize());
  drawTable();
  const line = byId("table").querySelector(`tr[data-trial="${valueOf("trial", row)}"]`);
  line.scrollIntoView({ block: "center" });
  line.querySelector("button").focus({ preventScroll: true });
}

function rangeInputs() {
  const wanted = column => isNumeric(column) && !isAlias(column) && (column.role !== "about" || ["rank", "trial", "elapsed_s"].includes(column.name));
  const boxes = columns.filter(column => wanted(column) && new Set(column.values.filter(value => value !== null)).size > 1).map(column => {
    const shown = rows.map(row => shownNumber(column, row)).filter(value => value !== null);
    const [low, high] = shown.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    const digits = column.digits ?? 0;
    const input = (side, text) => element("input", { type: "number", step: "any", placeholder: text, "aria-label": `${withUnit(column)}, ${side}`, "data-range": column.name, "data-side": side });
    const [least, most] = [input("least", (Math.floor(low * 10 ** digits) / 10 ** digits).toFixed(digits)), input("most", (Math.ceil(high * 10 ** digits) / 10 ** digits).toFixed(digits))];
    const read = field => (field.value === "" ? null : Number(field.value));
    for (const field of [least, most]) field.addEventListener("input", () => setRange(column.name, read(least), read(most)));
    return element("div", { class: "range" }, element("span", {}, withUnit(column)), least, "to", most);
  });
  byId("ranges").querySelector(".grid").replaceChildren(...boxes);
}

// Inputs follow ranges that were made elsewhere, except for the one being typed in.
function followRanges() {
  for (const field of byId("ranges").querySelectorAll("input")) {
    const ends = filter.ranges.get(field.dataset.range) ?? [null, null];
    const value = ends[field.dataset.side === "least" ? 0 : 1];
    if (field !== document.activeElement) field.value = value === null ? "" : String(Number(value.toPrecision(6)));
  }
}

function columnChoices() {
  const boxes = columns.map(column => {
    const box = element("input", { type: "checkbox" });
    box.checked = shownColumns.has(column.name);
    box.addEventListener("change", () => {
      if (box.checked) shownColumns.add(column.name);
      else shownColumns.delete(column.name);
      drawTable();
    });
    return element("label", { class: "choice" }, box, column.label);
  });
  byId("columns").querySelector(".grid").replaceChildren(...boxes);
}
