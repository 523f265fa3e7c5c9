// The study's data: columns by name, shown values, and the filter that all views share.

const byId = id => document.getElementById(id);
const study = JSON.parse(byId("study").textContent);
const rows = Array.from({ length: study.rows }, (_, row) => row);

// A packed column is one value for all rows, codes into a few values, or a list.
function unpacked(values) {
  if (Array.isArray(values)) return values;
  if ("same" in values) return rows.map(() => values.same);
  return values.at.map(code => values.of[code]);
}

const columns = study.columns.map(column => ({ ...column, values: unpacked(column.values) }));
const columnOf = new Map(columns.map(column => [column.name, column]));
const valueOf = (name, row) => columnOf.get(name)?.values[row] ?? null;
const isNumeric = column => column.kind === "number";

// A number as it is shown, without its unit; null where there is none.
function shownNumber(column, row) {
  const value = column.values[row];
  return typeof value === "number" ? value * column.factor : null;
}

function withPrefix(count) {
  const size = Math.abs(count);
  if (size >= 1e9) return (count / 1e9).toFixed(2) + " G";
  if (size >= 1e6) return (count / 1e6).toFixed(2) + " M";
  if (size >= 1e3) return (count / 1e3).toFixed(1) + " k";
  return String(count);
}

function format(column, row, withUnit = true) {
  const value = column.values[row];
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return column.name === "hash" ? value.slice(0, 8) : String(value);
  if (column.digits === null) return withPrefix(value);
  const text = (value * column.factor).toFixed(column.digits);
  return withUnit && column.unit ? `${text} ${column.unit}` : text;
}

// Accuracies stand with their standard errors.
function formatWithError(column, row) {
  const error = columnOf.get(`${column.name}_se`);
  const text = format(column, row, false);
  const unit = column.unit && text !== "–" ? ` ${column.unit}` : "";
  if (!error || error.values[row] === null || text === "–") return text + unit;
  return `${text} ± ${format(error, row, false)}${unit}`;
}

const withUnit = column => (column.unit ? `${column.label} (${column.unit})` : column.label);

function cellInWords(edges, concat) {
  const steps = [];
  for (let edge = 0; edge < edges.length; edge += 4) {
    const term = at => `${study.operations[edges[at]]}(${edges[at + 1]})`;
    const terms = [edge, edge + 2].filter(at => at < edges.length).map(term);
    steps.push(`${2 + edge / 4} = ${terms.join(" + ")}`);
  }
  return `${steps.join("; ")}; output = ${concat.join(", ")}`;
}

const takeAway = trial => study.take.replaceAll("{trial}", String(trial));

// The words that a text filter looks through, made when they are first needed.
const haystacks = new Map();
function haystack(row) {
  if (!haystacks.has(row)) {
    const [normal, , reduce] = study.genotypes[row];
    const operations = [...normal, ...reduce].filter((_, at) => at % 2 === 0).map(op => study.operations[op]);
    const words = columns.filter(column => column.kind === "text").map(column => column.values[row] ?? "");
    haystacks.set(row, [`trial ${valueOf("trial", row)}`, ...words, ...operations].join(" ").toLowerCase());
  }
  return haystacks.get(row);
}

// Ranges are in shown units; an end that is null is open.
const filter = { text: "", ranges: new Map() };
let passes = rows.map(() => true);
const views = [];

function refilter() {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const ranges = [...filter.ranges].map(([name, ends]) => [columnOf.get(name), ends]);
  passes = rows.map(row => {
    const inRanges = ranges.every(([column, [low, high]]) => {
      const value = shownNumber(column, row);
      return value !== null && (low === null || value >= low) && (high === null || value <= high);
    });
    return inRanges && (words.length === 0 || words.every(word => haystack(row).includes(word)));
  });
  for (const view of views) view();
}

function setRange(name, low, high) {
  if (low === null && high === null) filter.ranges.delete(name);
  else filter.ranges.set(name, [low, high]);
  refilter();
}

const isFiltered = () => filter.text.trim() !== "" || filter.ranges.size > 0;
const isFinished = row => valueOf("state", row) === "finished";
